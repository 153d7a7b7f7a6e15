"""Rows of results, grouped for comparing methods: means over seeds, intervals, differences, and where curves cross.

Intervals are 95%. Over seeds: Student's t for a mean, and for a difference Student's t for the mean of the differences
within a seed, because two methods with the same seed saw the same labelled examples (Student, "The probable error of a
mean", Biometrika 1908).
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import stdtrit

from pluri.run.folder import number

Basis = Literal["seeds", "bootstrap", "none"]
LOWER_IS_BETTER = {"mse", "rmse", "mae", "eval_loss", "loss", "perplexity", "error"}
PERCENT = {"accuracy", "f1", "macro_f1", "micro_f1", "f1_macro", "f1_micro", "exact_match", "precision", "recall"}
PERCENT |= {"positive_f1", "span_f1", "span_precision", "span_recall"}
PERCENT |= {"acc", "acc_norm", "acc_calibrated"}
PERCENT |= {f"{kind}Ans_{name}" for kind in ("Has", "No") for name in ("exact", "f1")}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `seeds` runs, its 95% interval (None if one run gives no interval), and what the interval is over."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    basis: Basis

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """+1 or -1 if the whole interval is above or below 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True, slots=True)
class Row:
    method: str
    labelled: int | None
    seed: Any
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All methods on one task by one metric.

    methods: in order of first appearance. sizes: rising; None = all labels that there are.
    prompted: the labelled examples stood in prompts, and nothing was trained on them.
    """

    task: str
    metric: str
    methods: list[str]
    sizes: list[int | None]
    rows: list[Row]
    prompted: bool = False

    @property
    def better(self) -> int:
        """+1 where more is better, -1 where less is (an error, a loss)."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    @property
    def percent(self) -> bool:
        """Whether the metric is a share, shown in per cent and its differences in points."""
        return self.metric in PERCENT and all(-1e-9 <= row.value <= 1 + 1e-9 for row in self.rows)

    @property
    def counts(self) -> list[int]:
        """The sizes that are numbers: what a curve can be drawn over."""
        return [size for size in self.sizes if size is not None]

    def group(self, method: str, size: int | None) -> list[Row]:
        return [row for row in self.rows if row.method == method and row.labelled == size]

    def estimate(self, method: str, size: int | None) -> Estimate | None:
        rows = self.group(method, size)
        return estimate(rows) if rows else None

    def difference(self, method: str, other: str, size: int | None) -> Estimate | None:
        """method minus other, in the metric's own unit and direction."""
        ours, theirs = self.group(method, size), self.group(other, size)
        return difference(ours, theirs) if ours and theirs else None

    def curve(self, method: str) -> dict[int, float]:
        means = {size: self.estimate(method, size) for size in self.counts}
        return {size: found.mean for size, found in means.items() if found is not None}


