"""The next token: every token of every document is read once and predicted once, from its own document alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.batches.example import IGNORE
from pluri.errors import UsageError
from pluri.objectives.causal import NextTokens
from pluri.objectives.config import ObjectiveConfig
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer

CLS, SEP = 2, 3


def windows(made: NextTokens) -> list[tuple[list[int], list[int]]]:
    """(read, predicted) of each sequence."""
    index = np.arange(len(made))
    examples = made.examples(index, np.zeros_like(index))
    assert examples.labels is not None
    spans = [slice(a, b) for a, b in zip(examples.offsets[:-1], examples.offsets[1:], strict=True)]
    return [(examples.input_ids[span].tolist(), examples.labels[span].tolist()) for span in spans]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    length=st.integers(1, 20),
    begin=st.sampled_from([CLS, None]),
    end=st.sampled_from([SEP, None]),
)
def test_the_pieces_of_a_document_are_the_document(make_store, lengths: list[int], length: int, begin: Any, end: Any):
    store = make_store(lengths)
    store.tokenizer.cls_id, store.tokenizer.sep_id = begin, end
    made = NextTokens(store, length=length)
    found, pieces = windows(made), made._pieces.take(np.arange(len(made)))
    assert all(len(read) == len(predicted) <= length for read, predicted in found)
    for document, size in enumerate(lengths):
        own = store.ids[store.offsets[document] :][:size].tolist()
        whole = [i for i in (begin, *own, end) if i is not None]
        mine = [pair for pair, d in zip(found, pieces.documents, strict=True) if d == document]
        assert [i for read, _ in mine for i in read] == whole[:-1]
        assert [i for _, predicted in mine for i in predicted] == whole[1:]
    assert made.mean_length == (np.mean([len(read) for read, _ in found]) if found else 0)


def test_a_sequence_does_not_depend_on_its_group_or_epoch(store):
    made = NextTokens(store, length=32)
    everything = windows(made)
    some = np.array([5, 0, 17, 5])
    examples = made.examples(some, np.array([0, 3, 1, 2]))
    assert examples.labels is not None
    for i, (a, b) in enumerate(zip(examples.offsets[:-1], examples.offsets[1:], strict=True)):
        assert (examples.input_ids[a:b].tolist(), examples.labels[a:b].tolist()) == everything[some[i]]
    assert IGNORE not in examples.labels


def test_bytes_are_those_of_the_text(tmp_path: Path):
    lines = ["The cat sat.", "Çà et là, 人们。", "a" * 50]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer([tmp_path / "text.txt"], kind="gpt2", vocab_size=260)
    store = prepare([tmp_path / "text.txt"], tokenizer, tmp_path / "store", workers=1)
    made = NextTokens(store, length=16)
    predicted = store.num_tokens + 3  # each document's end, too
    assert made.tokens_per_byte(10**6) == pytest.approx(predicted / sum(len(line.encode()) for line in lines))
    documents = made._pieces.take(np.arange(len(made))).documents
    (first,) = np.flatnonzero(np.diff(documents))[:1] + 1  # the sequences of the first document alone
    assert made.tokens_per_byte(int(first)) == pytest.approx((store.document_lengths[0] + 1) / len(lines[0].encode()))


def test_it_goes_alone():
    assert not ObjectiveConfig(next=True).masked
    assert ObjectiveConfig.parse(ObjectiveConfig(next=True).model_dump()) == ObjectiveConfig(next=True)
    for other in ({"masked": True}, {"pair": "sop"}):
        with pytest.raises(UsageError, match="next = true goes alone"):
            ObjectiveConfig.parse({"next": True, **other})
    with pytest.raises(UsageError, match="nothing to learn"):
        ObjectiveConfig.parse({"masked": False})
