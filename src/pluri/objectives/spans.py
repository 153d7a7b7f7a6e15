"""Spans of units to cover, laid over a group of sequences at once (SpanBERT: Joshi et al., 2020, section 3.1).

SpanBERT draws spans one after the other until its budget is used up. Here gaps and spans alternate along the sequence:
gap lengths are geometric, at least 1, so spans never touch and keep the lengths that were drawn; the mean gap is set so
that the share of covered units is the rate. The process starts in its stationary state, so that this share is the
same at every place: with probability `rate` inside a span, of which only what remains is covered.

Legend: n sequences; K pairs of a gap and a span in all; S spans; C covered units.
"""

from dataclasses import dataclass
from math import log1p
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.runtime import Keys, mix, uniform
from pluri.tokens.ragged import offsets_of, slices

_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


@dataclass(frozen=True, slots=True)
class SpanLengths:
    """The distribution of span lengths 1 ... span_max, its mean, and how much remains of a span met half-way.

    whole, rest: cumulative probabilities (span_max,). mean_gap: mean length of a gap, in units.
    """

    whole: NDArray[np.float64]
    rest: NDArray[np.float64]
    mean_gap: float

    @classmethod
    def of(cls, config: ObjectiveConfig) -> Self:
        """UsageError if spans of this length, a gap between any two, cannot reach the rate."""
        weights = (1 - 1 / config.span_mean) ** np.arange(config.span_max)
        whole = np.cumsum(weights / weights.sum())
        at_least = 1 - whole + weights / weights.sum()  # P(length >= k)
        mean, rate = float(at_least.sum()), config.mlm_probability
        mean_gap = mean * (1 - rate) / rate
        if mean_gap <= 1:
            raise UsageError(
                f"spans of {mean:.1f} words on average cannot cover {rate:.0%} of them",
                do="lower mlm_probability or raise span_mean and span_max",
            )
        return cls(whole, np.cumsum(at_least) / mean, mean_gap)


def spans(
    keys: Keys, unit_offsets: NDArray[np.int64], lengths: SpanLengths, rate: float
) -> tuple[NDArray[np.int64], Keys]:
    """Chooses the units under spans; a sequence that no span would touch has one unit covered.

    keys: (n,). unit_offsets: (n + 1,), sequence i has the units unit_offsets[i] to unit_offsets[i + 1].
    Returns the chosen units (C,), ascending, and a fresh draw for each (C,), the same within a span.
    """
    units = np.diff(unit_offsets)  # (n,)
    pairs = np.where(units > 0, units // 2 + 1, 0)  # (n,) a pair takes two units at least, the first one
    pair_offsets = offsets_of(pairs)
    first = pair_offsets[:-1][units > 0]
    ordinal = slices(np.zeros_like(pairs), pairs)  # (K,)
    draws = mix(np.repeat(keys, pairs), ordinal)  # (K,)

    chance = (draws >> _HALF) * 2.0**-32  # (K,) in [0, 1), decides the gap
    inside = (ordinal == 0) & (chance < rate)  # (K,) the sequence begins inside a span
    chance[first] = np.where(inside[first], 0, (chance[first] - rate) / (1 - rate))
    gaps = np.where(inside, 0, 1 + (np.log1p(-chance) / log1p(-1 / lengths.mean_gap)).astype(np.int64))
    other = (draws & _LOW) * 2.0**-32  # (K,) decides the length
    sizes = 1 + np.where(inside, lengths.rest.searchsorted(other, "right"), lengths.whole.searchsorted(other, "right"))

    ends = np.cumsum(gaps + sizes)  # (K,)
    ends -= np.repeat(ends[first] - (gaps + sizes)[first], pairs[units > 0])  # from the start of its sequence
    starts = ends - sizes
    room = np.repeat(units, pairs)  # (K,)
    bare = first[starts[first] >= room[first]]
    starts[bare] = (uniform(draws[bare], 1) * room[bare]).astype(np.int64)
    ends[bare] = starts[bare] + 1

    laid = np.flatnonzero(starts < room)  # (S,)
    sizes = np.minimum(ends, room)[laid] - starts[laid]
    chosen = slices(np.repeat(unit_offsets[:-1], pairs)[laid] + starts[laid], sizes)
    return chosen, np.repeat(mix(draws[laid], 0), sizes)
