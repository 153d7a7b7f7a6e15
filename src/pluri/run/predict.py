"""Evaluation and prediction with a fine-tuned model, as its folder tells of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.run.outputs import prediction_lines, write_answers, write_lines
from pluri.run.spans import kept_tagging
from pluri.runtime import rank
from pluri.tasks.answer import AnswerExamples, Answering
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.encode import TaskExamples
from pluri.tasks.formats import PAIR, read_labelled
from pluri.tasks.intervals import bootstrap
from pluri.tasks.long import Windows
from pluri.tasks.predictions import Predictions
from pluri.tasks.predictions import predict as predict_units
from pluri.tasks.questions import read_questions
from pluri.tasks.spans import Tagging
from pluri.tasks.task import Kind, Labelled, Task, notes_on_unseen
from pluri.tasks.translate import TextExamples, Writing
from pluri.tokens.tokenizer import Tokenizer
from pluri.training.parallel import joined

ANSWERING = "answering.toml"
"""The settings of answers, in a model folder."""

WINDOWS = "windows.toml"
"""How a model folder's own fine-tuning read what is longer than the model reads."""

_HEADS: tuple[Kind, ...] = ("classify", "tag", "answer")  # of fine-tuned models: the head "pair" is of pretrained ones


@joined()
def evaluate(
    model: str | Path,
    data: str,
    *,
    text_column: str = "text",
    pair_columns: tuple[str, str] = PAIR,
    label_column: str = "label",
    truncate: bool = False,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Every metric of a fine-tuned model on labelled data, each with its 95% bootstrap interval over the sequences.

    settings: "name=value" for a field of `Answering`, of tags `Tagging` (legal=true), of texts `Writing` (beams=1), of
        classes, numbers and tags `Windows` (window_overlap=32); by default as in fine-tuning.
    truncate: cut longer sequences, also where fine-tuning read them in windows.
    Returns {"accuracy": ..., "accuracy_low": ..., "accuracy_high": ..., ..., "sequences": how many}; of two labels also
    "positive": which one positive_f1 is of; of answers also "scoring": by whose rules, "words" (SQuAD) or "characters"
    (CMRC and DRCD); where there are any, "notes": labels that training never showed, questions left out.
    """
    tuned = _load(model, settings)
    columns: dict[str, Any] = {"text_column": text_column, "pair_columns": pair_columns, "label_column": label_column}
    notes: list[str] = []
    if tuned.task.kind == "answer":
        asked = read_questions(data)
        records, notes = asked.records, asked.left_out
    else:
        records = read_labelled(data, tuned.task.kind, **columns)
    tuned.task.knowing(records).targets(records)  # what is no number is found before the work, not after
    outcome = tuned.task.outcome(records, tuned.say(records, truncate).values)
    found: dict[str, Any] = {}
    for metric in outcome.metrics:
        interval = bootstrap([outcome], metric)
        found |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    found["sequences"] = len(records)
    if notes := notes + notes_on_unseen(tuned.task, records, "given"):
        found["notes"] = notes
    if "positive_f1" in outcome.metrics:
        found["positive"] = tuned.task.labels[-1]
    return found | ({"scoring": outcome.scoring} if isinstance(outcome, AnswerOutcome) else {})


@joined()
def predict(
    model: str | Path,
    data: str,
    output: str | Path,
    *,
    text_column: str = "text",
    pair_columns: tuple[str, str] = PAIR,
    truncate: bool = False,
    settings: Sequence[str] = (),
) -> int:
    """Writes a line of JSON for each sequence of `data`, in order, and returns how many.

    {"text", "label", "score"}, of pairs with "sentence1" and "sentence2" instead; no "score" of a number; {"tokens",
    "tags", "scores"} for tags, with "spans" where they spell any: {"type", "start", "end", "text"}, of tokens, the end
    exclusive; {"source", "target"} of translations. First comes "id" where `data` gives one. A score is the probability
    that the model gives its answer. Labels in `data` are not needed, and not read. UsageError: the output is the input.
    Of answers, `output` is a folder: predictions.json, nbest_predictions.json, null_odds.json, and submission.csv if
    `data` has the course's format. settings: as in `evaluate`.
    """
    if Path(data).exists() and Path(output).exists() and Path(output).samefile(data):
        raise UsageError("the predictions would replace the input", where=str(output), do="choose another output")
    tuned = _load(model, settings)
    if tuned.task.kind == "answer":
        found = read_questions(data, answers=False)
        for line in found.left_out:
            Console(stderr=True, quiet=rank() > 0).print(line, style="yellow", highlight=False, markup=False)
        said, null = tuned.say(found.records, truncate), tuned.task.threshold is not None
        if rank() == 0:
            write_answers(Path(output), found.records, said, null=null, course=found.course)
        return len(found.records)
    columns: dict[str, Any] = {"text_column": text_column, "pair_columns": pair_columns}
    records = read_labelled(data, tuned.task.kind, labels=False, **columns)
    said = tuned.say(records, truncate)
    if rank() == 0:
        write_lines(Path(output), prediction_lines(tuned.task, records, said))
    return len(records)


@dataclass(frozen=True, slots=True)
class _Tuned:
    """A fine-tuned model, and the task that its folder tells."""

    model: Model
    tokenizer: Tokenizer
    task: Task
    settings: Answering
    writing: Writing
    windows: Windows

    def say(self, records: Sequence[Labelled], truncate: bool) -> Predictions:
        config = self.model.config
        if self.task.kind == "translate":
            texts = TextExamples(records, self.tokenizer, length=config.max_length, truncate=truncate)
            return predict_units(self.model, self.task, texts, self.writing)
        common: dict[str, Any] = {"length": config.max_length, "token_types": config.token_types}
        if self.task.kind == "answer":
            examples = AnswerExamples(records, self.tokenizer, settings=self.settings, **common)
        else:
            common |= {"overlap": None if truncate else self.windows.window_overlap}
            examples = TaskExamples(records, self.task, self.tokenizer, truncate=truncate, **common)
        return predict_units(self.model, self.task, examples)


def _load(folder: str | Path, settings: Sequence[str]) -> _Tuned:
    """UsageError if the model was not fine-tuned."""
    described = read_config(folder)
    kind: Kind | None = described.task or next((head for head in _HEADS if head in described.heads), None)
    if described.config.decoder_layers and "next" in described.heads:
        kind = "translate"
    if kind is None:
        raise UsageError("this model was not fine-tuned", where=str(folder), do="run pluri finetune first")
    overlap = [setting for setting in settings if setting.partition("=")[0].strip() == "window_overlap"]
    settings = [setting for setting in settings if setting not in overlap]
    if (settings and kind in ("classify", "pair")) or (overlap and kind not in ("classify", "tag")):
        what = f"a model of the task {kind} has no such setting"
        raise UsageError(what, where=[*settings, *overlap][0], do="leave it out")
    file = Path(folder) / WINDOWS
    windows = Windows.load(file if file.exists() else None, overlap)
    kept = Path(folder) / ANSWERING
    answering = Answering.load(kept if kept.exists() else None, list(settings) if kind == "answer" else [])
    regression = described.problem == "regression"
    labels = () if regression else tuple(described.labels or ())
    writing = Writing.load(None, list(settings) if kind == "translate" else [])
    metric = {"answer": "f1", "translate": "chrf"}.get(kind, "pearson" if regression else "accuracy")
    model, tokenizer = load_model(folder)
    tagging = kept_tagging(folder, labels, settings) if kind == "tag" else Tagging()
    threshold = answering.null_score_diff_threshold
    task = Task(kind, labels, metric, answering.scoring, threshold, tagging.scheme, tagging.legal)
    return _Tuned(model, tokenizer, task, answering, writing, windows)
