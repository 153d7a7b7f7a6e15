"""Fine-tuning: labelled files in, a model folder, results and predictions out."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field
from rich.console import Console

from pluri.checkpoints.adapters import save_adapter
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Folder
from pluri.errors import DataError, UsageError
from pluri.models.heads import Model
from pluri.run.command import finetune_command
from pluri.run.mistakes import write_mistakes
from pluri.run.outputs import prediction_lines, write_answers, write_curves, write_lines
from pluri.run.predict import ANSWERING, WINDOWS
from pluri.run.spans import keep_tagging, notes_on_spans
from pluri.runtime import rank
from pluri.tasks.answer import Answering
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.compare import Comparison, Symbols, compare, parts_of
from pluri.tasks.fit import Tuning
from pluri.tasks.formats import PAIR, read_labelled
from pluri.tasks.metrics import Measured, Outcomes
from pluri.tasks.questions import read_questions
from pluri.tasks.task import Kind, Labelled, Task, define_task, draw, leaked, notes_on_unseen
from pluri.tokens.symbols import meanings
from pluri.tokens.tokenizer import Tokenizer
from pluri.training.parallel import joined

Count = Annotated[int, Field(ge=1)]
Files = str | Annotated[dict[str, str], Field(min_length=1)]


class FinetuneConfig(Tuning):
    """A fine-tuning run.

    task: "classify", a label (or, with `regression`, a number) a sequence; "pair", the same of two sequences; "tag", a
        label a token; "answer", a span of a document for a question; "translate", a text for a text.
    model: the folder of a pretrained model. output: becomes a model folder, with results.json, curves.jsonl (how each
        fine-tuning went) and predictions.jsonl; of answers, with predictions.json, nbest_predictions.json,
        null_odds.json, mistakes.json, and submission.csv for the course.
    train, validation, test: labelled files, or several by name, {en = "en.json", zh = "zh.json"}: to learn from all of
        them, and to be judged on each by itself, in rows that have its name as `test`; then no predictions are written.
        Without a test file results are measured on the validation file, which also chose the model, and are too good:
        results.json says so.
    labelled: use only so many training sequences, drawn anew by each seed. Of several counts each is tried; the model
        that is kept is of the largest. seeds: how many, or which.
    metric: accuracy, macro_f1, micro_f1, mcc, or with two labels positive_f1, the F1 of the later one (numbers by
        value, others by characters); pearson or spearman for regression; f1 or exact_match for answers;
        where tags spell spans also span_f1, which is the default there, span_precision or span_recall; of texts chrf,
        bleu, rouge1, rouge2, rougeL or exact_match.
    regression: the label is a number. legal: predict only sequences of tags that their scheme of spans allows.
    baselines: also the same model from a random start, frozen features, TF-IDF or character windows, the majority; for
        answers the random start alone; for texts that, and the source copied.
    static_vectors: a file of word vectors (text of word2vec or GloVe), for one more baseline: regression on their
        mean, or for tags on a word's and its neighbours'.
    qanet: also answer by a QANet with so many blocks in its model encoder (published: 7), from a random start and with
        as many passes over the training data as the others; 0 = leave it out.
    symbols: for foreign sequences and a model of text, "random words": each symbol (of DNA and protein a letter, else
        what stands between blanks, or a character) is read as one of the model's words, drawn anew by each seed.
    own: the folder of another model, pretrained on such sequences, which is fine-tuned beside it.
    text_column, pair_columns, label_column: where a table keeps the text, the two sequences of a pair, the label.
    """

    verbatim: ClassVar[tuple[str, ...]] = (*Tuning.verbatim, "train", "validation", "test")

    task: Kind
    model: Folder
    train: Files
    validation: Files
    test: Files | None = None
    output: Folder
    labelled: Count | Annotated[list[Count], Field(min_length=1)] | None = None
    seeds: int | list[Annotated[int, Field(ge=0, lt=2**63)]] = 3
    metric: str | None = None
    legal: bool = False
    regression: bool = False
    baselines: bool = True
    qanet: int = Field(default=0, ge=0, strict=True)
    static_vectors: str | None = None
    symbols: Symbols | None = None
    own: Folder | None = None
    text_column: str = "text"
    pair_columns: tuple[str, str] = PAIR
    label_column: str = "label"


@dataclass(frozen=True, slots=True)
class Results:
    """What results.json holds. rows: one a method, seed and metric. notes: what a reader must know to believe them.

    leaks: how many sequences of one file also stand in another, word for word. command: what does the same again.
    """

    rows: list[dict[str, Any]]
    labels: list[str]
    confusion: dict[str, Any]
    measured_on: str
    leaks: dict[str, int]
    notes: list[str]
    command: str = ""


class _File(NamedTuple):
    """The labelled sequences of a file. notes: what became of its answers. course: it has the course's format."""

    records: Sequence[Labelled]
    notes: list[str]
    course: bool


