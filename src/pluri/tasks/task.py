"""Task: what a labelled sequence is, which labels there are, and what is to be predicted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError, UsageError
from pluri.runtime import mix, permuted
from pluri.tasks.metrics import CLASS_METRICS, NUMBER_METRICS, Outcome

Kind = Literal["classify", "tag"]
Targets = NDArray[np.int64] | NDArray[np.float64]

_SUBSET = 2**61  # the counter under which a subset is drawn: no epoch or sequence has it


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sequence that somebody labelled.

    units: what gets a label each: the whole text (one unit), or the tokens of a sentence.
    labels: as many as units; empty where nothing is known.
    where: its origin, "train.csv:31".
    """

    units: tuple[str, ...]
    labels: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Task:
    """kind: "classify", a label a sequence, or "tag", a label a token. Also the name of the model's head.
    labels: the class names in the order of their ids; empty for regression, which predicts a number a sequence.
    metric: which of `metrics` a model is chosen and reported by.
    """

    kind: Kind
    labels: tuple[str, ...]
    metric: str

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def num_outputs(self) -> int:
        return len(self.labels) or 1

    def targets(self, records: Sequence[Labelled]) -> Targets:
        """The class of each unit, or its number: (U,). DataError names the line of a label that cannot be used."""
        if self.regression:
            return np.array([_number(label, r.where) for r in records for label in r.labels], np.float64)
        ids = {label: i for i, label in enumerate(self.labels)}
        try:
            return np.array([ids[label] for r in records for label in r.labels], np.int64)
        except KeyError as error:
            where = next(r.where for r in records if error.args[0] in r.labels)
            known = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
            raise DataError(
                f"unknown label {error.args[0]!r}, the training data has {known}",
                where=where,
                do="correct it, or add examples of it to the training data",
            ) from None

    def outcome(self, records: Sequence[Labelled], predicted: Targets) -> Outcome:
        """What `records` say against what was predicted of their units, (U,)."""
        sequence = np.repeat(np.arange(len(records)), [len(r.units) for r in records])
        return Outcome(self.targets(records), predicted, sequence, len(records), len(self.labels))


def define_task(
    kind: Kind, records: Iterable[Labelled], *, regression: bool = False, metric: str | None = None
) -> Task:
    """The task that these labels pose. Labels that are numbers come first, by value; then the others, by characters.

    metric: default accuracy, or pearson for regression. UsageError if the metric does not fit, or there is one class.
    """
    known = NUMBER_METRICS if regression else CLASS_METRICS
    metric = metric or ("pearson" if regression else "accuracy")
    if metric not in known:
        what = "regression" if regression else kind
        raise UsageError(f"{what} has no metric {metric!r}", where="metric", do=f"choose one of {', '.join(known)}")
    if regression and kind != "classify":
        raise UsageError("a number is predicted of a sequence, not of a token", do="use the task classify")
    if regression:
        return Task(kind, (), metric)
    labels = {label for record in records for label in record.labels}
    if len(labels) < 2:
        label = next(iter(labels), "")
        raise UsageError(f"all training labels are {label!r}", do="give examples of at least two classes")
    return Task(kind, tuple(sorted(labels, key=_order)), metric)


def draw(records: Sequence[Labelled], count: int | None, seed: int) -> list[Labelled]:
    """`count` of the records, drawn by the seed; all if None. A larger draw of a seed begins with its smaller one."""
    if count is None:
        return list(records)
    if not 1 <= count <= len(records):
        raise UsageError(f"cannot draw {count} of {len(records)} labelled sequences", where="labelled")
    return [records[i] for i in permuted(np.arange(count), len(records), mix(mix(np.uint64(0), seed), _SUBSET)[()])]


def leaked(train: Sequence[Labelled], test: Sequence[Labelled]) -> int:
    """How many test sequences also stand in the training data, word for word."""
    seen = {record.units for record in train}
    return sum(record.units in seen for record in test)


def _number(label: str, where: str) -> float:
    try:
        number = float(label)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"label {label!r} is not a number", where=where, do="correct it, or leave out regression")
    return number


def _order(label: str) -> tuple[float, str]:
    """Numbers by their value, before everything else by its characters. "nan" is no number here: it has no place."""
    try:
        number = float(label)
    except ValueError:
        return float("inf"), label
    return (float("inf") if np.isnan(number) else number), label
