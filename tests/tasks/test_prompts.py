"""Tasks in words: templates, rows, and the draw of examples."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pluri.errors import DataError, PluriError, UsageError
from pluri.tasks.prompts import PromptTask, Template, read_prompts

TOPICS = ("fish", "tea", "cats")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, rows: list[dict]) -> str:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return name

    return write


def rows(first: int, last: int) -> list[dict]:
    return [{"text": f"number {i}", "label": TOPICS[i % 3]} for i in range(first, last)]


def task(**changes) -> PromptTask:
    settings = {"test": "test.jsonl", "train": "train.jsonl", "template": "{text} is about {answer}."}
    return PromptTask.parse({**settings, "choices": {topic: topic for topic in TOPICS}, **changes})


def test_a_template_is_filled_and_braces_are_braces():
    template = Template.parse("{{{a}}} then {b c}{answer} end")
    assert template.columns == ["a", "b c", "answer"]
    assert template.fill({"a": "{b c}", "b c": "2", "answer": "!"}) == "{{b c}} then 2! end"
    before, after = template.split("answer")
    assert (before.fill({"a": "1", "b c": "2"}), after.fill({})) == ("{1} then 2", " end")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"template": "{text}"}, "needs {answer} once"),
        ({"template": ""}, "needs {answer} once"),
        ({"template": "{answer} {answer}"}, "needs {answer} once"),
        ({"template": "{} {answer}"}, "without a plain name"),
        ({"template": "{answer"}, "template"),
        ({"choices": {"fish": "fish"}}, "at least two"),
        ({"metric": "f1"}, "acc, acc_norm, acc_calibrated"),
        ({"choices": None, "metric": "acc"}, "f1, exact_match"),
        ({"choices": None, "template": "{answer} of {text}"}, "stands at the end"),
    ],
)
def test_what_a_task_cannot_be(changes: dict, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        task(**changes)


def test_labels_are_taken_as_they_are_written(write):
    Path("genre.toml").write_text(
        'test = "test.jsonl"\ntemplate = "{text}: {answer}"\nlabel-column = "kind"\n'
        '[choices]\nfiction = "a story"\nnon-fiction = "a report"\n',
        encoding="utf-8",
    )
    write("test.jsonl", [{"text": "a", "kind": "non-fiction"}])
    prompts = read_prompts(PromptTask.load("genre.toml"))
    assert prompts.labels == ("fiction", "non-fiction")
    assert prompts.test[0].solved == "a: a report"


@pytest.mark.parametrize(
    ("changes", "row", "complaint"),
    [
        (
            {"template": "{title}: {answer}"},
            {"text": "a", "label": "tea"},
            r"test.jsonl:1: no column 'title' among text",
        ),
        ({}, {"text": "a", "label": "dogs"}, r"test.jsonl:1: no choice for the label 'dogs'"),
        ({}, {"text": "a"}, r"test.jsonl:1: no column 'label'"),
        ({"choices": {"tea": "{text}", "fish": "a"}}, {"text": "a", "label": "tea"}, r"test.jsonl:1: a choice is said"),
        ({"choices": {"tea": "{text}", "fish": "a"}}, {"text": "", "label": "tea"}, r"test.jsonl:1: a choice is empty"),
        ({"choices": None, "template": "{text} {answer}"}, {"text": "a", "label": " "}, r"test.jsonl:1: no answer"),
        ({"choices": None, "template": "{text} {answer}"}, {"text": "a", "label": []}, r"test.jsonl:1: no answer"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(write, changes: dict, row: dict, complaint: str):
    write("test.jsonl", [row])
    with pytest.raises(DataError, match=complaint):
        read_prompts(task(train=None, **changes))


def test_free_answers_may_be_several(write):
    write("test.jsonl", [{"text": "who", "label": ["she", "her"]}, {"text": "what", "label": "it"}])
    prompts = read_prompts(task(train=None, choices=None, template="{text}? {answer}"))
    assert [asked.references for asked in prompts.test] == [("she", "her"), ("it",)]
    assert prompts.test[0].solved == "who? she"


def test_shots_are_balanced_nested_and_drawn_by_seed(write):
    write("test.jsonl", rows(0, 9))
    unequal = rows(100, 160) + [{"text": f"more {i}", "label": "tea"} for i in range(200)]
    write("train.jsonl", unequal)
    prompts = read_prompts(task())
    for seed in range(5):
        for count in (1, 2, 4, 8, 16, 60):
            drawn = prompts.shots(count, seed)
            assert len({shot.where for shot in drawn}) == count
            amounts = Counter(dict.fromkeys(range(3), 0)) + Counter(shot.gold for shot in drawn)
            assert max(amounts.values()) - min(amounts[label] for label in range(3)) <= 1
            assert {shot.where for shot in drawn} <= {shot.where for shot in prompts.shots(2 * count, seed)}
    draws = {tuple(sorted(shot.where for shot in prompts.shots(4, seed))) for seed in range(5)}
    first = {prompts.shots(1, seed)[0].gold for seed in range(30)}
    assert len(draws) == 5
    assert first == {0, 1, 2}, "which label comes first is a draw, too"
    assert prompts.shots(8, 3) == prompts.shots(8, 3)
    small, large = prompts.shots(4, 0), prompts.shots(60, 0)
    assert [s for s in large if s in small] != small or [s for s in prompts.shots(8, 0) if s in small] != small


def test_a_label_with_few_rows_leaves_its_place_to_others(write):
    write("test.jsonl", rows(0, 9))
    write("train.jsonl", [*rows(99, 100), *({"text": f"more {i}", "label": "tea"} for i in range(9))])
    amounts = Counter(shot.gold for shot in read_prompts(task()).shots(6, 0))
    assert amounts == {0: 1, 1: 5}


def test_shots_never_come_from_the_test_rows(write):
    write("test.jsonl", rows(0, 9))
    write("train.jsonl", rows(5, 20))
    prompts = read_prompts(task())
    tested = {asked.before for asked in prompts.test}
    assert {shot.before for shot in prompts.shots(11, 0)}.isdisjoint(tested)
    assert "4 rows of train.jsonl are also test rows, and are no shots" in prompts.notes
    with pytest.raises(UsageError, match="12 shots of 11 examples"):
        prompts.shots(12, 0)


def test_without_a_training_file_there_are_no_shots(write):
    write("test.jsonl", rows(0, 9))
    prompts = read_prompts(task(train=None))
    assert prompts.shots(0, 0) == []
    with pytest.raises(PluriError, match=r"1 shots of 0 examples; name a file of examples"):
        prompts.shots(1, 0)


def test_a_limit_takes_some_of_the_test_rows(write):
    write("test.jsonl", rows(0, 90))
    few, all_ = (read_prompts(task(train=None, limit=limit)).test for limit in (10, 1000))
    assert len(few) == 10
    assert len(all_) == 90
    assert [asked for asked in all_ if asked in few] == few
    assert few != all_[:10]
