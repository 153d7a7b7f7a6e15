"""Metrics over weighted test sequences: with all weights 1 the metric itself, with bootstrap counts a replicate of it.

Legend: U units (one a sequence for classes and numbers, one a token for tags), G sequences, C classes, R replicates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Measured(Protocol):
    """How well one test set was done: its metrics, by name, under any weights of its sequences."""

    @property
    def num_sequences(self) -> int: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    def value(self, metric: str) -> float: ...

    def values(self, metric: str, weights: Floats) -> Floats:
        """weights: (R, num_sequences), how often each sequence counts. Returns (R,)."""
        ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Several test sets done by one method: each by its name. As a whole it is the mean over them, each weighing alike,
    as multilingual benchmarks report it (Hu et al., "XTREME", 2020)."""

    parts: Mapping[str, Measured]

    @property
    def num_sequences(self) -> int:
        return sum(part.num_sequences for part in self.parts.values())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that all of them have."""
        first, *others = self.parts.values()
        return tuple(metric for metric in first.metrics if all(metric in other.metrics for other in others))

    def value(self, metric: str) -> float:
        return float(np.mean([part.value(metric) for part in self.parts.values()]))

    def values(self, metric: str, weights: Floats) -> Floats:
        sizes = np.cumsum([part.num_sequences for part in self.parts.values()])[:-1]
        each = zip(self.parts.values(), np.split(weights, sizes, axis=1), strict=True)
        return np.mean([part.values(metric, mine) for part, mine in each], axis=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was true and what a method said, over one test set.

    gold, predicted: int64 (U,), classes in [0, num_classes), or float64 (U,), numbers, if num_classes is 0.
    sequence: int64 (U,), in [0, num_sequences): the test sequence that each unit belongs to. They are resampled whole.
    unseen: the last of the classes, by name, if training never showed them.
    """

    gold: NDArray[np.int64] | Floats
    predicted: NDArray[np.int64] | Floats
    sequence: NDArray[np.int64]
    num_sequences: int
    num_classes: int = 0
    unseen: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        if not self.num_classes:
            return tuple(NUMBER_METRICS)
        two = self.num_classes - len(self.unseen) == 2
        return tuple(name for name in CLASS_METRICS if name != "positive_f1" or two)

    def value(self, metric: str) -> float:
        return float(self.values(metric, np.ones((1, self.num_sequences)))[0])

    def values(self, metric: str, weights: Floats) -> Floats:
        """The metric under each row of weights. weights: (R, G), how often each sequence counts. Returns (R,)."""
        if self.num_classes:
            counts = self._counts()  # (G, 3C)
            summed = (weights @ counts).reshape(len(weights), 3, self.num_classes)
            known = self.num_classes - len(self.unseen) if metric == "positive_f1" else None
            return CLASS_METRICS[metric](summed[..., :known])
        gold, predicted = self.gold.astype(np.float64), self.predicted.astype(np.float64)
        return NUMBER_METRICS[metric](gold, predicted, weights[:, self.sequence])

    def _counts(self) -> Floats:
        """Correct, predicted and gold units of each class: (G, 3C). Every class metric follows from their sums."""
        base = self.sequence * self.num_classes
        gold, predicted = (base + side.astype(np.int64) for side in (self.gold, self.predicted))
        places = (gold[gold == predicted], predicted, gold)
        size = self.num_sequences * self.num_classes
        counts = np.stack([np.bincount(at, minlength=size) for at in places]).astype(np.float64)  # (3, GC)
        return counts.reshape(3, self.num_sequences, -1).transpose(1, 0, 2).reshape(self.num_sequences, -1)

    def confusion(self) -> NDArray[np.int64]:
        """(C, C): row = true class, column = predicted class."""
        flat = self.gold.astype(np.int64) * self.num_classes + self.predicted.astype(np.int64)
        return np.bincount(flat, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanOutcome(Outcome):
    """Also how well the spans were found that the labels spell.

    spans: (G, 3), the spans of each sequence that are right, predicted, and true.
    """

    spans: Floats

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*SPAN_METRICS, *(name for name in CLASS_METRICS if name != "positive_f1"))

    def values(self, metric: str, weights: Floats) -> Floats:
        if metric not in SPAN_METRICS:
            return Outcome.values(self, metric, weights)
        return SPAN_METRICS[metric](weights @ self.spans)


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, and 0 where below is 0: an undefined score counts as none, as scikit-learn's zero_division=0."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below > 0)


