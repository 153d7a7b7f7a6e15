"""Windows over sequences that are longer than a model reads, and their vote."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluri.checkpoints.huggingface import save_model
from pluri.errors import UsageError
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate
from pluri.tasks.baselines import _features
from pluri.tasks.compare import compare
from pluri.tasks.encode import TaskExamples
from pluri.tasks.fit import Split, Tuning, with_new_head
from pluri.tasks.long import mean_vote, token_windows, word_windows
from pluri.tasks.predictions import _logits, predict, prediction_batches
from pluri.tasks.task import Labelled, define_task
from pluri.tokens.training import train_tokenizer


@given(st.integers(0, 200), st.integers(2, 40), st.data())
def test_windows_cover_everything_and_overlap(length, room, data):
    overlap = data.draw(st.integers(0, room // 2))
    windows = token_windows(length, room, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == length
    assert all(end - start == min(room, length) for start, end in windows)
    assert all(before[1] - after[0] >= overlap for before, after in itertools.pairwise(windows))
    assert len(windows) == max(1, -(-(length - overlap) // (room - overlap)))


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(9, 30), st.data())
def test_windows_of_words(sizes, room, data):
    overlap = data.draw(st.integers(0, room // 2))
    windows = list(word_windows(sizes, room, overlap))
    assert windows[0][0] == 0
    assert windows[-1][1] == len(sizes)
    assert all(sum(sizes[first:last]) <= room for first, last in windows)
    for before, after in itertools.pairwise(windows):
        assert before[0] < after[0] <= before[1] < after[1]
        shared = sum(sizes[after[0] : before[1]])
        assert shared >= overlap or shared + sizes[after[0] - 1] + sizes[before[1]] > room


def test_the_vote_is_the_mean():
    blocks = [np.array([[1, 0], [0, 1]], np.float32), np.array([[0, 1], [4, 4]], np.float32)]
    assert np.allclose(mean_vote(blocks, np.array([0, 0, 1, 0]), 2), [[5 / 3, 5 / 3], [0, 1]])


@pytest.mark.parametrize("kind", ["classify", "regression", "tag"])
def test_predicted_is_the_mean_over_windows(small, tokenizer, made, kind):
    maker = {"classify": made.classified, "regression": made.measured, "tag": made.tagged}[kind]
    records = maker(9, 1)
    task: Any = define_task("tag" if kind == "tag" else "classify", records, regression=kind == "regression")
    model = with_new_head(small, task, 0)
    split = Split.of(records, task, tokenizer, 9, False, overlap=3)
    examples: Any = split.encoded
    assert examples.votes is not None
    assert examples.truncated == 0
    assert len(examples) > len(records)
    whose = examples.votes
    logits = torch.cat([b.float() for b in _logits(model.eval(), task, prediction_batches(examples, 9), "cpu")])
    said = predict(model, task, examples)
    for unit in range(int(examples.units.sum())):
        mine = logits[whose == unit]
        if kind == "regression":
            assert said.values[unit] == pytest.approx(mine.mean().item(), rel=1e-5)
        else:
            shares = mine.softmax(-1).mean(0)
            assert said.values[unit] == shares.argmax()
            assert said.scores is not None
            assert said.scores[unit] == pytest.approx(shares.max().item(), rel=1e-5)
    assert sum(len(block) for block in _features(model, task, split)) == examples.units.sum()
    targets = task.targets(records)
    learnt = examples.labels[examples.labels != -100] if kind == "tag" else examples.sequence_labels
    assert np.allclose(learnt, targets[whose])


def test_a_long_sequence_is_learnt_judged_and_kept(tmp_path, small, tokenizer):
    save_model(tmp_path / "text", small, tokenizer)
    for part, count in {"train": 24, "validation": 12}.items():
        lines = [f"{'abcde '[i % 5] * 3 * (20 + i)},{'yes' if i % 2 else 'no'}" for i in range(count)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["text,label", *lines]))
    files = {part: str(tmp_path / f"{part}.csv") for part in ("train", "validation")}
    settings = {"task": "classify", "model": str(tmp_path / "text"), "output": str(tmp_path / "out"), **files}
    settings |= {"seeds": 1, "min_steps": 2, "epochs": 0.1, "baselines": False, "window_overlap": 8}
    results = finetune(FinetuneConfig.parse(settings), progress=False)
    found = evaluate(tmp_path / "out", files["validation"])
    assert found["accuracy"] == pytest.approx(results.rows[0]["value"])
    assert evaluate(tmp_path / "out", files["validation"], truncate=True)["sequences"] == 12
    assert evaluate(tmp_path / "out", files["validation"], settings=["window_overlap=20"])["sequences"] == 12
    with pytest.raises(UsageError, match="window_overlap: windows of 46 tokens cannot share 30; at most 23"):
        evaluate(tmp_path / "out", files["validation"], settings=["window_overlap=30"])


def test_cut_or_windows():
    with pytest.raises(UsageError, match="leave one out"):
        Tuning.parse({"truncate": True, "window_overlap": 4})


@pytest.mark.parametrize("setting", [{"window_overlap": 2}, {"reverse_complement": True}])
def test_pairs_are_read_whole(small, tokenizer, setting):
    records = [Labelled(("ab", "cd"), (label,), "t:1") for label in "xy"]
    (name,) = setting
    with pytest.raises(UsageError, match=f"{name}: the task pair is not read"):
        compare(small, tokenizer, define_task("pair", records), *[records] * 3, tuning=Tuning(**setting))


def test_each_letter_of_a_strand_keeps_its_label(tmp_path):
    (tmp_path / "g.fa").write_text(">g\nACGT\n")
    dna = train_tokenizer(tmp_path / "g.fa", kind="dna")
    records = [Labelled(tuple("ACCGTN"), tuple("abcdef"), f"t:{i}") for i in range(50)]
    task = define_task("tag", records)
    examples = TaskExamples(records, task, dna, length=20, targets=task.targets(records), strands=1)
    read = [examples.examples(np.arange(50), np.full(50, epoch)) for epoch in (0, 0, 1)]
    spelled = [" ".join(dna.tokens(e.input_ids)).split(" [SEP]")[:-1] for e in read]
    forward, other = "[CLS] A C C G T N", "[CLS] N A C G G T"
    assert {text.strip() for text in spelled[0]} == {forward, other}
    assert 10 < sum(text.strip() == other for text in spelled[0]) < 40
    assert spelled[0] == spelled[1] != spelled[2]
    assert read[0].labels is not None
    labels = read[0].labels.reshape(50, 8)[:, 1:-1]
    for text, row in zip(spelled[0], labels, strict=True):
        assert row.tolist() == ([0, 1, 2, 3, 4, 5] if text.strip() == forward else [5, 4, 3, 2, 1, 0])
