"""Ways to break a sequence, for a decoder to rebuild it. Pure functions of (sequences, keys), over a group at once.

BART's five (Lewis et al., 2020, section 2.2), the span of MASS (Song et al., 2019, section 3.2) and the sentinel spans
of T5 (Raffel et al., 2020, section 3.1.4). Special tokens inside a sequence are neither covered nor removed; only
`permuted` and `rotated` move them, with what stands beside them.

Legend: n sequences of T tokens in all; M ordinary tokens, that is, not special; S spans; P covered tokens.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pluri.runtime import Keys, mix, uniform
from pluri.tokens.ragged import Ragged, offsets_of, slices

_LENGTH, _PLACE = range(2)
"""What a span's draws are for."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of ordinary tokens, sequence after sequence, from left to right.

    starts: int64 (S,), places in the flat ordinary tokens. sizes: int64 (S,), 0 for a span between two tokens.
    counts: int64 (n,), spans of each sequence.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def covered(self) -> NDArray[np.int64]:
        """Places of the tokens under spans, in the flat ordinary tokens: (P,)."""
        return slices(self.starts, self.sizes)


def permuted(tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
    """The sentences of each sequence in random order. sentences: where they begin, positions > 0, as stores tell it."""
    begins = np.repeat(tokens.offsets[:-1], sentences.lengths) + sentences.ids
    starts = np.sort(np.concatenate([tokens.offsets[:-1][tokens.lengths > 0], begins]))
    owner = np.searchsorted(tokens.offsets, starts, side="right") - 1
    draws = mix(keys[owner], slices(np.zeros(len(tokens), np.int64), np.bincount(owner, minlength=len(tokens))))
    order = np.lexsort((draws, owner))
    sizes = np.diff(starts, append=len(tokens.ids))
    return Ragged(tokens.ids[slices(starts[order], sizes[order])], tokens.offsets)


def rotated(tokens: Ragged, keys: Keys) -> Ragged:
    """Each sequence begins with one of its tokens, each as likely, and what stood before that comes last."""
    shifts = (uniform(keys, 0) * tokens.lengths).astype(np.int64)
    places = slices(shifts, tokens.lengths) % np.repeat(tokens.lengths, tokens.lengths)
    return Ragged(tokens.ids[places + np.repeat(tokens.offsets[:-1], tokens.lengths)], tokens.offsets)


def without(tokens: Ragged, places: NDArray[np.int64]) -> Ragged:
    """The sequences without the tokens at flat `places`, which are ascending."""
    return Ragged(np.delete(tokens.ids, places), tokens.offsets - np.searchsorted(places, tokens.offsets))


def infilled(tokens: Ragged, ordinary: NDArray[np.int64], spans: Spans, mask_id: int) -> Ragged:
    """One mask for each span, however long; an empty span is a mask too many.

    ordinary: (M,) places of the ordinary tokens.
    """
    inner = np.searchsorted(ordinary, tokens.offsets)  # (n + 1,)
    empty = spans.sizes == 0
    ids = tokens.ids.copy()
    ids[ordinary[spans.starts[~empty]]] = mask_id
    keep = np.ones(len(ids), bool)
    keep[ordinary[spans.covered]] = False
    keep[ordinary[spans.starts[~empty]]] = True
    kept_before = offsets_of(keep.astype(np.int64))  # (T + 1,)

    owner = np.repeat(np.arange(len(tokens)), spans.counts)[empty]
    last = spans.starts[empty] == inner[owner + 1]  # behind the last ordinary token: at the end
    gaps = tokens.offsets[owner + 1]
    gaps[~last] = ordinary[spans.starts[empty][~last]]
    inserted = np.bincount(owner, minlength=len(tokens))
    lengths = np.diff(kept_before[tokens.offsets]) + inserted
    return Ragged(np.insert(ids[keep], kept_before[gaps], np.int32(mask_id)), offsets_of(lengths))


def poisson_spans(keys: Keys, counts: NDArray[np.int64], rate: float, mean: float) -> Spans:
    """Spans that cover `rate` of the ordinary tokens, with lengths from a Poisson distribution (BART, section 2.2).

    counts: (n,), ordinary tokens of each sequence; of some, at least one is covered. mean: at least 1.
    Lengths are drawn until they make up the share, the last one cut to it; then spans and uncovered tokens are shuffled
    together, each order as likely. So spans may touch, and the ends of a sequence are covered less than its middle.
    There are never more spans than covered tokens: no sequence grows.
    """
    wanted = _share(counts, rate)
    tries = np.where(wanted > 0, np.ceil(2 * wanted / mean).astype(np.int64) + 20, 0)  # falling short: about 1e-9
    chance = uniform(np.repeat(mix(keys, _LENGTH), tries), slices(np.zeros_like(tries), tries))
    sizes = _poisson(mean).searchsorted(chance, "right")
    owner = np.repeat(np.arange(len(counts)), tries)
    ends = _within(sizes, offsets_of(tries))
    drawn = ends - sizes < wanted[owner]
    sizes, owner = (np.minimum(ends, wanted[owner]) - (ends - sizes))[drawn], owner[drawn]

    full = sizes > 0
    room = wanted - np.bincount(owner[full], minlength=len(counts))  # (n,) for empty spans
    nth_empty = _within((~full).astype(np.int64), offsets_of(np.bincount(owner, minlength=len(counts))))
    fitting = full | (nth_empty <= room[owner])
    sizes, owner = sizes[fitting], owner[fitting]

    spans = np.bincount(owner, minlength=len(counts))
    covered = np.bincount(owner, sizes, len(counts)).astype(np.int64)
    items = counts - covered + spans  # uncovered tokens and spans
    chosen = some_of(mix(keys, _PLACE), items, spans)
    item_sizes = np.ones(items.sum(), np.int64)
    item_sizes[chosen] = sizes
    return Spans((np.cumsum(item_sizes) - item_sizes)[chosen], sizes, spans)


def partition_spans(keys: Keys, counts: NDArray[np.int64], rate: float, mean: float, most: int) -> Spans:
    """Spans that never touch: `rate` of the ordinary tokens, cut at random into round(covered / mean) parts (T5).

    counts: (n,), ordinary tokens of each sequence; of some, at least one is covered. most: spans of a sequence.
    """
    covered = _share(counts, rate)
    spans = np.clip(np.round(covered / mean).astype(np.int64), 1, np.minimum(counts - covered + 1, most))
    spans = np.minimum(spans, covered)
    cuts = some_of(mix(keys, _LENGTH), np.maximum(covered - 1, 0), np.maximum(spans - 1, 0))
    begins = np.zeros(covered.sum(), bool)
    begins[(offsets_of(covered)[:-1])[covered > 0]] = True
    # one slot less than tokens in each sequence that has any: slot s stands before token s + 1
    begins[cuts + 1 + np.repeat(np.cumsum(covered > 0) - 1, np.maximum(spans - 1, 0))] = True
    sizes = np.diff(np.flatnonzero(begins), append=len(begins))
    gaps = some_of(mix(keys, _PLACE), counts - covered + 1, spans)
    gaps -= np.repeat(offsets_of(counts - covered + 1)[:-1], spans)  # uncovered tokens before the span
    before = _within(sizes, offsets_of(spans)) - sizes  # covered tokens before the span
    return Spans(np.repeat(offsets_of(counts)[:-1], spans) + gaps + before, sizes, spans)


def one_span(keys: Keys, counts: NDArray[np.int64], rate: float) -> Spans:
    """One span of `rate` of the ordinary tokens, anywhere (MASS, section 3.2); empty where there are no tokens."""
    sizes = _share(counts, rate)
    starts = offsets_of(counts)[:-1] + (uniform(keys, _PLACE) * (counts - sizes + 1)).astype(np.int64)
    return Spans(starts, sizes, np.ones_like(counts))


def some_of(keys: Keys, counts: NDArray[np.int64], picks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Exactly picks[i] of counts[i] places of each sequence, any choice as likely: ascending, in the flat places."""
    ordinal = slices(np.zeros_like(counts), counts)
    owner = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((mix(keys[owner], ordinal), owner))
    rank = np.empty_like(ordinal)
    rank[order] = ordinal
    return np.flatnonzero(rank < picks[owner])


def _share(counts: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
    """`rate` of the counts, rounded, but one at least where there is one: (n,)."""
    return np.maximum(np.round(counts * rate).astype(np.int64), counts > 0)


def _within(values: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The running sum, begun anew in each sequence."""
    total = offsets_of(values)
    return total[1:] - np.repeat(total[offsets[:-1]], np.diff(offsets))


def _poisson(mean: float) -> NDArray[np.float64]:
    """P(length <= k) for k = 0, 1, ... as far as a draw can reach."""
    k = np.arange(1, ceil(mean + 12 * mean**0.5) + 12)
    return np.cumsum(np.exp(-mean) * np.concatenate([[1.0], np.cumprod(mean / k)]))
