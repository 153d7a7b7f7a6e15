"""The parts of the report that tell of one fine-tuning: its curves, its mistakes, its answers."""

import json
import re

import pytest

from pluri.errors import DataError
from pluri.report import write_report
from pluri.report.answers import AROUND, answers_section, marked, shaded
from pluri.report.confusion import OTHER
from pluri.report.curves import curves_section
from pluri.report.mistakes import mistakes_section

EVIL = "</script><script>alert(1)</script>"
SLOTS = {"pretrained": 0, "random start": 1}


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def curve_rows(method="pretrained", seed=0, labelled=50, steps=(10, 20, 30), base=0.5):
    about = {"method": method, "seed": seed, "labelled": labelled}
    rows = [{**about, "step": step, "tokens": 99 * step, "loss": 2 - step / 100 + seed} for step in steps]
    return [{**row, "accuracy": base + row["step"] / 100} if row["step"] > 10 else row for row in rows]


@pytest.fixture
def run(tmp_path, make_rows):
    """A folder as `pluri finetune` leaves it."""
    (tmp_path / "reviews").mkdir()
    rows = make_rows({"pretrained": (0.6, 0.7, 0.8), "random start": (0.5, 0.6, 0.7)}, task="classify")
    content = {"rows": rows, "confusion": {"labels": ["up", "down"], "matrix": [[3, 1], [1, 2]]}}
    (tmp_path / "reviews" / "results.json").write_text(json.dumps(content))
    return tmp_path / "reviews"


def page_of(*runs):
    return write_report(runs, runs[0].parent / "report.html").read_text(encoding="utf-8")


def figures_of(page):
    found = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_line_is_the_mean_of_the_seeds_with_its_range(tmp_path):
    rows = [*curve_rows(), *curve_rows(seed=1, steps=(10, 20, 30, 31), base=0.7), *curve_rows("random start")]
    section = curves_section(write_lines(tmp_path / "curves.jsonl", rows), SLOTS, "reviews")
    traces = section["figure"]["data"]
    band, loss = (trace for trace in traces if trace["meta"] == 0 and trace["yaxis"] == "y")
    assert (loss["x"], loss["y"]) == ([10, 20, 30], [2.4, 2.3, 2.2])
    assert (band["x"], band["y"]) == ([10, 20, 30, 30, 20, 10], pytest.approx([2.9, 2.8, 2.7, 1.7, 1.8, 1.9]))
    (metric,) = [t for t in traces if t["meta"] == 0 and t["yaxis"] == "y2" and t["mode"] != "none"]
    assert (metric["x"], metric["y"]) == ([20, 30], pytest.approx([80, 90]))
    assert [row["best"] for row in section["table"]] == ["90.0%", "80.0%"]
    assert (section["table"][0]["first"], section["table"][0]["last"]) == ("2.400", "2.200")
    assert [key["name"] for key in section["legend"]] == ["pretrained", "random start"]


def test_each_number_of_labels_has_its_curves(run):
    write_lines(run / "curves.jsonl", [*curve_rows(labelled=1000), *curve_rows(), *curve_rows(EVIL)])
    page = page_of(run)
    figure = figures_of(page)["curves-0"]
    assert figure["group"] == "1000"
    assert {trace["group"] for trace in figure["data"]} == {"50", "1000"}
    assert re.findall(r'value="(\d+)" data-group="curves-0"( checked)?', page) == [("50", ""), ("1000", " checked")]
    assert "How fine-tuning went" in page
    assert "<script>alert" not in page
    assert "<script" not in json.dumps(figure)


def texts(count=3):
    """Mistakes, the later the surer; and one right answer."""
    rows = [{"text": f"text {i}", "label": "up", "score": 0.5 + i / 1000, "gold": "down"} for i in range(count)]
    return [*rows, {"text": "well said", "label": "up", "score": 0.99, "gold": "up"}]


def test_the_most_confident_mistakes_come_first(tmp_path):
    file = write_lines(tmp_path / "predictions.jsonl", texts(250))
    section = mistakes_section(file, ["up", "down"], 200)
    assert section is not None
    assert section["summary"].startswith("250 of 251 answers are wrong. Shown: 200 of 250 mistakes")
    assert [case["texts"][0][0]["text"] for case in section["cases"][:2]] == ["text 249", "text 248"]
    assert len(section["cases"]) == 200
    assert {case["cells"] for case in section["cases"]} == {"1-0"}
    assert section["cases"][0]["note"] == "75% sure"
    rest = mistakes_section(file, ["up", OTHER], 1)
    assert rest is not None
    assert rest["cases"][0]["cells"] == "1-0"