def comparisons(rows: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Groups rows by task and metric, a task's span_f1 or accuracy first. Rows without a finite value are left out."""
    groups: dict[tuple[str, str], dict[tuple[Any, ...], Row]] = {}
    prompted: set[tuple[str, str]] = set()
    for row in rows:
        value = number(row.get("value"))
        if value is None or "method" not in row:
            continue
        labelled = number(row.get("labelled", row.get("shots")))
        size = None if labelled is None else int(labelled)
        parsed = Row(str(row["method"]), size, row.get("seed"), value, number(row.get("low")), number(row.get("high")))
        on = f" on {row['test']}" if "test" in row else ""
        key = str(row.get("task", "task")) + on, str(row.get("metric", "value"))
        if "shots" in row:
            prompted.add(key)
        group = groups.setdefault(key, {})
        group[(parsed.method, size, str(parsed.seed))] = parsed
    tasks = list(dict.fromkeys(task for task, _ in groups))
    order = sorted(groups, key=lambda key: (tasks.index(key[0]), key[1] != "span_f1", key[1] != "accuracy"))
    return [_comparison(*key, list(groups[key].values()), key in prompted) for key in order]


def _comparison(task: str, metric: str, rows: list[Row], prompted: bool) -> Comparison:
    methods = list(dict.fromkeys(row.method for row in rows))
    sizes = sorted({row.labelled for row in rows}, key=lambda size: math.inf if size is None else size)
    return Comparison(task, metric, methods, sizes, rows, prompted)


def estimate(rows: Sequence[Row]) -> Estimate:
    """The mean over seeds, with its interval.

    An interval that all rows share was made over the seeds already, and is kept. One that differs from row to row is
    over test examples alone: then the wider of their mean and the t interval over the seeds is taken.
    """
    values = [row.value for row in rows]
    mean, seeds = statistics.fmean(values), len(values)
    intervals = [(row.low, row.high) for row in rows if row.low is not None and row.high is not None]
    half = _t_half(values)
    if intervals:
        low, high = (statistics.fmean(ends) for ends in zip(*intervals, strict=True))
        shared = len(set(intervals)) == 1 and len(intervals) == seeds
        if half is None or shared or high - low > 2 * half:
            return Estimate(mean, low, high, seeds, "bootstrap")
    if half is None:
        return Estimate(mean, None, None, seeds, "none")
    return Estimate(mean, mean - half, mean + half, seeds, "seeds")


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> Estimate:
    """Mean of ours minus mean of theirs, over the seeds they share if there are several.

    Bootstrap intervals of the two, which hold test examples and seeds, are added in squares, as of independent
    estimates: that is cautious, since both met the same examples. From three common seeds on (the t interval of two
    says next to nothing) the t interval of the differences is taken if it is wider, or if there is no bootstrap.
    """
    a, b = {str(row.seed): row.value for row in ours}, {str(row.seed): row.value for row in theirs}
    common = [seed for seed in a if seed in b]
    differences = [a[seed] - b[seed] for seed in common]
    first, second = estimate(ours), estimate(theirs)
    paired = len(common) >= 2
    mean = statistics.fmean(differences) if paired else first.mean - second.mean
    seeds = len(common) if paired else min(first.seeds, second.seeds)
    halves = {}
    if first.half is not None and second.half is not None and first.basis == second.basis == "bootstrap":
        halves["bootstrap"] = math.hypot(first.half, second.half)
    if paired and (len(common) > 2 or not halves):
        halves["seeds"] = _t_half(differences) or 0.0
    elif not halves and first.half is not None and second.half is not None:
        halves["bootstrap"] = math.hypot(first.half, second.half)
    if not halves:
        return Estimate(mean, None, None, seeds, "none")
    basis = max(halves, key=lambda name: halves[name])
    return Estimate(mean, mean - halves[basis], mean + halves[basis], seeds, basis)


def _t_half(values: Sequence[float]) -> float | None:
    """Half the width of the 95% t interval of the mean; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    return float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)


def crossings(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Sizes at which two curves change places, by straight lines over the logarithm of the size."""
    sizes = sorted(size for size in set(first) & set(second) if size > 0)
    places = []
    for left, right in itertools.pairwise(sizes):
        before, after = first[left] - second[left], first[right] - second[right]
        if before * after < 0:
            share = before / (before - after)
            places.append(math.exp(math.log(left) + share * (math.log(right) - math.log(left))))
    return places


def size_to_reach(curve: Mapping[int, float], target: float, better: int = 1) -> float | None:
    """The size at which a curve first reaches `target`, read off as in `crossings`; None if it never does."""
    sizes = sorted(size for size in curve if size > 0)
    for i, size in enumerate(sizes):
        if better * (curve[size] - target) >= 0:
            if i == 0:
                return float(size)
            left = sizes[i - 1]
            share = (target - curve[left]) / (curve[size] - curve[left])
            return math.exp(math.log(left) + share * (math.log(size) - math.log(left)))
    return None
