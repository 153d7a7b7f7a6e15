"""One table: the fine-tuned model beside the same model from a random start and simple baselines, over seeds."""

import importlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.models.lora import Lora
from pluri.tasks.curves import curve
from pluri.tasks.fit import Predictions, Split, Tuning, fit, predict, settled, with_new_head
from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import Measured, Outcome
from pluri.tasks.qanet import answered_by_qanet
from pluri.tasks.static import StaticVectors, read_vectors, words_of
from pluri.tasks.task import Labelled, Targets, Task, draw
from pluri.tokens.tokenizer import Tokenizer

PRETRAINED, RANDOM_START, FROZEN, MAJORITY = "pretrained", "random start", "frozen features", "majority"
TFIDF, TFIDF_RIDGE = "TF-IDF + logistic regression", "TF-IDF + ridge regression"
WINDOWS = "character windows + linear"
QANET = "QANet"
STATIC, STATIC_RIDGE = "static vectors + logistic regression", "static vectors + ridge regression"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One method on one seed. model, predictions: of the fine-tuned ones. validation: what the method was chosen by.

    threshold: of answers, what validation made of the task's. lora: the adapters that are merged into the model.
    curve: of the fine-tuned ones, how training went, see `pluri.tasks.curves`.
    """

    method: str
    seed: int
    outcome: Measured
    validation: float = math.nan
    model: Model | None = None
    predictions: Predictions | None = None
    threshold: float | None = None
    curve: Sequence[dict[str, Any]] = ()
    lora: Lora | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one number of labelled sequences.

    truncated: texts (of answers, questions) that were cut, by the name of the data.
    coverage: the share of the test data's words that have a static vector, if such vectors were given.
    best: the pretrained run whose validation was best: the only one that keeps its model.
    """

    task: Task
    name: str
    labelled: int
    truncated: dict[str, int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    coverage: float | None = None

    def add(self, run: Run) -> None:
        """Adds a run; of the fine-tuned models only the best so far is kept."""
        if run.model is not None and any(other.model is not None for other in self.runs):
            if run.validation > self.best.validation:
                self.forget()
            else:
                run = replace(run, model=None)
        self.runs.append(run)

    def forget(self) -> None:
        """Lets the model go that is kept: a larger comparison keeps its own."""
        self.runs[self.runs.index(self.best)] = replace(self.best, model=None)

    @property
    def best(self) -> Run:
        return next(run for run in self.runs if run.model is not None)

    def rows(self, metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
        """A row for each method, seed and metric (the task's own by default), to be shown or written as JSON.

        low, high: the 95% interval of the method's mean over its seeds, with test sequences and seeds resampled
        together: all rows of a method share it.
        """
        rows = []
        for metric in metrics or (self.task.metric,):
            for method in dict.fromkeys(run.method for run in self.runs):
                runs = [run for run in self.runs if run.method == method]
                interval = bootstrap([run.outcome for run in runs], metric)
                about = {"task": self.name, "method": method, "labelled": self.labelled}
                span = {"low": interval.low, "high": interval.high}
                for run in runs:
                    value = run.outcome.value(metric)
                    rows.append({**about, "seed": run.seed, "metric": metric, "value": value, **span})
        return rows

    def curves(self) -> list[dict[str, Any]]:
        """The curve of every fine-tuning: a row for each of its points, with its method, seed and labelled."""
        return [
            {"method": run.method, "seed": run.seed, "labelled": self.labelled, **point}
            for run in self.runs
            for point in run.curve
        ]

    def confusion(self) -> dict[str, Any]:
        """{"labels", "matrix"} of the best pretrained run: row = true class, column = answer. Empty without classes."""
        outcome = self.best.outcome
        if not self.task.labels or not isinstance(outcome, Outcome):
            return {}
        return {"labels": list(self.task.labels), "matrix": outcome.confusion().tolist()}


def compare(
    model: Model,
    tokenizer: Tokenizer,
    task: Task,
    train: Sequence[Labelled],
    validation: Sequence[Labelled],
    test: Sequence[Labelled],
    *,
    labelled: int | None = None,
    seeds: Iterable[int] = (0,),
    tuning: Tuning | None = None,
    baselines: bool = True,
    static_vectors: str | None = None,
    qanet: int = 0,
    name: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Fine-tunes on `labelled` of the training sequences, drawn anew by each seed, and judges everything on `test`.

    model: pretrained; it is copied, not changed. labelled: None uses all.
    baselines: False leaves only the pretrained model. Answers are compared with a random start alone: frozen features,
        TF-IDF and the majority predict labels, not spans. The random start learns all of its weights, whatever
        `tuning` says of the pretrained model's (`Adaptation.of_random_start`).
    static_vectors: a file of word vectors (see `read_vectors`), for one more baseline.
    qanet: blocks of a QANet that answers, too (see pluri.tasks.qanet); 0 = none.
    name: of the task, in the rows. say: is told of each run when it is done.
    """
    if qanet and task.kind != "answer":
        raise UsageError(f"QANet answers questions, the task is {task.kind}", where="qanet", do="leave it out")
    tuning = tuning or Tuning()
    tuning.check(model.config)
    task.targets(train)  # an unusable label or a missing package stops the work before it begins
    if baselines and task.kind != "answer":
        _scikit_learn()
    vectors = None
    if static_vectors is not None:
        if not baselines or task.kind == "answer":
            what = "answers have no such baseline" if baselines else "baselines = false leaves no baseline"
            raise UsageError(what, where="static_vectors", do="leave it out")
        words = (word for record in (*train, *validation, *test) for word in words_of(task, record))
        vectors = read_vectors(static_vectors, words)
    make: dict[str, Any] = {"task": task, "tokenizer": tokenizer}
    make |= {"length": model.config.max_length, "truncate": tuning.truncate}
    make |= {"settings": tuning, "token_types": model.config.token_types}
    held_out, asked = Split.of(validation, **make), Split.of(test, **make)
    truncated = {"validation": held_out.encoded.truncated, "test": asked.encoded.truncated}
    coverage = vectors.coverage(task, test) if vectors else None
    result = Comparison(task, name or task.kind, labelled or len(train), truncated, coverage=coverage)
    for seed in seeds:
        drawn = Split.of(draw(train, labelled, seed), **make)
        result.truncated["training"] = drawn.encoded.truncated
        runs = _runs(model, task, drawn, held_out, asked, seed, tuning, baselines, qanet)
        for run in itertools.chain(runs, _static(vectors, task, drawn, held_out, asked, seed)):
            result.add(run)
            if say:
                value = run.outcome.value(task.metric)
                say(f"{run.method}, {result.labelled} labelled, seed {seed}: {task.metric} {value:.3f}")
    return result


def _runs(
    model: Model,
    task: Task,
    train: Split,
    validation: Split,
    test: Split,
    seed: int,
    tuning: Tuning,
    baselines: bool,
    qanet: int,
) -> Iterator[Run]:
    """Every method on one draw of the training data."""
    for method in (PRETRAINED, RANDOM_START) if baselines else (PRETRAINED,):
        fresh = method == RANDOM_START
        how = tuning.of_random_start() if fresh else tuning
        yield fine_tuned(method, model, task, train, validation, test, seed, how, fresh=fresh)
    if baselines and task.kind != "answer":
        for method, values in _baselines(model, task, train, validation, test):
            yield Run(method, seed, task.outcome(test.records, values))
    if qanet:
        records, length = (train.records, validation.records, test.records), model.config.max_length
        yield Run(QANET, seed, *answered_by_qanet(task, *records, tuning, blocks=qanet, length=length, seed=seed))


def fine_tuned(
    method: str,
    start: Model,
    task: Task,
    train: Split,
    validation: Split,
    test: Split,
    seed: int,
    tuning: Tuning,
    *,
    fresh: bool = False,
) -> Run:
    """Fine-tunes a copy of `start`, or with `fresh` the same model from a random start, and judges it on `test`."""
    tuned = with_new_head(start, task, seed, fresh=fresh, dropout=tuning.dropout)
    trained = fit(tuned, task, train, validation, tuning, seed=seed)
    final = settled(task, trained.best)
    said = predict(tuned, final, test.encoded)
    outcome = task.outcome(test.records, said.values)
    kept = tuned if method == PRETRAINED else None
    points = curve(trained, task.metric)
    return Run(method, seed, outcome, trained.best[task.metric], kept, said, final.threshold, points, trained.lora)


def _baselines(model: Model, task: Task, train: Split, validation: Split, test: Split) -> Iterator[tuple[str, Targets]]:
    simple = _scikit_learn()
    yield FROZEN, simple.frozen(task, model, train, validation, test)
    records = (train.records, validation.records, test.records)
    if task.kind == "tag":
        yield WINDOWS, simple.windows(task, *records)
    else:
        yield TFIDF_RIDGE if task.regression else TFIDF, simple.tfidf(task, *records)
    yield MAJORITY, simple.majority(task, train.records, test.records)


def _static(
    vectors: StaticVectors | None, task: Task, train: Split, validation: Split, test: Split, seed: int
) -> Iterator[Run]:
    if vectors is not None:
        method = STATIC_RIDGE if task.regression else STATIC
        values = _scikit_learn().regressed(
            task, lambda split: vectors.features(task, split.records), train, validation, test
        )
        yield Run(method, seed, task.outcome(test.records, values))


def _scikit_learn() -> ModuleType:
    """The module of the baselines, which alone needs scikit-learn. UsageError if that is not installed."""
    try:
        return importlib.import_module("pluri.tasks.baselines")
    except ImportError:
        raise UsageError(
            "the baselines need scikit-learn", do="pip install 'pluri[baselines]', or set baselines = false"
        ) from None
