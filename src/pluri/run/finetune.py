"""Fine-tuning, evaluation and prediction: labelled files in, a model folder, results and predictions out."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import Field
from rich.console import Console

from pluri.checkpoints.adapters import save_adapter
from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Folder
from pluri.errors import DataError, UsageError
from pluri.models.heads import Model
from pluri.run.outputs import prediction_lines, write_answers, write_lines
from pluri.tasks.answer import AnswerExamples, Answering
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.compare import Comparison, compare
from pluri.tasks.encode import TaskExamples
from pluri.tasks.fit import Predictions, Tuning
from pluri.tasks.fit import predict as predict_units
from pluri.tasks.formats import read_labelled
from pluri.tasks.intervals import bootstrap
from pluri.tasks.questions import read_questions
from pluri.tasks.task import Kind, Labelled, Task, define_task, leaked
from pluri.tokens.tokenizer import Tokenizer

ANSWERING = "answering.toml"
"""The settings of answers, in a model folder."""


class FinetuneConfig(Tuning):
    """A fine-tuning run.

    task: "classify", a label (or, with `regression`, a number) a sequence; "tag", a label a token; "answer", a span of
        a document for a question.
    model: the folder of a pretrained model. output: becomes a model folder, with results.json and predictions.jsonl;
        of answers, with predictions.json, nbest_predictions.json, null_odds.json, and submission.csv for the course.
    train, validation, test: labelled files; without a test file results are measured on the validation file, which also
        chose the model, and are too good: results.json says so.
    labelled: use only so many training sequences, drawn anew by each seed. seeds: how many, or which.
    metric: accuracy, macro_f1, micro_f1 or mcc; pearson or spearman for regression; f1 or exact_match for answers.
    baselines: also the same model from a random start, frozen features, TF-IDF or character windows, the majority; for
        answers the random start alone.
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


class _File(NamedTuple):
    """The labelled sequences of a file. notes: what became of its answers. course: it has the course's format."""

    records: Sequence[Labelled]
    notes: list[str]
    course: bool


def finetune(config: FinetuneConfig, *, progress: bool = True) -> Results:
    """Runs it. Everything is read and checked before anything is trained; progress: say each result as it comes.

    DataError, UsageError: a file, a label or a setting cannot be used, or the output would replace a model that no
        fine-tuning made. CheckpointError: the model cannot be read.
    """
    seeds = list(range(config.seeds)) if isinstance(config.seeds, int) else config.seeds
    if not seeds:
        raise UsageError("at least one seed is needed", where="seeds")
    _check_output(config)
    train, validation = _read(config, config.train, learn=True), _read(config, config.validation)
    test = validation if config.test is None else _read(config, config.test)
    task = define_task(
        config.task,
        train.records,
        regression=config.regression,
        metric=config.metric,
        scoring=config.scoring,
        threshold=config.null_score_diff_threshold,
    )
    model, tokenizer = load_model(config.model, heads={task.kind: task.num_outputs})
    comparison = compare(
        model,
        tokenizer,
        task,
        train.records,
        validation.records,
        test.records,
        labelled=config.labelled,
        seeds=seeds,
        tuning=config,
        baselines=config.baselines,
        say=Console(stderr=True, quiet=not progress, highlight=False, markup=False).print,
    )
    results = _results(config, comparison, train, validation, test)
    # First what is small and took long: a disk that the model fills must not take it along.
    write_lines(config.output / "results.json", [json.dumps(asdict(results), ensure_ascii=False, indent=1)])
    best = comparison.best
    assert best.model is not None
    assert best.predictions is not None
    _save(config, best.model, tokenizer, task, best.threshold)
    save_adapter(config.output / "adapter", best.model, best.lora, base=config.model)
    if task.kind == "answer":
        null = best.threshold is not None
        write_answers(config.output, test.records, best.predictions, null=null, course=test.course)
    else:
        write_lines(config.output / "predictions.jsonl", prediction_lines(task, test.records, best.predictions))
    for note in results.notes:
        Console(stderr=True).print(note, style="yellow", highlight=False, markup=False)
    return results


