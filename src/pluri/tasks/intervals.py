"""Bootstrap intervals: how far a score would move with other test sequences, and with other seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.runtime import mix, uniform
from pluri.tasks.metrics import Measured

_ELEMENTS = 4_000_000  # (replicate, sequence) weights held at once


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


def bootstrap(
    outcomes: Sequence[Measured], metric: str, *, seed: int = 0, replicates: int = 1000, level: float = 0.95
) -> Interval:
    """The mean of a metric over runs, with its percentile interval (Efron and Tibshirani 1993, chapter 13).

    outcomes: one a run (seed) of the same method on the same test sequences. Each replicate draws, with replacement,
    test sequences (whole, the same ones for every run) and runs, so that both sources of chance are in the interval.
    """
    num_sequences = outcomes[0].num_sequences
    value = float(np.mean([outcome.value(metric) for outcome in outcomes]))
    key = mix(np.uint64(0), seed)
    rows = max(1, _ELEMENTS // num_sequences)
    means = []
    for start in range(0, replicates, rows):
        replicate_keys = mix(key, np.arange(start, min(start + rows, replicates)))  # (R,)
        weights = _draws(mix(replicate_keys, 0), num_sequences)  # (R, G)
        values = np.stack([outcome.values(metric, weights) for outcome in outcomes], axis=1)  # (R, runs)
        runs = _draws(mix(replicate_keys, 1), len(outcomes))  # (R, runs)
        means.append((values * runs).sum(1) / len(outcomes))
    return percentiles(value, np.concatenate(means), level=level)


def draws(n: int, *, seed: int = 0, replicates: int = 1000) -> NDArray[np.float64]:
    """How often each of n things is drawn in n draws with replacement: (R, n), a row a replicate."""
    return _draws(mix(mix(np.uint64(0), seed), np.arange(replicates)), n)


def percentiles(value: float, replicates: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """The percentile interval of a value by its replicates, (R,)."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def mean_intervals(
    values: NDArray[np.float64], *, seed: int = 0, replicates: int = 1000, level: float = 0.95
) -> list[Interval]:
    """The mean of each of M measures, (G, M), over what was measured, with its percentile interval. One draw serves all
    of them, so that differences between columns keep the pairing."""
    key, rows = mix(np.uint64(0), seed), max(1, _ELEMENTS // len(values))
    parts = []
    for start in range(0, replicates, rows):
        keys = mix(key, np.arange(start, min(start + rows, replicates)))
        parts.append(_draws(mix(keys, 0), len(values)) @ values / len(values))  # (R, M)
    means = np.concatenate(parts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(*map(float, each)) for each in zip(values.mean(0), low, high, strict=True)]


def _draws(keys: NDArray[np.uint64], n: int) -> NDArray[np.float64]:
    """How often each of n things is drawn in n draws with replacement, one row a key: (R, n)."""
    drawn = (uniform(keys[:, None], np.arange(n)) * n).astype(np.int64)
    drawn += np.arange(len(keys))[:, None] * n
    return np.bincount(drawn.ravel(), minlength=len(keys) * n).reshape(len(keys), n).astype(np.float64)
