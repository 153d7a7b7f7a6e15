import html.parser
import json
import re

import pytest

from pluri.errors import DataError, UsageError
from pluri.report import write_report

VOID = {"meta", "br", "input", "path", "circle", "rect"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and keeps text, ids and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [str(attributes[key]) for key in ("src", "href") if key in attributes]
        self.ids += [str(attributes["id"])] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def report(runs, tmp_path, **how) -> tuple[Page, str]:
    source = write_report(runs, tmp_path / "out" / "report.html", **how).read_text(encoding="utf-8")
    return Page(source), source


def first(pattern: str, source: str) -> str:
    match = re.search(pattern, source, re.DOTALL)
    assert match is not None
    return match[1]


def figures(source: str) -> dict:
    return json.loads(first(r'id="figures">(.*?)</script>', source))


def test_a_whole_run_has_every_section(make_run, tmp_path):
    page, source = report([make_run()], tmp_path)
    sections = ["done", "results", "fills", "loss", "confusion", "ledger", "doctor", "reproduce"]
    assert [name for name in page.ids if name in sections] == sections
    assert len(set(page.ids)) == len(page.ids)
    assert "With 50 labelled sentences, pretraining lifts accuracy from" in page.text
    assert "Chinese newspaper" in page.text
    assert "98.15%" in page.text
    assert set(figures(source)) == {"efficiency-0", "loss", "confusion"}
    assert list(tmp_path.glob("out/*")) == [tmp_path / "out" / "report.html"]


def test_nothing_is_loaded_from_anywhere(make_run, tmp_path):
    page, source = report([make_run()], tmp_path)
    assert page.addresses == []
    assert source.count("plotly.js v") == 1
    policy = first(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_everything_from_data_is_escaped(make_run, tmp_path):
    evil = "</script><script>alert(1)</script>"
    run = make_run(
        f"run {evil.replace('/', '')}"[:60], {"pretrained": (0.5, 0.6, 0.7), evil: (0.4, 0.5, 0.6)}, notes=[evil]
    )
    results = json.loads((run / "results.json").read_text())
    results |= {"about": {evil: evil, "unit": evil}, "glossary": {"n": evil}, "command": evil}
    results["confusion"]["labels"][1] = evil
    (run / "results.json").write_text(json.dumps(results))
    (run / "fills.json").write_text(
        json.dumps(
            [
                {
                    "text": f"a [MASK] {evil}",
                    "answer": evil,
                    "gloss": evil,
                    "predictions": [{"token_str": evil, "score": 1}],
                }
            ]
        )
    )
    _, source = report([run], tmp_path, title=evil)
    assert "<script>alert" not in source
    assert "&lt;script&gt;alert(1)" in source
    assert "<script" not in json.dumps(figures(source))


def test_a_killed_run_is_reported_as_far_as_it_came(make_journal, tmp_path):
    file = make_journal(tmp_path / "run", steps=300, end=False)
    file.write_bytes(file.read_bytes()[:-37] + b"\xff\xfe")
    page, _ = report([tmp_path / "run"], tmp_path)
    assert "stopped or is still going" in page.text
    assert "1 journal line(s) were cut or damaged" in page.text
    assert "guesses a hidden token as if among" in page.text
    assert "results" not in page.ids


def test_a_run_that_learned_nothing_says_so(make_journal, tmp_path):
    make_journal(tmp_path / "run", steps=200, entropy=3.0)
    page, _ = report([tmp_path / "run"], tmp_path)
    assert "has not yet learned more than how frequent each token is" in page.text


def test_a_damaged_results_file_is_named_and_the_rest_shown(make_run, tmp_path):
    run = make_run()
    (run / "results.json").write_text('{"rows": [')
    page, _ = report([run], tmp_path)
    assert "loss" in page.ids
    assert "results" not in page.ids
    assert "Files that could not be read" in page.text


def test_results_on_top_speak_for_those_below(make_run, make_rows, tmp_path):
    run = make_run()
    (run / "finetune").mkdir()
    (run / "finetune" / "results.json").write_text(json.dumps({"rows": make_rows({"other": (0.1, 0.1, 0.1)})}))
    _, source = report([run], tmp_path)
    assert len(figures(source)["efficiency-0"]["data"]) == 5


def test_two_runs_are_told_apart_and_what_they_share_is_shown_once(make_run, tmp_path):
    first = make_run("first", {"pretrained": (0.5, 0.6, 0.7), "majority": (0.2, 0.2, 0.2)})
    second = make_run("second", {"pretrained": (0.6, 0.7, 0.8), "majority": (0.2, 0.2, 0.2)})
    page, source = report([first, second], tmp_path)
    names = {trace["name"] for trace in figures(source)["efficiency-0"]["data"]}
    assert names == {"pretrained (first)", "pretrained (second)", "majority"}
    assert "first/pretrain" in page.text


def test_a_gain_within_chance_is_never_called_gained(make_run, tmp_path):
    page, _ = report(
        [make_run(means={"pretrained": (0.452, 0.54, 0.67), "random start": (0.45, 0.54, 0.67)})], tmp_path
    )
    assert "no clear difference, at 50 labels" in page.text
    assert "gained by pretraining" not in page.text


def test_notes_limit_what_is_claimed(make_run, tmp_path):
    page, _ = report([make_run(notes=["12 test sequences also stand in the training data"])], tmp_path)
    assert "12 test sequences also stand" in page.text
    assert "that none had seen" not in page.text


def test_intervals_reach_the_plot(make_run, tmp_path):
    _, source = report([make_run()], tmp_path)
    (line,) = [trace for trace in figures(source)["efficiency-0"]["data"] if trace["name"] == "pretrained"]
    assert line["y"] == pytest.approx([57, 65.5, 74.8], abs=1.5)
    assert all(value > 0.1 for value in line["error_y"]["array"])


def test_usage(tmp_path):
    with pytest.raises(UsageError, match="no such run folder"):
        write_report([tmp_path / "missing"], tmp_path / "report.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no journal"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(UsageError):
        write_report([], tmp_path / "report.html")


def test_an_output_that_cannot_be_written_is_one_line(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report([make_run()], tmp_path / "file" / "report.html")


def test_prompts_are_drawn_over_their_examples(tmp_path):
    rows = [
        {"task": "polarity", "method": "gpt", "shots": shots, "seed": seed, "metric": metric, "value": 0.5 + shots / 40}
        for metric in ("acc", "acc_calibrated")
        for shots in (0, 1, 4)
        for seed in range(3 if shots else 1)
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    text = write_report([tmp_path / "run"], tmp_path / "report.html").read_text(encoding="utf-8")
    page = " ".join(Page(text).words)
    assert "behind 0, 1 and 4 labelled examples. Nothing was trained." in " ".join(page.split())
    assert "Fine-tuning" not in page
    assert "calibrated accuracy" in page
    assert "52.5%" in page
    assert 'id="efficiency-0"' in text
