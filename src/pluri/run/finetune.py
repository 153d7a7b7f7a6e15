"""Fine-tuning, evaluation and prediction: labelled files in, a model folder, results and predictions out."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field
from rich.console import Console

from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Folder
from pluri.errors import DataError, UsageError
from pluri.models.heads import Model
from pluri.tasks.compare import Comparison, compare
from pluri.tasks.encode import TaskExamples
from pluri.tasks.fit import Predictions, Tuning
from pluri.tasks.fit import predict as predict_units
from pluri.tasks.formats import read_labelled
from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import CLASS_METRICS, NUMBER_METRICS
from pluri.tasks.task import Kind, Labelled, Task, define_task, leaked
from pluri.tokens.tokenizer import Tokenizer


class FinetuneConfig(Tuning):
    """A fine-tuning run.

    task: "classify", a label (or, with `regression`, a number) a sequence; or "tag", a label a token.
    model: the folder of a pretrained model. output: becomes a model folder, with results.json and predictions.jsonl.
    train, validation, test: labelled files; without a test file results are measured on the validation file, which also
        chose the model, and are too good: results.json says so.
    labelled: use only so many training sequences, drawn anew by each seed. seeds: how many, or which.
    metric: accuracy, macro_f1, micro_f1 or mcc; pearson or spearman for regression.
    baselines: also the same model from a random start, frozen features, TF-IDF or character windows, the majority.
    """

    task: Kind
    model: Folder
    train: str
    validation: str
    test: str | None = None
    output: Folder
    labelled: int | None = Field(default=None, ge=1)
    seeds: int | list[Annotated[int, Field(ge=0, lt=2**63)]] = 3
    metric: str | None = None
    regression: bool = False
    baselines: bool = True
    text_column: str = "text"
    label_column: str = "label"


@dataclass(frozen=True, slots=True)
class Results:
    """What results.json holds. rows: one a method, seed and metric. notes: what a reader must know to believe them.

    leaks: how many sequences of one file also stand in another, word for word.
    """

    rows: list[dict[str, Any]]
    labels: list[str]
    confusion: dict[str, Any]
    measured_on: str
    leaks: dict[str, int]
    notes: list[str]


def finetune(config: FinetuneConfig, *, progress: bool = True) -> Results:
    """Runs it. Everything is read and checked before anything is trained; progress: say each result as it comes.

    DataError, UsageError: a file, a label or a setting cannot be used, or the output would replace a model that no
        fine-tuning made. CheckpointError: the model cannot be read.
    """
    seeds = list(range(config.seeds)) if isinstance(config.seeds, int) else config.seeds
    if not seeds:
        raise UsageError("at least one seed is needed", where="seeds")
    _check_output(config)
    train, validation = _read(config, config.train), _read(config, config.validation)
    test = validation if config.test is None else _read(config, config.test)
    task = define_task(config.task, train, regression=config.regression, metric=config.metric)
    model, tokenizer = load_model(config.model, heads={task.kind: task.num_outputs})
    comparison = compare(
        model,
        tokenizer,
        task,
        train,
        validation,
        test,
        labelled=config.labelled,
        seeds=seeds,
        tuning=config,
        baselines=config.baselines,
        say=Console(stderr=True, quiet=not progress, highlight=False, markup=False).print,
    )
    results = _results(config, comparison, train, validation, test)
    # First what is small and took long: a disk that the model fills must not take it along.
    _write_lines(config.output / "results.json", [json.dumps(asdict(results), ensure_ascii=False, indent=1)])
    best = comparison.best
    assert best.model is not None
    assert best.predictions is not None
    _save(config.output, best.model, tokenizer, task)
    _write_lines(config.output / "predictions.jsonl", _lines(task, test, best.predictions))
    for note in results.notes:
        Console(stderr=True).print(note, style="yellow", highlight=False, markup=False)
    return results


def evaluate(
    model: str | Path, data: str, *, text_column: str = "text", label_column: str = "label", truncate: bool = False
) -> dict[str, float]:
    """Every metric of a fine-tuned model on labelled data, each with its 95% bootstrap interval over the sequences.

    Returns {"accuracy": ..., "accuracy_low": ..., "accuracy_high": ..., ..., "sequences": how many}.
    """
    network, tokenizer, task = _load(model)
    records = read_labelled(data, task.kind, text_column=text_column, label_column=label_column)
    task.targets(records)  # an unknown label is found before the work, not after
    outcome = task.outcome(records, _predicted(network, tokenizer, task, records, truncate).values)
    found: dict[str, float] = {}
    for metric in NUMBER_METRICS if task.regression else CLASS_METRICS:
        interval = bootstrap([outcome], metric)
        found |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    return found | {"sequences": len(records)}


def predict(
    model: str | Path, data: str, output: str | Path, *, text_column: str = "text", truncate: bool = False
) -> int:
    """Writes a line of JSON for each sequence of `data`, in order, and returns how many.

    {"text", "label", "score"}; {"text", "label"} for a number; {"tokens", "tags", "scores"} for tags. A score is the
    probability that the model gives its answer. Labels in `data` are not needed, and not read. UsageError: the output
    is the input.
    """
    if Path(data).exists() and Path(output).exists() and Path(output).samefile(data):
        raise UsageError("the predictions would replace the input", where=str(output), do="choose another output")
    network, tokenizer, task = _load(model)
    records = read_labelled(data, task.kind, labels=False, text_column=text_column)
    _write_lines(Path(output), _lines(task, records, _predicted(network, tokenizer, task, records, truncate)))
    return len(records)


def _check_output(config: FinetuneConfig) -> None:
    """Now and not after hours of training: whether the output can be written, and replaces nothing but its like."""
    output = config.output.absolute()
    made_here = (output / "results.json").exists() and output.resolve() != config.model.resolve()
    if (output / "config.json").exists() and not made_here:
        do = "choose another output"
        raise UsageError("holds a model that this fine-tuning would replace", where=str(config.output), do=do)
    try:
        with tempfile.TemporaryFile(dir=next(place for place in (output, *output.parents) if place.exists())):
            pass
    except OSError as error:
        do = "choose another place"
        raise DataError(f"cannot be written: {error.strerror}", where=str(config.output), do=do) from None


def _read(config: FinetuneConfig, file: str) -> list[Labelled]:
    return read_labelled(file, config.task, text_column=config.text_column, label_column=config.label_column)


def _load(folder: str | Path) -> tuple[Model, Tokenizer, Task]:
    """A fine-tuned model and the task that its config.json tells. UsageError if it was not fine-tuned."""
    described = read_config(folder)
    kind = next((kind for kind in get_args(Kind) if kind in described.heads), None)
    if kind is None:
        raise UsageError("this model was not fine-tuned", where=str(folder), do="run pluri finetune first")
    regression = described.problem == "regression"
    labels = () if regression else tuple(described.labels or ())
    model, tokenizer = load_model(folder)
    return model, tokenizer, Task(kind, labels, "pearson" if regression else "accuracy")


def _predicted(
    model: Model, tokenizer: Tokenizer, task: Task, records: Sequence[Labelled], truncate: bool
) -> Predictions:
    examples = TaskExamples(records, task, tokenizer, length=model.config.max_length, truncate=truncate)
    return predict_units(model, task, examples)


def _results(
    config: FinetuneConfig,
    comparison: Comparison,
    train: Sequence[Labelled],
    validation: Sequence[Labelled],
    test: Sequence[Labelled],
) -> Results:
    task, notes, leaks = comparison.task, [], {}
    if config.test is None:
        notes.append("results are measured on the validation data, which also chose the model: expect less on new data")
    for name, records in {"validation": validation, "test": test}.items():
        leaks[name] = leaked(train, records) if name == "validation" or config.test else 0
        if leaks[name]:
            notes.append(f"{leaks[name]} of {len(records)} {name} sequences also stand in the training data")
    leaks["validation and test"] = leaked(validation, test) if config.test else 0
    cut = {name: count for name, count in comparison.truncated.items() if count}
    notes += [f"{count} {name} texts were longer than the model reads, and were cut" for name, count in cut.items()]
    others = [m for m in (NUMBER_METRICS if task.regression else CLASS_METRICS) if m not in (task.metric, "micro_f1")]
    return Results(
        rows=comparison.rows([task.metric, *others]),
        labels=list(task.labels),
        confusion=comparison.confusion(),
        measured_on="validation" if config.test is None else "test",
        leaks=leaks,
        notes=notes,
    )


def _save(folder: Path, model: Model, tokenizer: Tokenizer, task: Task) -> None:
    problem = None
    if task.kind == "classify":
        problem = "regression" if task.regression else "single_label_classification"
    save_model(folder, model, tokenizer, labels=None if task.regression else task.labels, problem=problem)


def _lines(task: Task, records: Sequence[Labelled], predictions: Predictions) -> Iterator[str]:
    """A line of JSON for each sequence; `gold` (or `gold_tags`) only where it is known."""
    first = 0
    for record in records:
        here = slice(first, first + len(record.units))
        first = here.stop
        values = predictions.values[here]
        scores = None if predictions.scores is None else [round(float(score), 4) for score in predictions.scores[here]]
        labels = [float(value) if task.regression else task.labels[int(value)] for value in values]
        if task.kind == "tag":
            line = {"tokens": record.units, "tags": labels, "scores": scores}
            line |= {"gold_tags": record.labels} if record.labels else {}
        else:
            line = {"text": record.units[0], "label": labels[0]}
            line |= {"score": scores[0]} if scores else {}
            line |= {"gold": record.labels[0]} if record.labels else {}
        yield json.dumps(line, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterator[str] | list[str]) -> None:
    """Through a temporary name, so that a crash leaves no half file. DataError if it cannot be written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), do="choose another place") from None
