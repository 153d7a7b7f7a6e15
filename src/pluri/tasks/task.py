"""Task: what a labelled sequence is, which labels there are, and what is to be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError, UsageError
from pluri.runtime import mix, permuted
from pluri.tasks.answer_metrics import ANSWER_METRICS, AnswerOutcome, Scoring, answer_outcome
from pluri.tasks.metrics import CLASS_METRICS, NUMBER_METRICS, SPAN_METRICS, Outcome, Outcomes, SpanOutcome
from pluri.tasks.spans import Scheme, SpanTags, recognized, span_counts, span_tags
from pluri.tasks.text_metrics import TEXT_METRICS, TextOutcome, check_installed, text_outcome
from pluri.tokens.ragged import offsets_of

Kind = Literal["classify", "pair", "tag", "answer", "translate"]
Labels = NDArray[np.int64] | NDArray[np.float64]
Targets = Labels | NDArray[np.object_]

_SUBSET = 2**61  # the counter under which a subset is drawn: no epoch or sequence has it


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sequence that somebody labelled.

    units: the whole text; the two sequences of a pair; or the tokens of a sentence, which get a label each.
    labels: one, or one a token; of a text to translate, its translation; empty where nothing is known.
    where: its origin, "train.csv:31".
    id: its name, where the file gives one.
    part: of several test sets the name of its own.
    """

    units: tuple[str, ...]
    labels: tuple[str, ...]
    where: str
    id: str | None = None
    part: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Question(Labelled):
    """A question about a document, to be answered by a stretch of it. units: (question, document). labels: none.

    id: its name in files of answers.
    references: the texts of its right answers as they were given; none: the document has no answer; None: not known.
    spans: the (start, end) characters of those of them whose place is known.
    """

    id: str = ""
    references: tuple[str, ...] | None = None
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def document(self) -> str:
        return self.units[1]


@dataclass(frozen=True, slots=True)
class Task:
    """kind: "classify", a label a sequence; "pair", a label two sequences; "tag", a label a token; "answer", a span of
        a document; "translate", a text for a text.
    labels: the class names in the order of their ids; empty for regression, which predicts a number a sequence or pair.
    metric: which of `metrics` a model is chosen and reported by.
    scoring, threshold: of answers. By which rules they are scored; how far "no answer" must score above the best span
        to be given, None = it never is.
    scheme, legal: of tags. How they spell spans, None = they don't; whether only what the scheme allows is predicted.

    UsageError: legal without a scheme.
    """

    kind: Kind
    labels: tuple[str, ...]
    metric: str
    scoring: Scoring = "auto"
    threshold: float | None = None
    scheme: Scheme | None = None
    legal: bool = False

    def __post_init__(self) -> None:
        if self.legal and self.scheme is None:
            do = "leave it out, or name every tag as one of IOB1, IOB2, BIOES, BILOU, BMES does"
            raise UsageError("these labels spell no spans", where="legal", do=do)

    @property
    def regression(self) -> bool:
        return self.head == "classify" and not self.labels

    @property
    def head(self) -> str:
        """The name of the model's head. Pairs have that of single sequences, as in the published models."""
        return {"pair": "classify", "translate": "next"}.get(self.kind, self.kind)

    @property
    def labels_units(self) -> bool:
        """Whether it gives labels or numbers, as the simple baselines do, and not spans or texts."""
        return self.kind not in ("answer", "translate")

    @property
    def num_outputs(self) -> int:
        return 2 if self.kind == "answer" else len(self.labels) or 1

    def heads(self, vocab_size: int) -> dict[str, int]:
        """What a model with so many tokens ends in: the head's name, and its number of outputs."""
        return {self.head: vocab_size if self.kind == "translate" else self.num_outputs}

    def num_labels(self, records: Sequence[Labelled]) -> NDArray[np.int64]:
        """How many labels (U in all) each record takes, (G,): as many as tokens for "tag", else one."""
        return np.array([len(r.units) if self.kind == "tag" else 1 for r in records], np.int64)

    @property
    def tags(self) -> SpanTags | None:
        """What the labels mean as tags of spans, if they spell any."""
        return span_tags(self.labels, self.scheme) if self.scheme else None

    def knowing(self, records: Sequence[Labelled]) -> "Task":
        """Also with the labels of `records` that training never showed, after its own: to judge, not to learn."""
        if not self.labels:
            return self
        unseen = {label for record in records for label in record.labels}.difference(self.labels)
        return replace(self, labels=(*self.labels, *sorted(unseen, key=_order))) if unseen else self

    def targets(self, records: Sequence[Labelled]) -> Targets:
        """The class of each unit, or its number: (U,); of answers, the first span of a question, (G, 2), -1 for none;
        translations as they are, (G,).

        DataError names the line of a label that cannot be used.
        """
        if self.kind == "answer":
            return _spans(questions(records))
        if self.kind == "translate":
            return np.array([label for r in records for label in r.labels], object)
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

    def outcome(
        self, records: Sequence[Labelled], predicted: Targets
    ) -> Outcome | AnswerOutcome | TextOutcome | Outcomes:
        """What `records` say against what was predicted of their units, (U,); of answers, their spans (G, 2).

        A label that training never showed counts as any other: whatever was predicted is wrong. Test sets with names,
        one after the other, are each judged by itself.
        """
        if not (records and records[0].part):
            return self._outcome(records, predicted)
        units = offsets_of(self.num_labels(records))
        bounds = [i for i, r in enumerate(records) if i == 0 or r.part != records[i - 1].part]
        parts = pairwise([*bounds, len(records)])
        return Outcomes(
            {records[i].part: self._outcome(records[i:j], predicted[units[i] : units[j]]) for i, j in parts}
        )

    def _outcome(self, records: Sequence[Labelled], predicted: Targets) -> Outcome | AnswerOutcome | TextOutcome:
        if self.kind == "translate":
            return text_outcome(self.targets(records).tolist(), predicted.tolist())
        if self.kind == "answer":
            asked = questions(records)
            texts = [question.document[start:end] for question, (start, end) in zip(asked, predicted, strict=True)]
            return answer_outcome([question.references or () for question in asked], texts, self.scoring)
        task, lengths = self.knowing(records), self.num_labels(records)
        gold, predicted = cast(Labels, task.targets(records)), cast(Labels, predicted)
        sequence = np.repeat(np.arange(len(records)), lengths)
        about: tuple[Any, ...] = (gold, predicted, sequence, len(records), len(task.labels))
        unseen = task.labels[len(self.labels) :]
        if task.tags is None:
            return Outcome(*about, unseen=unseen)
        spans = span_counts(task.tags, gold.astype(np.int64), predicted.astype(np.int64), lengths)
        return SpanOutcome(*about, unseen=unseen, spans=spans)