@joined()
def finetune(config: FinetuneConfig, *, progress: bool = True) -> Results:
    """Runs it. Everything is read and checked before anything is trained.

    progress: say how far it is, and each result as it comes.
    DataError, UsageError: a file, a label or a setting cannot be used, or the output would replace a model that no
        fine-tuning made. CheckpointError: the model cannot be read.
    """
    seeds = list(range(config.seeds)) if isinstance(config.seeds, int) else config.seeds
    if not seeds:
        raise UsageError("at least one seed is needed", where="seeds")
    _check_output(config)
    train, validation = _read(config, config.train, learn=True), _read(config, config.validation)
    test = validation if config.test is None else _read(config, config.test, judged=True)
    task = define_task(
        config.task,
        train.records,
        regression=config.regression,
        metric=config.metric,
        scoring=config.scoring,
        threshold=config.null_score_diff_threshold,
        legal=config.legal,
    )
    counts = _counts(config, train.records)
    model, tokenizer = load_model(config.model, heads=None if task.kind == "translate" else task.heads(0))
    if task.kind == "translate" and not model.config.decoder_layers:
        do = "take a BART, or pretrain one with objective.denoise"
        raise UsageError(f"{model.config.family} has no decoder beside an encoder", where=str(config.model), do=do)
    own = load_model(config.own, heads=task.heads(0)) if config.own else None
    comparisons = compare(
        model,
        tokenizer,
        task,
        train.records,
        validation.records,
        test.records,
        labelled=counts,
        seeds=seeds,
        tuning=config,
        baselines=config.baselines,
        static_vectors=config.static_vectors,
        qanet=config.qanet,
        symbols=config.symbols,
        own=own,
        say=Console(stderr=True, quiet=rank() > 0, highlight=False, markup=False).print if progress else None,
    )
    results = _results(config, comparisons, train, validation, test)
    best = comparisons[-1].best
    if config.symbols and best.tokenizer is not None:
        said = meanings(best.tokenizer, tokenizer)
        tokenizer = best.tokenizer
        shown = ", ".join(f"{symbol} = {word!r}" for symbol, word in islice(said.items(), 8))
        what = f"each symbol is read as a word of the model's, drawn by each seed; seed {best.seed}: {shown}"
        results.notes.append(f"{what}{', ...' * (len(said) > 8)}")
    if rank() > 0:
        return results
    # First what is small and took long: a disk that the model fills must not take it along.
    write_lines(config.output / "results.json", [json.dumps(asdict(results), ensure_ascii=False, indent=1)])
    write_curves(config.output, comparisons)
    assert best.model is not None
    assert best.predictions is not None
    _save(config, best.model, tokenizer, task, best.threshold)
    save_adapter(config.output / "adapter", best.model, best.lora, base=config.model)
    if isinstance(best.outcome, AnswerOutcome):
        null = best.threshold is not None
        write_answers(config.output, test.records, best.predictions, null=null, course=test.course)
        write_mistakes(config.output, test.records, best.predictions, best.outcome, best.model, tokenizer)
    elif not isinstance(best.outcome, Outcomes):  # ids may be the same in every file: `predict` writes those of one
        write_lines(config.output / "predictions.jsonl", prediction_lines(task, test.records, best.predictions))
    for note in results.notes:
        Console(stderr=True).print(note, style="yellow", highlight=False, markup=False)
    return results


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


def _counts(config: FinetuneConfig, train: Sequence[Labelled]) -> list[int | None]:
    """How many labelled sequences to train on, rising; None: all. UsageError if there are not so many."""
    if config.labelled is None:
        return [None]
    counts = sorted({config.labelled} if isinstance(config.labelled, int) else set(config.labelled))
    draw(train, counts[-1], 0)
    return [*counts]


def _read(config: FinetuneConfig, files: Files, *, learn: bool = False, judged: bool = False) -> _File:
    """learn: leave out the questions that nothing can be learnt from. judged: each of several files by itself."""
    if isinstance(files, dict):
        each = {name: _read(config, file, learn=learn) for name, file in files.items()}
        records = [
            replace(record, part=name if judged else "") for name, file in each.items() for record in file.records
        ]
        return _File(records, [note for file in each.values() for note in file.notes], False)
    file = files
    if config.task != "answer":
        names: dict[str, Any] = config.model_dump(include={"text_column", "pair_columns", "label_column"})
        return _File(read_labelled(file, config.task, **names), [], False)
    found = read_questions(file)
    return _File(found.learnable if learn else found.records, found.notes(), found.course)


