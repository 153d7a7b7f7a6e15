"""Several sources as one: each gives its share, drawn without replacement until all of it was seen.

Legend: n examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.batches.loader import Source, shuffled
from pluri.errors import UsageError
from pluri.tokens.ragged import offsets_of, slices


class Mixture:
    """A Source that draws from others in proportion to their size to the power of `alpha` (Devlin et al. 2018, mBERT:
    0.7; Conneau and Lample 2019, XLM, section 3.1: 0.5; Conneau et al. 2020, XLM-R: 0.3).

    1: in proportion to the number of sequences, so that an epoch holds each once. 0: of each source as many. An epoch
    has as many draws as there are sequences. Each source is shuffled anew whenever all of it was drawn: a small one
    comes several times an epoch, each time masked in another way, a large one not whole. The n-th draw from a source is
    a pure function of n, so that any batch is found in O(1).

    draws: int64 (sources,), of each epoch.
    UsageError: one of them is empty.
    """

    def __init__(self, sources: Sequence[Source], *, alpha: float, seed: int) -> None:
        self._sources, self._seed = sources, seed
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
        which = np.searchsorted(self._starts, index, side="right") - 1
        parts, places = [], []
        for i in np.unique(which):
            mine = np.flatnonzero(which == i)
            draw = epoch[mine] * self.draws[i] + index[mine] - self._starts[i]
            parts.append(self._sources[i].examples(*shuffled(draw, int(self._sizes[i]), self._seed + int(i))))
            places.append(mine)
        return _merged(parts, np.argsort(np.concatenate(places)))


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