def test_two_sentences_are_both_shown(tmp_path):
    row = {"sentence1": "it rains", "sentence2": "it is dry", "label": "same", "score": 0.8, "gold": "other"}
    section = mistakes_section(write_lines(tmp_path / "predictions.jsonl", [row]), [], 5)
    assert section is not None
    assert section["cases"][0]["texts"] == [[{"text": "it rains"}], [{"text": "it is dry"}]]
    assert not section["chosen"]


def test_wrong_tokens_are_marked_in_their_sentence(tmp_path):
    words = [f"w{i}" for i in range(200)]
    tags, gold = ["N"] * 200, ["N"] * 200
    tags[100], tags[103] = "V", "ADJ"
    scores = [0.9] * 103 + [0.95] * 97
    row = {"tokens": words, "tags": tags, "scores": scores, "gold_tags": gold}
    right = {"tokens": ["a"], "tags": ["N"], "scores": [1], "gold_tags": ["N"]}
    section = mistakes_section(write_lines(tmp_path / "predictions.jsonl", [right, row]), ["N", "V", "ADJ"], 5)
    assert section is not None
    assert section["summary"].startswith("2 of 201 tokens are wrong, in 1 of 2 sequences.")
    (case,) = section["cases"]
    (pieces,) = case["texts"]
    assert [piece for piece in pieces if "said" in piece] == [
        {"text": "w100", "true": "N", "said": "V"},
        {"text": "w103", "true": "N", "said": "ADJ"},
    ]
    assert "".join(piece["text"] for piece in pieces) == "… " + " ".join(words[63:144]) + " …"
    assert case["cells"] == "0-1 0-2"
    assert case["said"] == "ADJ"


def test_characters_stand_together(tmp_path):
    row = {"tokens": list("北京"), "tags": ["B", "B"], "scores": [1, 0.6], "gold_tags": ["B", "I"]}
    section = mistakes_section(write_lines(tmp_path / "predictions.jsonl", [row]), [], 5)
    assert section is not None
    assert "".join(piece["text"] for piece in section["cases"][0]["texts"][0]) == "北京"


def test_numbers_far_from_the_truth_come_first(tmp_path):
    rows = [{"text": f"t{i}", "label": 2.0 + i, "gold": "2"} for i in (0, 3, -5)]
    section = mistakes_section(write_lines(tmp_path / "predictions.jsonl", rows), [], 5)
    assert section is not None
    assert [(case["said"], case["true"], case["note"]) for case in section["cases"]] == [
        ("-3", "2", "off by 5"),
        ("5", "2", "off by 3"),
    ]
    assert section["summary"].startswith("Shown: 2 of 3 numbers")


def test_predictions_without_true_labels_are_no_mistakes(tmp_path):
    rows = [{"text": "new", "label": "up", "score": 0.5}]
    assert mistakes_section(write_lines(tmp_path / "predictions.jsonl", rows), [], 5) is None
    (tmp_path / "predictions.jsonl").write_text(json.dumps({**rows[0], "gold": "up"}))
    section = mistakes_section(tmp_path / "predictions.jsonl", [], 5)
    assert section is not None
    assert (section["summary"], section["cases"]) == ("All 1 answers are right.", [])


def test_mistakes_are_chosen_by_the_cells_of_the_matrix_and_nothing_is_code(run):
    rows = [{"text": f"bad {EVIL} שלום", "label": "up", "score": 0.9, "gold": "down"}]
    write_lines(run / "predictions.jsonl", [*rows, {**rows[0], "label": EVIL, "score": 0.8}])
    page = page_of(run)
    assert "<script>alert" not in page
    assert "bad &lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; שלום</p>" in page
    assert '<p class="sample" dir="auto">' in page
    assert re.findall(r'<li data-cells="(.*?)"', page) == ["1-0", ""]
    assert re.findall(r'data-cell="(.*?)"', page) == ["1-0", "0-1"]
    assert """data-labels='["up", "down"]'""" in page


