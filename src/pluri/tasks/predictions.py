"""Asking a model of a task for predictions, and judging them.

Legend: B rows, L positions a row, C classes, U units, P labelled positions, N sequences, G questions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.batches.loader import Batches
from pluri.models.heads import Model
from pluri.models.placing import laid_for
from pluri.runtime import each_once, keep_freed_memory, pick_device, world_size
from pluri.tasks.answer import AnswerExamples
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.decode import Nbest, best_spans, best_threshold
from pluri.tasks.encode import TaskExamples
from pluri.tasks.long import mean_vote
from pluri.tasks.task import Labelled, Targets, Task
from pluri.tasks.translate import TextExamples, Writing, write_targets
from pluri.tasks.viterbi import legal_labels

_SHORTEST_ROW = 128
# Prediction with MiniLM on two cores, sentences of 23 tokens: 180 a second in batches of 8,192 tokens and rows of 128
# positions, 202 in batches of 2,048, 255 in rows of 64 besides. A GPU wants large batches.
_PREDICTION_ROW, _PREDICTION_TOKENS, _PREDICTION_TOKENS_ON_CPU = 64, 8192, 2048
THRESHOLD = "null_score_diff_threshold"
Encoded = TaskExamples | AnswerExamples | TextExamples


@dataclass(frozen=True, slots=True)
class Predictions:
    """values: the class or number of each unit, (U,); of answers, the span of each question, (G, 2), -1 for none; the
        translations, (G,).

    scores: the probability of that class, (U,); None for numbers and answers. nbest: of answers, the others, too.
    """

    values: Targets
    scores: NDArray[np.float32] | None
    nbest: Nbest | None = None


def row_length(examples: Encoded, most: int, least: int = _SHORTEST_ROW) -> int:
    """Positions a row, at most `most`: no more than the examples need, since attention costs by the length of rows."""
    return min(most, max(examples.longest, least))


def prediction_batches(examples: Encoded, most: int) -> Iterator[Batch]:
    """Every example once, in order, in packed batches with rows of at most `most` positions."""
    tokens = _PREDICTION_TOKENS if pick_device() == "cuda" else _PREDICTION_TOKENS_ON_CPU
    length = row_length(examples, most, _PREDICTION_ROW)
    yield from Batches(examples, batch_tokens=tokens, length=length, seed=0).once()


@torch.inference_mode()
def predict(model: Model, task: Task, examples: Encoded, writing: Writing = Writing(beams=1)) -> Predictions:  # noqa: B008
    """What the model says of each unit, in order. Keeps one number a unit, whatever the number of classes.

    writing: how translations are written; by default the quickest way, which will do to choose a model by.

    Legal tags are the best sequence of the whole sentence, over all of its windows.
    The model is moved to the fastest device, and stays there.
    """
    keep_freed_memory()
    device = pick_device()
    model.to(device).eval()
    if isinstance(examples, TextExamples):
        return Predictions(np.array(write_targets(model, examples, writing), object), None)
    batches = prediction_batches(examples, model.config.max_length)
    if isinstance(examples, AnswerExamples):
        nbest = best_spans(model, batches, examples)
        return Predictions(nbest.decided(task.threshold), None, nbest)
    blocks = _logits(model, task, batches, device)
    if examples.votes is not None:
        said = (b.numpy() if task.regression else b.softmax(-1).numpy() for b in (b.cpu() for b in blocks))
        mean = torch.from_numpy(mean_vote(said, examples.votes, int(examples.units.sum())))  # (U, C)
        blocks = iter([mean if task.regression else mean.log()])
    if task.legal and task.tags is not None:
        return Predictions(*legal_labels(blocks, examples.units, task.tags.allowed))
    values, scores = [], []
    for logits in blocks:
        if task.regression:
            values.append(logits.squeeze(1).double().cpu().numpy())
        else:
            top = logits.softmax(-1).max(-1)
            values.append(top.indices.cpu().numpy())
            scores.append(top.values.cpu().numpy())
    return Predictions(np.concatenate(values), np.concatenate(scores) if scores else None)


def _logits(model: Model, task: Task, batches: Iterator[Batch], device: str) -> Iterator[Tensor]:
    """Of each batch, in order: (P, C) of tags, else (N, C)."""

    def of(batch: Batch) -> Tensor:
        batch = laid_for(model, batch)
        if task.kind == "tag":
            at = labelled_positions(batch).to(device)  # (P,)
            logits = model.heads["tag"](model.hidden(batch.to(device), at))  # (P, C)
        else:
            logits = model(batch.to(device), "classify")  # (N, C)
        return logits.float() if world_size() == 1 else logits.float().cpu()

    return each_once(of, batches)


def judged(task: Task, records: Sequence[Labelled], said: Predictions) -> dict[str, float]:
    """The task's metric, by name.

    Where some questions have no answer, also null_score_diff_threshold: the task's, or the one that is best here.
    """
    outcome = task.outcome(records, said.values)
    if said.nbest is None or not isinstance(outcome, AnswerOutcome) or outcome.answerable.all():
        return {task.metric: outcome.value(task.metric)}
    if task.threshold is not None:
        return {task.metric: outcome.value(task.metric), THRESHOLD: task.threshold}
    silent = task.outcome(records, np.full_like(said.values, -1))
    assert isinstance(silent, AnswerOutcome)
    threshold = best_threshold(said.nbest.odds, outcome.scores(task.metric), silent.scores(task.metric))
    outcome = task.outcome(records, said.nbest.decided(threshold))
    return {task.metric: outcome.value(task.metric), THRESHOLD: threshold}


def settled(task: Task, found: dict[str, float]) -> Task:
    """The task with the threshold that a validation (`judged`) found."""
    return replace(task, threshold=found.get(THRESHOLD, task.threshold))


def labelled_positions(batch: Batch) -> Tensor:
    """Flat indices (P,) of the labelled positions, sequence after sequence as they were given, not as packed."""
    assert batch.labels is not None
    places = batch.places
    return places[batch.labels.reshape(-1)[places] != IGNORE]
