import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.report.confusion import OTHER, confusion_section, top_classes
from pluri.report.fills import fill_section
from pluri.report.ledger import hundred, ledger_section
from pluri.report.loss import POINTS, loss_section, settled, smoothed
from pluri.report.reproduce import to_toml
from pluri.run.folder import load_journal


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any))
def test_shares_add_up_to_exactly_100(values):
    shares = [round(float(share.removesuffix("%")) * 100) for share in hundred(values)]
    assert sum(shares) == 10_000
    assert all(abs(share - 10_000 * value / sum(values)) < 1 for share, value in zip(shares, values, strict=True))


def test_tokens_that_the_ledger_lost_are_shown():
    section = ledger_section(Path("store"), {"ledger": {"read": 100, "kept": 90, "truncated": 0, "dropped": 5}})
    assert section is not None
    assert [part["tokens"] for part in section["parts"]] == ["90", "0", "5", "5"]
    assert section["parts"][-1]["name"] == "unaccounted"
    assert ledger_section(Path("store"), {"ledger": {"read": 0}}) is None


def test_the_true_token_is_marked_wherever_it_stands():
    guesses = [
        {"token_str": t, "score": s} for t, s in zip("abcdefg", (0.4, 0.2, 0.1, 0.05, 0.04, 0.03, 0.02), strict=True)
    ]
    section = fill_section({"text": "x [MASK] y", "answer": "g", "predictions": guesses})
    assert section is not None
    assert section["pieces"] == ["x ", " y"]
    assert [guess["token"] for guess in section["predictions"]] == ["a", "b", "c", "d", "e", "g"]
    assert [guess["true"] for guess in section["predictions"]] == [False] * 5 + [True]
    missed = fill_section({"text": "<mask>", "answer": "z", "predictions": guesses})
    assert missed is not None
    assert missed["missed"]
    assert fill_section({"text": "x", "predictions": None}) is None


def test_classes_that_are_not_shown_are_added_up():
    labels = [f"l{i}" for i in range(40)]
    matrix = [[float(40 - i if i == j else (i + j) % 3) for j in range(40)] for i in range(40)]
    names, merged = top_classes(labels, matrix)
    assert names[-1] == OTHER
    assert len(names) == 16
    assert sum(map(sum, merged)) == sum(map(sum, matrix))
    section = confusion_section({"labels": labels, "matrix": matrix}, {"l1": "<second>"})
    assert section is not None
    assert (section["shown"], section["classes"]) == (15, 40)
    assert all(sum(row) == pytest.approx(100, abs=0.2) for row in section["figure"]["data"][0]["z"])


@pytest.mark.parametrize("broken", [{}, {"labels": ["a"], "matrix": []}, {"labels": ["a", "b"], "matrix": [[1], [2]]}])
def test_a_broken_confusion_is_left_out(broken):
    assert confusion_section(broken, {}) is None


def test_long_curves_are_thinned_and_smoothing_does_not_lag(make_journal, tmp_path):
    journal = load_journal(make_journal(tmp_path, steps=3000))
    section = loss_section([("pretrain", journal)])
    assert section is not None
    assert all(len(trace["x"]) <= POINTS for trace in section["figure"]["data"])
    assert section["figure"]["data"][0]["x"][-1] == 3000 * 1250
    ended = section["table"][-1]["loss"]  # the table and the curve end where the text says
    assert f"ended at {ended} nats" in section["notes"][0]
    assert f"{section['figure']['data'][1]['y'][-1]:.2f}" == ended
    assert section["figure"]["layout"]["shapes"][0]["y0"] == 6.12
    line = [10 - 0.01 * i for i in range(1000)]
    assert smoothed(line) == pytest.approx(line)
    assert settled([9.0] * 100 + [1.0] * 5) == 1.0


def test_toml_is_read_back_the_same():
    import tomllib

    config = {"store": 'a "b"\n', "model": {"size": "mini", "deep": {"x": [1, 2.5]}}, "training": {"packed": True}}
    assert tomllib.loads(to_toml(config)) == config
    assert tomllib.loads(to_toml({**config, "none": None, "empty": {}})) == {**config, "empty": {}}
    assert json.loads(json.dumps(config)) == config