def question(**more):
    mistake = {"id": "1", "question": "where?", "context": "far away in Rome", "said": [0, 8], "true": [[12, 16]]}
    return {**mistake, "answers": ["Rome"], "f1": 0.0, **more}


@pytest.fixture
def asked(run):
    """The run answered questions: asked(*mistakes) writes its mistakes.json."""
    content = json.loads((run / "results.json").read_text())
    rows = [{**row, "task": "answer", "metric": "f1"} for row in content["rows"]]
    (run / "results.json").write_text(json.dumps({"rows": rows}))

    def asked(*mistakes):
        content = {"questions": 1234, "right": 1200, "mistakes": mistakes}
        (run / "mistakes.json").write_text(json.dumps(content, indent=1))
        return run

    return asked


def test_what_was_said_and_what_is_true_are_marked_in_the_document(asked):
    run = asked(question(), question(said=None), question(true=[], answers=[], question=EVIL, context=EVIL))
    page = page_of(run)
    assert '<mark class="said">far away</mark> in <mark class="truth">Rome</mark></p>' in page
    assert "Of 1,234 questions 1,200 were answered right to the letter and 34 were not. Shown: 3 of 34" in page
    assert "that there is no answer" in page
    assert "<script>alert" not in page
    assert '<p class="question" dir="auto">&lt;/script&gt;' in page
    assert 'id="mistakes"' not in page


def test_a_question_is_shaded_by_the_attention_of_its_answer(asked):
    weights = [[0, 5, 0.25], [6, 8, 0.5], [8, 9, 0]]
    assert shaded("Where is it?", weights) == [("Where", 0.5), (" ", 0), ("is", 1), (" ", 0), ("it?", 0)]
    assert shaded("Where?", []) == [("Where?", 0)]
    page = page_of(asked(question(question="Where <b>", attention=[[0, 5, 0.2], [6, 9, 0.1]])))
    assert '<span style="--shade: 100%">Where</span> <span style="--shade: 50%">&lt;b&gt;</span></p>' in page


def test_long_documents_are_cut_around_the_answers():
    text = "a" * 5000 + "said" + "b" * 5000 + "true" + "c" * 5000
    pieces = marked(text, [(5000, 5004)], [(10004, 10008)])
    assert [(len(piece), mark) for piece, mark in pieces] == [
        (1, "cut"), (AROUND, ""), (4, "said"), (AROUND, ""),
        (1, "cut"), (AROUND, ""), (4, "truth"), (AROUND, ""), (1, "cut"),
    ]  # fmt: skip
    assert marked("xyz", [(0, 2)], [(1, 3)]) == [("x", "said"), ("y", "said truth"), ("z", "truth")]
    assert marked("d" * 999, [], []) == [("d" * AROUND, ""), ("…", "cut")]


def test_a_run_of_before_has_a_report_without_them(run):
    page = page_of(run)
    for name in ("finetuning", "mistakes", "answers"):
        assert f'<section id="{name}' not in page
    assert "could not be read" not in page


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("curves.jsonl", '{"method": "a"}\n', "curves.jsonl:1: not a point of a curve: &#39;labelled&#39;"),
        ("predictions.jsonl", '{"text": "a", "label": "b"}\n{"te', "predictions.jsonl:2: not valid JSON"),
        ("predictions.jsonl", '{"tokens": ["a", "b"], "gold_tags": ["N"]}\n', "predictions.jsonl:1: not a prediction"),
    ],
)
def test_a_broken_file_is_told_and_the_rest_shown(run, file, text, told):
    (run / file).write_text(text)
    page = page_of(run)
    assert "Files that could not be read" in page
    assert told in page
    assert 'id="results"' in page


def test_broken_answers_are_told_with_their_line(asked):
    run = asked(question(said=[1]))
    with pytest.raises(DataError, match=r"mistakes\.json: no mistakes as fine-tuning writes them"):
        answers_section(run / "mistakes.json", 5)
    (run / "mistakes.json").write_text('{"questions": 1,\n "right": }')
    with pytest.raises(DataError, match=r"mistakes\.json:2: not valid JSON"):
        answers_section(run / "mistakes.json", 5)
    assert "mistakes.json:2: not valid JSON" in page_of(run)
