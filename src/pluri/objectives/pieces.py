"""Pieces: the documents of a store, cut so that each piece fits into a training sequence. Nothing is lost.

Legend: n pieces, S sentence starts.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pluri.batches.order import ByShard, Order
from pluri.tokens.ragged import offsets_of
from pluri.tokens.store import TokenStore


@dataclass(frozen=True, slots=True)
class Pieces:
    """n slices `[start, start + length)` of tokens inside documents, each int64 (n,)."""

    documents: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def mean_length(self) -> float:
        return float(self.lengths.mean()) if len(self) else 0.0

    def take(self, index: NDArray[np.int64]) -> Self:
        return type(self)(self.documents[index], self.starts[index], self.lengths[index])

    def borders(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many pieces come before each of these documents; the pieces are in their order."""
        return np.searchsorted(self.documents, documents)


class Cut:
    """Pieces of `room` tokens, the last of a document shorter; in the order of `documents`, which is ascending.

    Each is found when it is asked for: what is held is 16 bytes a document, however many pieces it has.
    added: special tokens that each document has besides its own.
    """

    def __init__(self, store: TokenStore, documents: NDArray[np.int64], room: int, *, added: int = 0) -> None:
        self._store, self._documents, self._room, self._added = store, documents, room, added
        lengths = store.document_lengths[documents] + added
        counts = -(-lengths // room)
        self._first, self._one_each = offsets_of(counts), bool((counts == 1).all())  # each document's first piece
        self.mean_length = float(lengths.sum()) / max(len(self), 1)

    def __len__(self) -> int:
        return int(self._first[-1])

    def take(self, index: NDArray[np.int64]) -> Pieces:
        place = index if self._one_each else np.searchsorted(self._first, index, side="right") - 1
        documents = self._documents[place]
        starts = (index - self._first[place]) * self._room
        left = self._store.document_lengths[documents] + self._added - starts
        return Pieces(documents, starts, np.minimum(self._room, left))

    def borders(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._first[np.searchsorted(self._documents, documents)]


class InShards:
    """What a source whose examples are pieces of a store says of the shards these lie in: `batches.loader.Stored`."""

    _store: TokenStore
    _pieces: Pieces | Cut

    @property
    def remote(self) -> bool:
        return self._store.remote

    def order(self, seed: int) -> Order:
        return ByShard(self._pieces.borders(self._store.document_borders), seed)

    def fetch_ahead(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> None:
        self._store.fetch_ahead(self._pieces.take(index).documents)


def cut_at_sentences(store: TokenStore, documents: NDArray[np.int64], room: int) -> Pieces:
    """Pieces of as many whole sentences as fit into `room` tokens; a sentence longer than that is cut.

    For sentence pairs: a sentence cut in two would give away what belongs together.
    """
    lengths = store.document_lengths[documents]
    sentences = store.sentence_starts(documents, np.zeros_like(lengths), lengths)
    ends = offsets_of(lengths)[1:]  # of each document, all of them laid end to end
    borders = np.repeat(ends - lengths, sentences.lengths) + sentences.ids
    borders = np.sort(np.concatenate([[0], borders, ends]))  # (S,) where a piece may end

    order = np.flatnonzero(lengths)  # documents not yet used up; each turn cuts one piece off each of them
    at = ends[order] - lengths[order]
    turns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    while len(order):
        limit = np.minimum(at + room, ends[order])
        border = borders[np.searchsorted(borders, limit, side="right") - 1]
        until = np.where(border > at, border, limit)
        turns.append((order, at, until))
        left = until < ends[order]
        order, at = order[left], until[left]
    if not turns:
        return Pieces(*(np.zeros(0, np.int64) for _ in range(3)))
    nth, begin, until = (np.concatenate(column) for column in zip(*turns, strict=True))
    by_place = np.argsort(begin)
    nth, begin, until = nth[by_place], begin[by_place], until[by_place]
    return Pieces(documents[nth], begin - (ends - lengths)[nth], until - begin)