def accuracy(counts: Floats) -> Floats:
    """counts: (..., 3, C), correct, predicted and gold units of each class. Returns (...,)."""
    return _ratio(counts[..., 0, :].sum(-1), counts[..., 2, :].sum(-1))


def macro_f1(counts: Floats) -> Floats:
    """Mean over classes of F1 = 2 correct / (predicted + gold); classes neither true nor predicted don't count."""
    correct, predicted, gold = np.moveaxis(counts, -2, 0)
    seen = (predicted + gold) > 0
    return _ratio(_ratio(2 * correct, predicted + gold).sum(-1), seen.sum(-1).astype(np.float64))


def micro_f1(counts: Floats) -> Floats:
    """F1 of the pooled counts; with one label a unit it equals accuracy."""
    correct, predicted, gold = np.moveaxis(counts.sum(-1), -1, 0)
    return _ratio(2 * correct, predicted + gold)


def positive_f1(counts: Floats) -> Floats:
    """F1 of the last class alone: of two, the positive one. What GLUE calls F1 (Wang et al. 2018, table 1)."""
    correct, predicted, gold = np.moveaxis(counts[..., -1], -1, 0)
    return _ratio(2 * correct, predicted + gold)


def mcc(counts: Floats) -> Floats:
    """Matthews correlation for C classes (Gorodkin, "Comparing two K-category assignments", 2004, equation 8)."""
    correct, predicted, gold = np.moveaxis(counts, -2, 0)
    total = gold.sum(-1)
    covariance = correct.sum(-1) * total - (predicted * gold).sum(-1)
    variances = (total**2 - (predicted**2).sum(-1)) * (total**2 - (gold**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(variances, 0)))


def span_f1(counts: Floats) -> Floats:
    """F1 of all spans together, of whatever type (micro). counts: (..., 3), right, predicted and true ones."""
    right, predicted, gold = np.moveaxis(counts, -1, 0)
    return _ratio(2 * right, predicted + gold)


def span_precision(counts: Floats) -> Floats:
    right, predicted, _ = np.moveaxis(counts, -1, 0)
    return _ratio(right, predicted)


def span_recall(counts: Floats) -> Floats:
    right, _, gold = np.moveaxis(counts, -1, 0)
    return _ratio(right, gold)


def pearson(gold: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Linear correlation, 0 if either side is constant.

    gold, predicted: (U,) or (R, U). weights: (R, U). Returns (R,).
    """
    share = weights / weights.sum(-1, keepdims=True)
    x = gold - (share * gold).sum(-1, keepdims=True)
    y = predicted - (share * predicted).sum(-1, keepdims=True)
    spread = _variance(gold, x, share) * _variance(predicted, y, share)
    return _ratio((share * x * y).sum(-1), np.sqrt(spread))


def _variance(numbers: Floats, centred: Floats, share: Floats) -> Floats:
    """0 where nothing but rounding is left of the spread."""
    variance = (share * centred**2).sum(-1)
    return np.where(variance > 1e-24 * (share * numbers**2).sum(-1), variance, 0.0)


def spearman(gold: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Pearson correlation of the ranks, equal numbers sharing their mean rank. Shapes as `pearson`."""
    return pearson(_ranks(gold, weights), _ranks(predicted, weights), weights)


def _ranks(numbers: Floats, weights: Floats) -> Floats:
    """Mean rank of each number, each standing there `weight` times: (R, U). numbers: (U,). weights: (R, U)."""
    _, place = np.unique(numbers, return_inverse=True)
    copies = np.zeros((len(weights), int(place.max()) + 1))
    for row, row_weights in zip(copies, weights, strict=True):
        row += np.bincount(place, row_weights, minlength=len(row))
    return (np.cumsum(copies, axis=1) - copies / 2 + 0.5)[:, place]


CLASS_METRICS: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "positive_f1": positive_f1,
    "mcc": mcc,
}
SPAN_METRICS: dict[str, Callable[[Floats], Floats]] = {
    "span_f1": span_f1,
    "span_precision": span_precision,
    "span_recall": span_recall,
}
NUMBER_METRICS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {"pearson": pearson, "spearman": spearman}
