from typing import Any

import numpy as np
import pytest

from pluri.errors import DataError, UsageError
from pluri.tasks.task import Labelled, Question, define_task, draw, leaked


def record(text, *labels):
    return Labelled((text,), labels, f"train.csv:{text}")


def test_labels_are_ordered_as_numbers_or_by_characters():
    numbers = define_task("classify", [record("2", "10"), record("3", "9"), record("4", "-1")])
    assert numbers.labels == ("-1", "9", "10")
    assert define_task("classify", [record("2", "b"), record("3", "a")]).labels == ("a", "b")
    assert numbers.targets([record("5", "10"), record("6", "-1")]).tolist() == [2, 0]


def test_an_unknown_label_is_named_with_its_line():
    task = define_task("classify", [record("2", "good"), record("3", "bad")])
    with pytest.raises(DataError, match=r"^train\.csv:8: unknown label 'ugly', the training data has bad, good;"):
        task.targets([record("7", "bad"), record("8", "ugly")])


@pytest.mark.parametrize("label", ["two", "nan", "inf"])
def test_what_is_no_number_is_named_with_its_line(label):
    task = define_task("classify", [record("2", "1.5"), record("3", "2")], regression=True)
    assert task.targets([record("4", "1e3")]).tolist() == [1000.0]
    with pytest.raises(DataError, match=rf"^train\.csv:5: label '{label}' is not a number;"):
        task.targets([record("5", label)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "pearson"}, "has no metric 'pearson'; choose one of accuracy"),
        ({"metric": "accuracy", "regression": True}, "regression has no metric 'accuracy'"),
        ({"kind": "tag", "regression": True}, "a number is predicted of a sequence"),
        (
            {"metric": "positive_f1", "records": [record(str(i), str(i)) for i in range(3)]},
            "positive_f1 is of two labels, the training data has 3",
        ),
    ],
)
def test_impossible_tasks(change, message):
    with pytest.raises(UsageError, match=message):
        define_task(**{"kind": "classify", "records": [record("2", "1"), record("3", "2")], **change})


def test_one_class_is_nothing_to_learn():
    with pytest.raises(UsageError, match="all training labels are 'a'"):
        define_task("classify", [record("2", "a"), record("3", "a")])


def test_a_draw_belongs_to_its_seed_and_grows():
    records = [record(str(i), "a") for i in range(100)]
    few, more = draw(records, 10, 3), draw(records, 50, 3)
    assert more[:10] == few
    assert len({r.where for r in more}) == 50
    assert draw(records, 10, 4) != few
    assert draw(records, None, 3) == records
    with pytest.raises(UsageError, match="cannot draw 101 of 100"):
        draw(records, 101, 0)


def test_leaks_are_counted_by_text_whatever_the_label():
    train = [record("a", "x"), record("b", "x")]
    assert leaked(train, [record("a", "y"), record("a", "x"), record("c", "x")]) == 2


def test_outcome_keeps_units_with_their_sequence():
    records = [Labelled(("a", "b"), ("x", "y"), "f:1"), Labelled(("c",), ("x",), "f:4")]
    outcome: Any = define_task("tag", records).outcome(records, np.array([0, 0, 0]))
    assert outcome.sequence.tolist() == [0, 0, 1]
    assert outcome.value("accuracy") == pytest.approx(2 / 3)


def test_a_label_that_reads_as_nan_has_its_place():
    records = [record(str(i), label) for i, label in enumerate(("nan", "2", "b", "1", "NaN"))]
    orders = {define_task("classify", chosen).labels for chosen in (records, records[::-1], records[2:] + records[:2])}
    assert orders == {("1", "2", "NaN", "b", "nan")}


def test_answers_are_spans_of_documents():
    known = Question(("which?", "in Rome, Rome"), (), "q.json, id 1", "1", ("Rome",), ((3, 7), (9, 13)))
    none = Question(("which?", "in Rome"), (), "q.json, id 2", "2", ())
    task = define_task("answer", [known, none])
    assert (task.metric, task.num_outputs, task.regression) == ("f1", 2, False)
    assert task.targets([known, none]).tolist() == [[3, 7], [-1, -1]]
    outcome = task.outcome([known, none], np.array([[9, 13], [-1, -1]]))
    assert outcome.value("exact_match") == 1
    assert task.outcome([known, none], np.array([[0, 7], [0, 2]])).value("f1") == pytest.approx(1 / 3)  # "in Rome"
    unknown = Question(("which?", "in Rome"), (), "q.json, id 3", "3")
    with pytest.raises(DataError, match=r"^q\.json, id 3: a question whose answer is not given;"):
        task.targets([known, unknown])
    assert leaked([known], [known, none]) == 1