def _results(
    config: FinetuneConfig, comparisons: Sequence[Comparison], train: _File, validation: _File, test: _File
) -> Results:
    comparison = comparisons[-1]  # of the most labels, whose model is kept
    task, notes, leaks = comparison.task, [*train.notes, *validation.notes], {}
    if config.test is None:
        notes.append("results are measured on the validation data, which also chose the model: expect less on new data")
    else:
        notes += test.notes
    for name, file in {"validation": validation, "test": test}.items():
        if name == "validation" or config.test:
            notes += notes_on_unseen(task, file.records, name)
        leaks[name] = leaked(train.records, file.records) if name == "validation" or config.test else 0
        if leaks[name]:
            notes.append(f"{leaks[name]} of {len(file.records)} {name} sequences also stand in the training data")
    leaks["validation and test"] = leaked(validation.records, test.records) if config.test else 0
    cut = {name: count for name, count in comparison.truncated.items() if count}
    limit = "were longer than the model reads"
    what = {"answer": "questions were longer than max_question_length", "pair": f"pairs {limit}"}
    if task.kind == "translate" and config.baselines:
        notes.append("frozen features, TF-IDF and the majority predict labels, not texts: they are not in the table")
    notes += [f"{n} {name} {what.get(task.kind, f'texts {limit}')}, and were cut" for name, n in cut.items()]
    if comparison.coverage is not None:
        notes.append(f"{comparison.coverage:.1%} of the words judged on have a vector in {config.static_vectors}")
    outcome = comparison.best.outcome
    if task.kind == "answer":
        notes += _notes_on_answers(config, comparison, outcome)
    if "positive_f1" in outcome.metrics:
        notes.append(f"positive_f1 is the F1 of the label {task.labels[-1]!r} alone")
    if comparison.best.predictions is not None:
        files = {"training": train.records, "validation": validation.records}
        files |= {"test": test.records} if config.test else {}
        notes += notes_on_spans(task, files, test.records, comparison.best.predictions.values)
    others = [metric for metric in outcome.metrics if metric not in (task.metric, "micro_f1")]
    return Results(
        rows=[row for one in comparisons for row in one.rows([task.metric, *others])],
        labels=list(task.labels),
        confusion=comparison.confusion(),
        measured_on="validation" if config.test is None else "test",
        leaks=leaks,
        notes=notes,
        command=finetune_command(config),
    )


def _notes_on_answers(config: FinetuneConfig, comparison: Comparison, outcome: Measured) -> list[str]:
    rules = {"words": "words, as SQuAD's scripts do", "characters": "characters, as the scripts of CMRC and DRCD do"}
    parts = {name: part for name, part in parts_of(outcome).items() if isinstance(part, AnswerOutcome)}
    notes = []
    for scoring, rule in rules.items():
        names = [name for name, part in parts.items() if part.scoring == scoring]
        if names:
            notes.append(f"exact match and F1 compare {rule}" + (f" ({', '.join(names)})" if len(parts) > 1 else ""))
    if config.baselines:
        notes.append("frozen features, TF-IDF and the majority predict labels, not spans: they are not in the table")
    if config.qanet:
        notes.append("QANet learnt its word vectors from the training data alone; as published it is given GloVe's")
    threshold = comparison.best.threshold
    if threshold is not None:
        chosen = "given" if config.null_score_diff_threshold is not None else "chosen on the validation data"
        notes.append(f"no answer is given where it scores more than {threshold:.3f} above the best span ({chosen})")
    elif not all(part.answerable.all() for part in parts.values()):
        notes.append("every question gets an answer: no validation question is unanswerable, so no threshold is known")
    return notes


def _save(config: FinetuneConfig, model: Model, tokenizer: Tokenizer, task: Task, threshold: float | None) -> None:
    problem = None
    if task.head == "classify":
        problem = "regression" if task.regression else "single_label_classification"
    kind = "pair" if task.kind == "pair" else None
    save_model(config.output, model, tokenizer, labels=task.labels or None, problem=problem, task=kind)
    keep_tagging(config.output, task)
    (config.output / WINDOWS).unlink(missing_ok=True)  # of an earlier run
    if config.window_overlap is not None:
        write_lines(config.output / WINDOWS, [f"window_overlap = {config.window_overlap}"])
    if task.kind == "answer":
        kept = config.model_dump(include=set(Answering.model_fields), exclude_none=True)
        kept |= {} if threshold is None else {"null_score_diff_threshold": threshold}
        write_lines(config.output / ANSWERING, [f"{name} = {json.dumps(value)}" for name, value in kept.items()])
