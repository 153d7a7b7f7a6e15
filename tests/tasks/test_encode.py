from typing import Any

import numpy as np
import pytest

from pluri.batches.example import IGNORE
from pluri.errors import DataError, UsageError
from pluri.tasks.encode import TaskExamples
from pluri.tasks.task import Labelled, define_task
from pluri.tokens.training import train_tokenizer


def every(examples) -> Any:
    index = np.arange(len(examples))
    return examples.examples(index, np.zeros_like(index))


def tag_task(records):
    task = define_task("tag", records)
    return task, task.targets(records)


def test_the_label_stands_on_each_words_first_piece(tokenizer, made):
    records = made.tagged(30)
    task, targets = tag_task(records)
    encoded = TaskExamples(records, task, tokenizer, length=48, targets=targets)
    examples = every(encoded)
    assert len(examples) == 30
    at = np.flatnonzero(examples.labels != IGNORE)
    assert (examples.labels[at] == targets).all()
    firsts = [tokenizer.encode_batch([word])[0].ids[0] for record in records for word in record.units]
    assert examples.input_ids[at].tolist() == firsts
    for i in range(30):
        ids = examples.input_ids[examples.offsets[i] : examples.offsets[i + 1]]
        assert (ids[0], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
        assert tokenizer.decode(ids) == " ".join(records[i].units)


def test_long_sentences_become_windows_and_lose_no_label(tokenizer, made):
    records = made.tagged(30)
    task, targets = tag_task(records)
    encoded = TaskExamples(records, task, tokenizer, length=9, targets=targets)
    examples = every(encoded)
    assert len(examples) > 30
    assert examples.lengths.max() <= 9
    assert (examples.labels[examples.labels != IGNORE] == targets).all()


def test_examples_do_not_depend_on_their_group(tokenizer, made):
    records = made.tagged(8)
    task, targets = tag_task(records)
    encoded = TaskExamples(records, task, tokenizer, length=48, targets=targets)
    alone = encoded.examples(np.array([5]), np.array([3]))
    whole = every(encoded)
    here = slice(whole.offsets[5], whole.offsets[6])
    assert (alone.input_ids == whole.input_ids[here]).all()
    assert (alone.labels == whole.labels[here]).all()


def test_texts_that_are_too_long_are_refused_or_cut_and_counted(tokenizer):
    records = [Labelled(("a b",), ("x",), "t.csv:2"), Labelled(("a b c d e f g h",), ("y",), "t.csv:3")]
    task = define_task("classify", records)
    with pytest.raises(DataError, match=r"^t\.csv:3: a text of 8 tokens, the model reads 4;"):
        TaskExamples(records, task, tokenizer, length=6)
    encoded = TaskExamples(records, task, tokenizer, length=6, truncate=True, targets=task.targets(records))
    assert encoded.truncated == 1
    assert every(encoded).lengths.tolist() == [4, 6]
    assert every(encoded).sequence_labels.tolist() == [0, 1]


def test_numbers_stay_numbers(tokenizer):
    records = [Labelled(("a b",), ("1.5",), "t.csv:2"), Labelled(("c",), ("2",), "t.csv:3")]
    task = define_task("classify", records, regression=True)
    labels = every(TaskExamples(records, task, tokenizer, length=6, targets=task.targets(records))).sequence_labels
    assert labels.dtype == np.float32
    assert labels.tolist() == [1.5, 2.0]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("bytes") / "corpus.txt"
    corpus.write_text("the cat sat on the mat\nthe dog sat on the cat\n我们是学生\n" * 20, encoding="utf-8")
    return train_tokenizer([str(corpus)], kind="byte_bpe", vocab_size=300)


def test_words_are_encoded_as_they_stand_in_running_text(byte_level):
    """Byte-level pieces know a word by the space before it; scripts without spaces get none."""
    english = Labelled(("the", "cat", "sat"), ("x", "y", "x"), "f:1")
    chinese = Labelled(("我们", "是"), ("x", "y"), "f:5")
    task, targets = tag_task([english, chinese])
    examples = every(TaskExamples([english, chinese], task, byte_level, length=48, targets=targets))
    ids = [examples.input_ids[a + 1 : b - 1] for a, b in zip(examples.offsets, examples.offsets[1:], strict=False)]
    assert ids[0].tolist() == byte_level.encode_batch(["the cat sat"])[0].ids
    assert byte_level.decode(ids[1]) == "我们是"
    assert (examples.labels != IGNORE).sum() == 5


def test_a_word_without_pieces_still_gets_its_place(tokenizer):
    records = [Labelled(("a", "\u200b", "b"), ("x", "y", "x"), "f:1")]
    task, targets = tag_task(records)
    examples = every(TaskExamples(records, task, tokenizer, length=9, targets=targets))
    assert examples.labels[examples.labels != IGNORE].tolist() == targets.tolist()


def test_overlapping_kmers_cannot_tag(tmp_path, made):
    corpus = tmp_path / "dna.txt"
    corpus.write_text("ACGTACGTTT\nACGGACGT\n")
    kmers = train_tokenizer([str(corpus)], kind="kmer", k=3)
    records = made.tagged(2)
    with pytest.raises(UsageError, match="k-mers"):
        TaskExamples(records, define_task("tag", records), kmers, length=9)
