import json
import sys
from typing import Any

import pytest

from pluri.errors import UsageError
from pluri.tasks.compare import FROZEN, MAJORITY, PRETRAINED, RANDOM_START, TFIDF, WINDOWS, compare
from pluri.tasks.fit import Split, Tuning
from pluri.tasks.task import define_task

TUNING = Tuning(min_steps=4, batch_tokens=256, validations=2)


@pytest.fixture
def compared(made, small, tokenizer):
    def compared(maker="tagged", kind: Any = "tag", **options):
        train, validation, test = (getattr(made, maker)(count, seed) for count, seed in ((60, 1), (20, 2), (30, 3)))
        task = define_task(kind, train)
        return compare(small, tokenizer, task, train, validation, test, **{"tuning": TUNING, **options})[-1]

    return compared


@pytest.mark.parametrize(("maker", "kind", "linear"), [("tagged", "tag", WINDOWS), ("classified", "classify", TFIDF)])
def test_every_method_and_seed_has_its_row(compared, maker, kind, linear):
    pytest.importorskip("sklearn")
    told = []
    found = compared(maker, kind, labelled=[40], seeds=(0, 1), say=told.append)
    rows = found.rows()
    assert [row["method"] for row in rows[::2]] == [PRETRAINED, RANDOM_START, FROZEN, linear, MAJORITY]
    assert {(row["task"], row["labelled"], row["metric"]) for row in rows} == {(kind, 40, "accuracy")}
    assert [row["seed"] for row in rows] == [0, 1] * 5
    assert len(told) == len(rows)
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert (one["low"], one["high"]) == (other["low"], other["high"])
        assert one["low"] <= (one["value"] + other["value"]) / 2 <= one["high"]
    assert json.loads(json.dumps(rows)) == rows
    assert {row["metric"] for row in found.rows(["macro_f1", "mcc"])} == {"macro_f1", "mcc"}
    total = sum(map(sum, found.confusion()["matrix"]))
    assert total == len(found.best.outcome.gold)


def test_only_the_best_model_is_kept(compared):
    found = compared(seeds=range(3), baselines=False)
    kept = [run for run in found.runs if run.model is not None]
    assert kept == [found.best]
    assert found.best.validation == max(run.validation for run in found.runs)
    assert found.labelled == 60
    assert {run.method for run in found.runs} == {PRETRAINED}


def test_of_several_counts_the_last_keeps_its_model(made, small, tokenizer, monkeypatch):
    encoded = []
    of = Split.of
    monkeypatch.setattr(
        Split, "of", lambda records, *args, **more: encoded.append(len(records)) or of(records, *args, **more)
    )
    train, validation, test = (made.tagged(count, seed) for count, seed in ((60, 1), (20, 2), (30, 3)))
    task, counts = define_task("tag", train), (10, 40, None)
    found = compare(small, tokenizer, task, train, validation, test, labelled=counts, tuning=TUNING, baselines=False)
    assert [one.labelled for one in found] == [10, 40, 60]
    assert [[run.model is None for run in one.runs] for one in found] == [[True], [True], [False]]
    assert encoded == [20, 30, 10, 40, 60]  # what all are judged on, once


def test_the_given_model_stays_as_it_is(compared, small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    compared(baselines=False)
    assert all((value == before[name]).all() for name, value in small.state_dict().items())


def test_qanet_is_for_questions(compared):
    with pytest.raises(UsageError, match="QANet answers questions, the task is tag; leave it out"):
        compared(qanet=1)


def test_without_scikit_learn_the_user_is_told(compared, monkeypatch):
    monkeypatch.setitem(sys.modules, "pluri.tasks.baselines", None)
    with pytest.raises(UsageError, match=r"need scikit-learn; pip install 'pluri\[baselines\]'"):
        compared()


def test_each_fine_tuning_has_its_curve(compared):
    pytest.importorskip("sklearn")
    found = compared(labelled=[40], seeds=(0, 1))
    rows = found.curves()
    assert {(row["method"], row["seed"]) for row in rows} == {
        (m, s) for m in (PRETRAINED, RANDOM_START) for s in (0, 1)
    }
    assert {row["labelled"] for row in rows} == {40}
    best = max(row["accuracy"] for row in rows if row["method"] == PRETRAINED and "accuracy" in row)
    assert best == found.best.validation


def test_a_smaller_comparison_lets_its_model_go(compared):
    found = compared(seeds=range(2), baselines=False)
    before = found.rows()
    found.forget()
    assert [run.model for run in found.runs] == [None, None]
    assert found.rows() == before
