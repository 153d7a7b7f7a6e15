"""The order in which sequences are drawn: a random one in each epoch, of which any place is found in O(1).

A store of many shards is not shuffled as a whole, or each batch would need nearly every shard, wherever that is. Its
shards are put into random order, anew in each epoch, and cut into blocks of at most 256; the sequences of a block are
shuffled as a whole. A store of at most 256 shards is one block.

Legend: S shards or other stretches, K blocks, n places.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from pluri.runtime import Keys, mix, permuted, sequence_keys
from pluri.tokens.ragged import offsets_of

BLOCK = 256
"""Shards that are shuffled together: full ones are a gigabyte. Where one block follows another, both are in use."""

_FEW = 16
"""Of a store of several blocks, shards that stand for all of them."""

_ORDER = 2**63
"""The index under which an epoch's order is drawn: no sequence has it."""


class Order(ABC):
    """Which example stands where in an endless stream, in which each epoch holds every example once.

    size: examples. blocks: parts of an epoch, each shuffled by itself.
    """

    def __init__(self, size: int, blocks: int, seed: int) -> None:
        self.size, self.blocks, self._seed = size, blocks, seed
        self._last: tuple[int, _Epoch] | None = None

    def __call__(self, stream: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(index, epoch) of places in the stream (n,)."""
        epoch, place = np.divmod(stream, self.size)
        index = np.empty_like(place)
        for each in np.unique(epoch).tolist():
            now = epoch == each
            index[now] = self._epoch(each)(place[now])
        return index, epoch

    @abstractmethod
    def stretches(self, key: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """An epoch before it is shuffled, as stretches of examples that stand together.

        The first example of each (S,), their lengths (S,), and the stretch that each block begins with (K + 1,).
        Of a single block they must be in their own order.
        """

    def _epoch(self, number: int) -> "_Epoch":
        last = self._last  # mostly the one of the batch before
        if last is None or last[0] != number:
            key = sequence_keys(self._seed, number, _ORDER)
            last = self._last = number, _Epoch(*self.stretches(key), key)
        return last[1]


class _Epoch:
    """To begin one takes the time of its stretches; a place in it is found in O(1)."""

    def __init__(
        self, first: NDArray[np.int64], lengths: NDArray[np.int64], blocks: NDArray[np.int64], key: Keys
    ) -> None:
        self._first, self._start = first, offsets_of(lengths)  # (S,) by its own number; (S + 1,) in the epoch
        self._block = self._start[blocks]  # (K + 1,)
        self._keys = mix(key, np.arange(len(blocks) - 1)) if len(blocks) > 2 else [key]  # (K,)

    def __call__(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(self._keys) == 1:
            return permuted(place, int(self._block[1]), self._keys[0])
        block = np.searchsorted(self._block, place, side="right") - 1
        shuffled = np.empty_like(place)
        for each in np.unique(block):
            here, begin, end = block == each, *self._block[each : each + 2].tolist()
            shuffled[here] = begin + permuted(place[here] - begin, end - begin, self._keys[each])
        stretch = np.searchsorted(self._start, shuffled, side="right") - 1
        return self._first[stretch] + shuffled - self._start[stretch]


class ByShard(Order):
    """The order of sequences that lie in shards.

    borders: int64 (S + 1,), where the sequences of each shard begin, from 0 to their number; some may be empty.
    """

    def __init__(self, borders: NDArray[np.int64], seed: int) -> None:
        self._borders = np.unique(borders)
        self._shards = len(self._borders) - 1
        super().__init__(int(borders[-1]), -(-self._shards // BLOCK), seed)

    def stretches(self, key: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        order = np.arange(self._shards)
        if self.blocks > 1:
            order = permuted(order, self._shards, key)
        blocks = np.arange(self.blocks + 1) * self._shards // self.blocks
        return self._borders[:-1][order], np.diff(self._borders)[order], blocks


def of_few_shards(documents: NDArray[np.int64], borders: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Documents (n,), ascending, that stand for all: where they lie in several blocks, those of 16 shards drawn by the
    seed. borders: int64 (S + 1,), where the documents of each shard begin."""
    edges = np.unique(np.searchsorted(documents, borders))
    shards = len(edges) - 1
    if shards <= BLOCK:
        return documents
    drawn = np.sort(permuted(np.arange(_FEW), shards, sequence_keys(seed, 0, _ORDER)))
    return np.concatenate([documents[edges[i] : edges[i + 1]] for i in drawn])
