"""One table: the fine-tuned model beside the same model from a random start and simple baselines, over seeds."""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.models.lora import Lora
from pluri.tasks.fit import Predictions, Split, Tuning, fit, predict, settled, with_new_head
from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import Measured, Outcome
from pluri.tasks.task import Labelled, Targets, Task, draw
from pluri.tokens.tokenizer import Tokenizer

PRETRAINED, RANDOM_START, FROZEN, MAJORITY = "pretrained", "random start", "frozen features", "majority"
TFIDF, TFIDF_RIDGE = "TF-IDF + logistic regression", "TF-IDF + ridge regression"
WINDOWS = "character windows + linear"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One method on one seed. model, predictions: of the fine-tuned ones. validation: what the method was chosen by.

    threshold: of answers, what validation made of the task's. lora: the adapters that are merged into the model.
    """

    method: str
    seed: int
    outcome: Measured
    validation: float = math.nan
    model: Model | None = None
    predictions: Predictions | None = None
    threshold: float | None = None
    lora: Lora | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one number of labelled sequences.

    truncated: texts (of answers, questions) that were cut, by the name of the data.
    best: the pretrained run whose validation was best: the only one that keeps its model.
    """

    task: Task
    name: str
    labelled: int
    truncated: dict[str, int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Adds a run; of the fine-tuned models only the best so far is kept."""
        if run.model is not None and any(other.model is not None for other in self.runs):
            if run.validation > self.best.validation:
                self.runs[self.runs.index(self.best)] = replace(self.best, model=None)
            else:
                run = replace(run, model=None)
        self.runs.append(run)

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
    name: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Fine-tunes on `labelled` of the training sequences, drawn anew by each seed, and judges everything on `test`.

    model: pretrained; it is copied, not changed. labelled: None uses all.
    baselines: False leaves only the pretrained model. Answers are compared with a random start alone: frozen features,
        TF-IDF and the majority predict labels, not spans. The random start learns all of its weights, whatever
        `tuning` says of the pretrained model's (`Adaptation.of_random_start`).
    name: of the task, in the rows. say: is told of each run when it is done.
    """
    tuning = tuning or Tuning()
    tuning.check(model.config)
    task.targets(train)  # an unusable label or a missing package stops the work before it begins
    if baselines and task.kind != "answer":
        _scikit_learn()
    make: dict[str, Any] = {"task": task, "tokenizer": tokenizer}
    make |= {"length": model.config.max_length, "truncate": tuning.truncate}
    make |= {"settings": tuning, "token_types": model.config.token_types}
    held_out, asked = Split.of(validation, **make), Split.of(test, **make)
    truncated = {"validation": held_out.encoded.truncated, "test": asked.encoded.truncated}
    result = Comparison(task, name or task.kind, labelled or len(train), truncated)
    for seed in seeds:
        drawn = Split.of(draw(train, labelled, seed), **make)
        result.truncated["training"] = drawn.encoded.truncated
        for run in _runs(model, task, drawn, held_out, asked, seed, tuning, baselines):
            result.add(run)
            if say:
                value = run.outcome.value(task.metric)
                say(f"{run.method}, {result.labelled} labelled, seed {seed}: {task.metric} {value:.3f}")
    return result


def _runs(
    model: Model, task: Task, train: Split, validation: Split, test: Split, seed: int, tuning: Tuning, baselines: bool
) -> Iterator[Run]:
    """Every method on one draw of the training data."""
    for method in (PRETRAINED, RANDOM_START) if baselines else (PRETRAINED,):
        known = method == PRETRAINED
        tuned = with_new_head(model, task, seed, fresh=not known, dropout=tuning.dropout)
        how = tuning if known else tuning.of_random_start()
        trained = fit(tuned, task, train, validation, how, seed=seed)
        final = settled(task, trained.best)
        said = predict(tuned, final, test.encoded)
        outcome = task.outcome(test.records, said.values)
        kept = tuned if known else None
        yield Run(method, seed, outcome, trained.best[task.metric], kept, said, final.threshold, trained.lora)
    if baselines and task.kind != "answer":
        for method, values in _baselines(model, task, train, validation, test):
            yield Run(method, seed, task.outcome(test.records, values))


def _baselines(model: Model, task: Task, train: Split, validation: Split, test: Split) -> Iterator[tuple[str, Targets]]:
    simple = _scikit_learn()
    yield FROZEN, simple.frozen(task, model, train, validation, test)
    records = (train.records, validation.records, test.records)
    if task.kind == "tag":
        yield WINDOWS, simple.windows(task, *records)
    else:
        yield TFIDF_RIDGE if task.regression else TFIDF, simple.tfidf(task, *records)
    yield MAJORITY, simple.majority(task, train.records, test.records)


def _scikit_learn() -> ModuleType:
    """The module of the baselines, which alone needs scikit-learn. UsageError if that is not installed."""
    try:
        return importlib.import_module("pluri.tasks.baselines")
    except ImportError:
        raise UsageError(
            "the baselines need scikit-learn", do="pip install 'pluri[baselines]', or set baselines = false"
        ) from None
