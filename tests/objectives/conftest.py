"""A token store held in memory, with the three methods that objectives use, and a tokenizer of bare numbers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pluri.tokens.ragged import Ragged, offsets_of, slices

PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB_SIZE = 100
FIRST_CONTINUING = 60  # ids from here on continue a word


class MemoryStore:
    """Documents of given lengths; token `t` of a document is random but fixed; a sentence ends at each id below 12."""

    def __init__(self, lengths: list[int], seed: int = 0) -> None:
        self.document_lengths = np.array(lengths, np.int64)
        self.num_documents = len(lengths)
        self.offsets = offsets_of(self.document_lengths)
        self.ids = np.random.default_rng(seed).integers(5, VOCAB_SIZE, self.offsets[-1]).astype(np.int32)
        self.tokenizer = SimpleNamespace(
            vocab_size=VOCAB_SIZE,
            pad_id=PAD,
            unk_id=UNK,
            cls_id=CLS,
            sep_id=SEP,
            mask_id=MASK,
            special_ids=np.arange(5),
            sentinel_ids=np.empty(0, np.int32),
            continues_word=np.arange(VOCAB_SIZE) >= FIRST_CONTINUING,
        )

    def gather(self, documents: NDArray, starts: NDArray, lengths: NDArray) -> Ragged:
        assert np.all(starts >= 0)
        assert np.all(starts + lengths <= self.document_lengths[documents])
        return Ragged(self.ids[slices(self.offsets[documents] + starts, lengths)], offsets_of(lengths))

    def sentence_starts(self, documents: NDArray, starts: NDArray, lengths: NDArray) -> Ragged:
        found = [
            1 + np.flatnonzero(self.ids[first : first + length - 1] < 12) if length else np.zeros(0, np.int64)
            for first, length in zip(self.offsets[documents] + starts, lengths, strict=True)
        ]
        sizes = np.array([len(each) for each in found], np.int64)
        return Ragged(np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int32), offsets_of(sizes))


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Any]:
    return MemoryStore


@pytest.fixture(scope="session")
def store() -> Any:
    """300 documents, most short, some of several pieces, one of a single token."""
    lengths = np.random.default_rng(1).lognormal(4.2, 0.8, 300).astype(int) + 1
    lengths[7] = 1
    return MemoryStore(lengths.tolist())
