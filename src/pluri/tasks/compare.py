"""One table: the fine-tuned model beside the same model from a random start and simple baselines, over seeds."""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.models.lora import Lora
from pluri.tasks.curves import curve
from pluri.tasks.fit import Fresh, Tuning, fit, with_new_head
from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import Measured, Outcome, Outcomes
from pluri.tasks.predictions import Predictions, predict, settled
from pluri.tasks.qanet import answered_by_qanet
from pluri.tasks.reading import Reader, Splits
from pluri.tasks.static import StaticVectors, read_vectors, words_of
from pluri.tasks.task import Labelled, Targets, Task, draw
from pluri.tokens.symbols import random_words
from pluri.tokens.tokenizer import Tokenizer

RESET, OWN = "embeddings reset", "own pretraining"
PRETRAINED, RANDOM_START, FROZEN, MAJORITY = "pretrained", "random start", "frozen features", "majority"
COPIED = "source copied"
Symbols = Literal["random words"]
TFIDF, TFIDF_RIDGE = "TF-IDF + logistic regression", "TF-IDF + ridge regression"
WINDOWS, PLACES = "character windows + linear", "letters at their places + linear"
QANET = "QANet"
STATIC, STATIC_RIDGE = "static vectors + logistic regression", "static vectors + ridge regression"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One method on one seed. model, predictions: of the fine-tuned ones. validation: what the method was chosen by.

    threshold: of answers, what validation made of the task's. lora: the adapters that are merged into the model.
    curve: of the fine-tuned ones, how training went, see `pluri.tasks.curves`. tokenizer: what the model reads with.
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
    tokenizer: Tokenizer | None = None


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
        together: all rows of a method share it. test: which of several test sets; without it, there is one.
        """
        rows = []
        for metric in metrics or (self.task.metric,):
            for method in dict.fromkeys(run.method for run in self.runs):
                runs = [run for run in self.runs if run.method == method]
                about = {"task": self.name, "method": method, "labelled": self.labelled}
                for test in parts_of(runs[0].outcome):
                    outcomes = [parts_of(run.outcome)[test] for run in runs]
                    interval = bootstrap(outcomes, metric)
                    on = {**about, "test": test} if test else about
                    span = {"low": interval.low, "high": interval.high}
                    for run, outcome in zip(runs, outcomes, strict=True):
                        value = outcome.value(metric)
                        rows.append({**on, "seed": run.seed, "metric": metric, "value": value, **span})
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
        return {"labels": [*self.task.labels, *outcome.unseen], "matrix": outcome.confusion().tolist()}


def parts_of(outcome: Measured) -> Mapping[str, Measured]:
    """Of several test sets each by its name; a single one by ""."""
    return outcome.parts if isinstance(outcome, Outcomes) else {"": outcome}


def compare(
    model: Model,
    tokenizer: Tokenizer,
    task: Task,
    train: Sequence[Labelled],
    validation: Sequence[Labelled],
    test: Sequence[Labelled],
    *,
    labelled: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0,),
    tuning: Tuning | None = None,
    baselines: bool = True,
    static_vectors: str | None = None,
    qanet: int = 0,
    symbols: Symbols | None = None,
    own: tuple[Model, Tokenizer] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Comparison]:
    """Fine-tunes on so many of the training sequences, drawn anew by each seed, and judges everything on `test`.

    model: pretrained; it is copied, not changed.
    labelled: how many; None is all. Each has its comparison, of which only the last keeps a model.
    baselines: False leaves only the pretrained model. Answers are compared with a random start alone: frozen features,
        TF-IDF and the majority predict labels, not spans. Translations are compared with a random start and with their
        sources as they stand. The random start learns all of its weights, whatever
        `tuning` says of the pretrained model's (`Adaptation.of_random_start`).
    static_vectors: a file of word vectors (see `read_vectors`), for one more baseline.
    qanet: blocks of a QANet that answers, too (see pluri.tasks.qanet); 0 = none.
    symbols: "random words" reads each symbol as a word of the model's, other ones with each seed (see `random_words`);
        among the baselines is then the model with its token embeddings from initial values.
    own: another model with its tokenizer, pretrained on such sequences, to be fine-tuned beside it.
    say: is told of each run when it is done; while one is going on, stderr shows how far it is.
    """
    if qanet and task.kind != "answer":
        raise UsageError(f"QANet answers questions, the task is {task.kind}", where="qanet", do="leave it out")
    tuning = tuning or Tuning()
    tuning.check(model.config)
    if tuning.window_overlap is not None and task.kind not in ("classify", "tag"):
        do = "set doc_stride" if task.kind == "answer" else "leave it out"
        raise UsageError(f"the task {task.kind} is not read in windows", where="window_overlap", do=do)
    if tuning.reverse_complement and task.kind not in ("classify", "tag"):
        what = f"the task {task.kind} is not read from either strand"
        raise UsageError(what, where="reverse_complement", do="leave it out")
    if (symbols or own) and not task.labels_units:
        where = "symbols" if symbols else "own"
        raise UsageError(f"the task {task.kind} is about text", where=where, do="leave it out")
    task.targets(train)  # an unusable label or a missing package stops the work before it begins
    if baselines and task.labels_units:
        _scikit_learn()
    vectors = None
    if static_vectors is not None:
        if not baselines or not task.labels_units:
            what = f"the task {task.kind} has no such baseline" if baselines else "baselines = false leaves no baseline"
            raise UsageError(what, where="static_vectors", do="leave it out")
        words = (word for record in (*train, *validation, *test) for word in words_of(task, record))
        vectors = read_vectors(static_vectors, words)
    about: tuple[Any, ...] = (task, tuning, validation, test)
    readers: dict[int, Reader] = {}
    beside = Reader.of(*own, *about) if own else None
    coverage = vectors.coverage(task, test) if vectors else None
    found: list[Comparison] = []
    for count in labelled:
        if found:
            found[-1].forget()
        found.append(Comparison(task, task.kind, count or len(train), coverage=coverage))
        for seed in seeds:
            drawn, shared = draw(train, count, seed), seed if symbols else seeds[0]
            if shared not in readers:
                reads = random_words(tokenizer, _texts(task, train), seed) if symbols else tokenizer
                readers[shared] = Reader.of(model, reads, *about)
            reader = readers[shared]
            splits = reader.splits(drawn, seed)
            parts = {"validation": splits.validation, "test": splits.test, "training": splits.train}
            found[-1].truncated.update((name, split.encoded.truncated) for name, split in parts.items())
            part = f"{found[-1].labelled} labelled, seed {seed}"
            shown = part if say else None
            others = (beside.model, beside.splits(drawn, seed)) if beside else None
            for run in _runs(reader, task, splits, seed, tuning, baselines, vectors, qanet, symbols, others, shown):
                found[-1].add(run)
                if say:
                    say(f"{run.method}, {part}: {task.metric} {run.outcome.value(task.metric):.3f}")
    return found


def _texts(task: Task, records: Sequence[Labelled]) -> list[str]:
    """What symbols are found in. A tag a letter is a text of letters."""
    if task.kind != "tag":
        return [text for record in records for text in record.units]
    letters = all(len(unit) == 1 for record in records for unit in record.units)
    return ["".join(r.units) if letters else " ".join(r.units) for r in records]


def _runs(
    reader: Reader,
    task: Task,
    splits: Splits,
    seed: int,
    tuning: Tuning,
    baselines: bool,
    vectors: StaticVectors | None,
    qanet: int,
    symbols: Symbols | None,
    own: tuple[Model, Splits] | None,
    shown: str | None,
) -> Iterator[Run]:
    """Every method on one draw of the training data. shown: what that is called in the progress; None shows none."""
    model = reader.model
    starts: dict[str, tuple[Model, Splits, Fresh]] = {PRETRAINED: (model, splits, False)}
    if own:
        starts[OWN] = (*own, False)
    if symbols and baselines:
        starts[RESET] = (model, splits, "embeddings")
    if baselines:
        starts[RANDOM_START] = (model, splits, True)
    for method, (start, read, fresh) in starts.items():
        how = tuning.of_random_start() if fresh else tuning
        progress = f"{method}, {shown}" if shown else None
        run = fine_tuned(method, start, task, read, seed, how, fresh=fresh, progress=progress)
        yield replace(run, tokenizer=reader.tokenizer) if method == PRETRAINED else run
    if baselines and task.kind == "translate":
        copies = np.array([record.units[0] for record in splits.test.records], object)
        yield Run(COPIED, seed, task.outcome(splits.test.records, copies))
    if baselines and task.labels_units:
        for method, values in _baselines(model, task, splits, vectors):
            yield Run(method, seed, task.outcome(splits.test.records, values))
    if qanet:
        length = model.config.max_length
        progress = f"{QANET}, {shown}" if shown else None
        budget: dict[str, Any] = {"blocks": qanet, "length": length, "seed": seed, "progress": progress}
        said = answered_by_qanet(task, *splits.records, tuning, **budget)
        yield Run(QANET, seed, *said)


def fine_tuned(
    method: str,
    start: Model,
    task: Task,
    splits: Splits,
    seed: int,
    tuning: Tuning,
    *,
    fresh: Fresh = False,
    progress: str | None = None,
) -> Run:
    """Fine-tunes a copy of `start` and judges it on the test. fresh: see `with_new_head`. progress: see `train`."""
    tuned = with_new_head(start, task, seed, fresh=fresh, dropout=tuning.dropout)
    trained = fit(tuned, task, splits.train, splits.validation, tuning, seed=seed, progress=progress)
    final = settled(task, trained.best)
    said = predict(tuned, final, splits.test.encoded, tuning)
    outcome = task.outcome(splits.test.records, said.values)
    kept = tuned if method == PRETRAINED else None
    points = curve(trained, task.metric)
    return Run(method, seed, outcome, trained.best[task.metric], kept, said, final.threshold, points, trained.lora)


def _baselines(
    model: Model, task: Task, splits: Splits, vectors: StaticVectors | None
) -> Iterator[tuple[str, Targets]]:
    simple = _scikit_learn()
    yield FROZEN, simple.frozen(task, model, *splits)
    if task.kind == "tag":
        yield WINDOWS, simple.windows(task, *splits.records)
    else:
        yield TFIDF_RIDGE if task.regression else TFIDF, simple.tfidf(task, *splits.records)
    if task.kind == "classify" and simple.of_one_length(r for part in splits.records for r in part):
        yield PLACES, simple.places(task, *splits.records)
    if vectors is not None:
        values = simple.regressed(task, lambda split: vectors.features(task, split.records), *splits)
        yield STATIC_RIDGE if task.regression else STATIC, values
    yield MAJORITY, simple.majority(task, splits.train.records, splits.test.records)


def _scikit_learn() -> ModuleType:
    """The module of the baselines, which alone needs scikit-learn. UsageError if that is not installed."""
    try:
        return importlib.import_module("pluri.tasks.baselines")
    except ImportError:
        raise UsageError(
            "the baselines need scikit-learn", do="pip install 'pluri[baselines]', or set baselines = false"
        ) from None
