"""Several sources as one: each gives its share, drawn without replacement until all of it was seen.

Legend: n examples.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.batches.loader import Source, Stored, order_of
from pluri.batches.order import Order
from pluri.errors import UsageError
from pluri.runtime import Keys
from pluri.tokens.ragged import offsets_of, slices


class Mixture:
    """A Source that draws from others in proportion to their size to the power of `alpha` (Devlin et al. 2018, mBERT:
    0.7; Conneau and Lample 2019, XLM, section 3.1: 0.5; Conneau et al. 2020, XLM-R: 0.3).

    1: in proportion to the number of sequences, so that an epoch holds each once. 0: of each source as many. An epoch
    has as many draws as there are sequences. Each source is shuffled anew whenever all of it was drawn: a small one
    comes several times an epoch, each time masked in another way, a large one not whole. The n-th draw from a source is
    a pure function of n, so that any batch is found in O(1). Each source's draws go through its blocks one after the
    other, all sources side by side.

    draws: int64 (sources,), of each epoch.
    UsageError: one of them is empty.
    """

    def __init__(self, sources: Sequence[Source], *, alpha: float, seed: int) -> None:
        self._sources = sources
        self._orders = [order_of(source, seed + i) for i, source in enumerate(sources)]
        self.remote = any(isinstance(source, Stored) and source.remote for source in sources)
        self._sizes = np.array([len(source) for source in sources], np.int64)
        if not self._sizes.all():
            what = f"of {len(sources)} sources the {int(np.argmin(self._sizes)) + 1}. has no sequence"
            raise UsageError(what, do="leave it out, or give it more text")
        shares = self._sizes.astype(np.float64) ** alpha
        ends = np.rint(np.cumsum(shares / shares.sum()) * self._sizes.sum()).astype(np.int64)
        self.draws = np.maximum(np.diff(ends, prepend=0), 1)
        self._starts = offsets_of(self.draws)[:-1]
        self.mean_length = float(np.average([source.mean_length for source in sources], weights=self.draws))

    def __len__(self) -> int:
        return int(self.draws.sum())

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """What the draws `index` (n,) of `epoch` (n,) give, in their order."""
        parts, places = [], []
        for source, place, drawn in self._drawn(index, epoch):
            parts.append(source.examples(*drawn))
            places.append(place)
        return _merged(parts, np.argsort(np.concatenate(places)))

    def order(self, seed: int) -> Order:
        """The epoch in as many blocks as a source goes through that has several; one, if none has."""
        passed = [
            draws * order.blocks / size
            for draws, order, size in zip(self.draws, self._orders, self._sizes, strict=True)
            if order.blocks > 1
        ]
        return _Windows(self.draws, math.ceil(max(passed, default=1)), seed)

    def fetch_ahead(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> None:
        for source, _, drawn in self._drawn(index, epoch):
            if isinstance(source, Stored):
                source.fetch_ahead(*drawn)

    def _drawn(
        self, index: NDArray[np.int64], epoch: NDArray[np.int64]
    ) -> Iterator[tuple[Source, NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]]:
        """(source, which of the draws are from it, what they are in it)."""
        which = np.searchsorted(self._starts, index, side="right") - 1
        for i in np.unique(which):
            mine = np.flatnonzero(which == i)
            draw = epoch[mine] * self.draws[i] + index[mine] - self._starts[i]
            yield self._sources[i], mine, self._orders[i](draw)


class _Windows(Order):
    """The order of draws that lie source after source: each block has as much of every source as any other block.

    draws: int64 (sources,), of an epoch.
    """

    def __init__(self, draws: NDArray[np.int64], blocks: int, seed: int) -> None:
        self._draws = draws
        super().__init__(int(draws.sum()), blocks, seed)

    def stretches(self, key: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        edges = np.arange(self.blocks + 1)[:, None] * self._draws // self.blocks  # (K + 1, sources)
        first = edges[:-1] + offsets_of(self._draws)[:-1]
        return first.ravel(), np.diff(edges, axis=0).ravel(), np.arange(self.blocks + 1) * len(self._draws)


def _merged(parts: Sequence[Examples], order: NDArray[np.int64]) -> Examples:
    """The examples of all parts, which have the same fields, laid end to end and then taken in this order."""
    lengths = np.concatenate([part.lengths for part in parts])
    flat = slices(offsets_of(lengths)[:-1][order], lengths[order])

    def taken(name: str, at: NDArray[np.int64]) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)[at]

    tokens = {name: taken(name, flat) for name in ("input_ids", "labels", "token_type_ids")}
    sequences = {name: taken(name, order) for name in ("sequence_labels", "first_positions")}
    sources = [part.source for part in parts if part.source is not None]
    source = _merged(sources, order) if sources else None
    return Examples(offsets=offsets_of(lengths[order]), source=source, **tokens, **sequences)