def define_task(
    kind: Kind,
    records: Sequence[Labelled],
    *,
    regression: bool = False,
    metric: str | None = None,
    scoring: Scoring = "auto",
    threshold: float | None = None,
    legal: bool = False,
) -> Task:
    """The task that these labels pose. Labels that are numbers come first, by value; then the others, by characters.

    Tags whose names spell spans are recognized (`recognized`).

    metric: default accuracy, or pearson for regression, f1 for answers, span_f1 for spans, chrf for texts. The others:
        see Task.
    UsageError if the metric does not fit, or there is one class.
    """
    labels = tuple(sorted({label for record in records for label in record.labels}, key=_order))
    scheme = None
    if kind == "tag" and not regression:
        tags = Task(kind, labels, "accuracy")
        scheme = recognized(labels, tags.targets(records).astype(np.int64), tags.num_labels(records))
    if kind == "translate":
        check_installed()
    given: dict[str, Sequence[str]] = {"answer": ANSWER_METRICS, "translate": TEXT_METRICS}
    known = tuple(given.get(kind, NUMBER_METRICS if regression else CLASS_METRICS))
    known = (*SPAN_METRICS, *known) if scheme else known
    usual = "span_f1" if scheme else "accuracy"
    usual = {"answer": "f1", "translate": "chrf"}.get(kind, "pearson" if regression else usual)
    metric = metric or usual
    if metric not in known:
        what = "regression" if regression else kind
        raise UsageError(f"{what} has no metric {metric!r}", where="metric", do=f"choose one of {', '.join(known)}")
    if regression and kind not in ("classify", "pair"):
        raise UsageError("a number is predicted of a sequence, not of a token or a span", do="use classify or pair")
    if kind == "answer":
        return Task(kind, (), metric, scoring, threshold, legal=legal)
    if regression or kind == "translate":
        return Task(kind, (), metric, legal=legal)
    if len(labels) < 2:
        label = next(iter(labels), "")
        raise UsageError(f"all training labels are {label!r}", do="give examples of at least two classes")
    if metric == "positive_f1" and len(labels) != 2:
        do = "choose macro_f1, the mean over all labels"
        raise UsageError(f"positive_f1 is of two labels, the training data has {len(labels)}", where="metric", do=do)
    return Task(kind, labels, metric, scheme=scheme, legal=legal)


def draw(records: Sequence[Labelled], count: int | None, seed: int) -> list[Labelled]:
    """`count` of the records, drawn by the seed; all if None. A larger draw of a seed begins with its smaller one."""
    if count is None:
        return list(records)
    if not 1 <= count <= len(records):
        raise UsageError(f"cannot draw {count} of {len(records)} labelled sequences", where="labelled")
    return [records[i] for i in permuted(np.arange(count), len(records), mix(mix(np.uint64(0), seed), _SUBSET)[()])]


def notes_on_unseen(task: Task, records: Sequence[Labelled], name: str) -> list[str]:
    """What labels of judged data training never showed, how many, and where the first stands; [] if none."""
    known = set(task.labels)
    places = [(label, r.where) for r in records for label in r.labels if label not in known] if known else []
    if not places:
        return []
    first = dict(reversed(places))
    shown = ", ".join(f"{label!r} ({where})" for label, where in list(first.items())[:8])
    shown += ", ..." if len(first) > 8 else ""
    return [f"{len(places)} labels of the {name} data are unknown to the training data, and count as wrong: {shown}"]


def leaked(train: Sequence[Labelled], test: Sequence[Labelled]) -> int:
    """How many test sequences also stand in the training data, word for word."""
    seen = {record.units for record in train}
    return sum(record.units in seen for record in test)


def questions(records: Sequence[Labelled]) -> list[Question]:
    """The records of the task "answer", which are all questions."""
    return [record for record in records if isinstance(record, Question)]


def _spans(asked: Sequence[Question]) -> NDArray[np.int64]:
    for question in asked:
        if question.references is None:
            do = "give its answers (an empty list where the document has none), or use pluri predict"
            raise DataError("a question whose answer is not given", where=question.where, do=do)
    return np.array([question.spans[0] if question.spans else (-1, -1) for question in asked], np.int64).reshape(-1, 2)


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