def evaluate(
    model: str | Path,
    data: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    truncate: bool = False,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Every metric of a fine-tuned model on labelled data, each with its 95% bootstrap interval over the sequences.

    settings: of answers, "name=value" for a field of `Answering`; by default as in fine-tuning.
    Returns {"accuracy": ..., "accuracy_low": ..., "accuracy_high": ..., ..., "sequences": how many}; of answers also
    "scoring": by whose rules, "words" (SQuAD) or "characters" (CMRC and DRCD).
    """
    tuned = _load(model, settings)
    records = read_labelled(data, tuned.task.kind, text_column=text_column, label_column=label_column)
    tuned.task.targets(records)  # an unknown label is found before the work, not after
    outcome = tuned.task.outcome(records, tuned.say(records, truncate).values)
    found: dict[str, Any] = {}
    for metric in outcome.metrics:
        interval = bootstrap([outcome], metric)
        found |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    found["sequences"] = len(records)
    return found | ({"scoring": outcome.scoring} if isinstance(outcome, AnswerOutcome) else {})


def predict(
    model: str | Path,
    data: str,
    output: str | Path,
    *,
    text_column: str = "text",
    truncate: bool = False,
    settings: Sequence[str] = (),
) -> int:
    """Writes a line of JSON for each sequence of `data`, in order, and returns how many.

    {"text", "label", "score"}; {"text", "label"} for a number; {"tokens", "tags", "scores"} for tags. A score is the
    probability that the model gives its answer. Labels in `data` are not needed, and not read. UsageError: the output
    is the input.
    Of answers, `output` is a folder: predictions.json, nbest_predictions.json, null_odds.json, and submission.csv if
    `data` has the course's format. settings: as in `evaluate`.
    """
    if Path(data).exists() and Path(output).exists() and Path(output).samefile(data):
        raise UsageError("the predictions would replace the input", where=str(output), do="choose another output")
    tuned = _load(model, settings)
    if tuned.task.kind == "answer":
        found = read_questions(data, answers=False)
        said, null = tuned.say(found.records, truncate), tuned.task.threshold is not None
        write_answers(Path(output), found.records, said, null=null, course=found.course)
        return len(found.records)
    records = read_labelled(data, tuned.task.kind, labels=False, text_column=text_column)
    write_lines(Path(output), prediction_lines(tuned.task, records, tuned.say(records, truncate)))
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


def _read(config: FinetuneConfig, file: str, *, learn: bool = False) -> _File:
    """learn: leave out the questions that nothing can be learnt from."""
    if config.task != "answer":
        text, label = config.text_column, config.label_column
        return _File(read_labelled(file, config.task, text_column=text, label_column=label), [], False)
    found = read_questions(file)
    return _File(found.learnable if learn else found.records, found.notes(), found.course)


@dataclass(frozen=True, slots=True)
class _Tuned:
    """A fine-tuned model, and the task that its folder tells."""

    model: Model
    tokenizer: Tokenizer
    task: Task
    settings: Answering

    def say(self, records: Sequence[Labelled], truncate: bool) -> Predictions:
        config = self.model.config
        if self.task.kind == "answer":
            kinds = config.token_types
            examples = AnswerExamples(
                records, self.tokenizer, length=config.max_length, settings=self.settings, token_types=kinds
            )
        else:
            examples = TaskExamples(records, self.task, self.tokenizer, length=config.max_length, truncate=truncate)
        return predict_units(self.model, self.task, examples)


def _load(folder: str | Path, settings: Sequence[str]) -> _Tuned:
    """UsageError if the model was not fine-tuned."""
    described = read_config(folder)
    kind = next((kind for kind in get_args(Kind) if kind in described.heads), None)
    if kind is None:
        raise UsageError("this model was not fine-tuned", where=str(folder), do="run pluri finetune first")
    if settings and kind != "answer":
        raise UsageError(f"a model of the task {kind} has no settings", where=settings[0], do="leave them out")
    kept = Path(folder) / ANSWERING
    answering = Answering.load(kept if kept.exists() else None, list(settings))
    regression = described.problem == "regression"
    labels = () if regression else tuple(described.labels or ())
    metric = "f1" if kind == "answer" else "pearson" if regression else "accuracy"
    model, tokenizer = load_model(folder)
    task = Task(kind, labels, metric, answering.scoring, answering.null_score_diff_threshold)
    return _Tuned(model, tokenizer, task, answering)


def _results(config: FinetuneConfig, comparison: Comparison, train: _File, validation: _File, test: _File) -> Results:
    task, notes, leaks = comparison.task, [*train.notes, *validation.notes], {}
    if config.test is None:
        notes.append("results are measured on the validation data, which also chose the model: expect less on new data")
    else:
        notes += test.notes
    for name, file in {"validation": validation, "test": test}.items():
        leaks[name] = leaked(train.records, file.records) if name == "validation" or config.test else 0
        if leaks[name]:
            notes.append(f"{leaks[name]} of {len(file.records)} {name} sequences also stand in the training data")
    leaks["validation and test"] = leaked(validation.records, test.records) if config.test else 0
    cut = {name: count for name, count in comparison.truncated.items() if count}
    what = "questions were longer than max_question_length" if task.kind == "answer" else "texts were longer"
    limit = "" if task.kind == "answer" else " than the model reads"
    notes += [f"{count} {name} {what}{limit}, and were cut" for name, count in cut.items()]
    outcome = comparison.best.outcome
    if isinstance(outcome, AnswerOutcome):
        notes += _notes_on_answers(config, comparison, outcome)
    others = [metric for metric in outcome.metrics if metric not in (task.metric, "micro_f1")]
    return Results(
        rows=comparison.rows([task.metric, *others]),
        labels=list(task.labels),
        confusion=comparison.confusion(),
        measured_on="validation" if config.test is None else "test",
        leaks=leaks,
        notes=notes,
    )


def _notes_on_answers(config: FinetuneConfig, comparison: Comparison, outcome: AnswerOutcome) -> list[str]:
    rules = {"words": "words, as SQuAD's scripts do", "characters": "characters, as the scripts of CMRC and DRCD do"}
    notes = [f"exact match and F1 compare {rules[outcome.scoring]}"]
    if config.baselines:
        notes.append("frozen features, TF-IDF and the majority predict labels, not spans: they are not in the table")
    threshold = comparison.best.threshold
    if threshold is not None:
        chosen = "given" if config.null_score_diff_threshold is not None else "chosen on the validation data"
        notes.append(f"no answer is given where it scores more than {threshold:.3f} above the best span ({chosen})")
    elif not outcome.answerable.all():
        notes.append("every question gets an answer: no validation question is unanswerable, so no threshold is known")
    return notes


def _save(config: FinetuneConfig, model: Model, tokenizer: Tokenizer, task: Task, threshold: float | None) -> None:
    problem = None
    if task.kind == "classify":
        problem = "regression" if task.regression else "single_label_classification"
    save_model(config.output, model, tokenizer, labels=task.labels or None, problem=problem)
    if task.kind == "answer":
        kept = config.model_dump(include=set(Answering.model_fields), exclude_none=True)
        kept |= {} if threshold is None else {"null_score_diff_threshold": threshold}
        write_lines(config.output / ANSWERING, [f"{name} = {json.dumps(value)}" for name, value in kept.items()])
