"""From scores of starts and ends to answers: the best valid spans of each question, over all of its windows.

Legend: N windows of a batch, K their tokens of the document at most, G questions, S spans kept of each question.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.losses import span_logits
from pluri.models.heads import Model
from pluri.models.placing import placed
from pluri.runtime import each_once
from pluri.tasks.answer import AnswerExamples

_NO_SPAN = 1e9  # the odds of "no answer" where a document has nothing else: finite, as JSON wants its numbers


@dataclass(frozen=True, slots=True, eq=False)
class Nbest:
    """What a model found in the documents of G questions.

    spans: int64 (G, 2), the characters of the best answer with any text, "no answer" aside; -1 where there is none.
    odds: float64 (G,), by how much "no answer" scores above it: start logit + end logit, the least over the windows.
    tokens: int64 (G, S, 2), first and last token, counted over all documents; logits: float32 (G, S, 2); both best
        first, logits -inf where there are no more. null: float32 (G,), the score of "no answer".
    """

    examples: AnswerExamples
    spans: NDArray[np.int64]
    odds: NDArray[np.float64]
    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]
    null: NDArray[np.float32]

    def decided(self, threshold: float | None) -> NDArray[np.int64]:
        """The spans (G, 2), -1 where the odds are above the threshold; None: always the best span."""
        if threshold is None:
            return self.spans
        return np.where((self.odds > threshold)[:, None], -1, self.spans)

    def answers(self, question: int, *, null: bool = False) -> list[dict[str, Any]]:
        """The best answers of a question, best first, each text once: text, probability, its place and its logits.

        null: "no answer", the empty text, is one of them.
        """
        found: dict[str, dict[str, Any]] = {}
        pairs = zip(self.tokens[question].tolist(), self.logits[question].tolist(), strict=True)
        for (first, last), (start_logit, end_logit) in pairs:
            if start_logit == -np.inf:
                break
            start, end = self.examples.characters_of(question, first, last)
            text = self.examples.questions[question].document[start:end]
            if text and text not in found:
                place, logits = {"start": start, "end": end}, {"start_logit": start_logit, "end_logit": end_logit}
                found[text] = {"text": text, "probability": start_logit + end_logit, **place, **logits}
        if null or not found:
            found[""] = {"text": "", "probability": float(self.null[question])}
        listed = sorted(found.values(), key=lambda answer: -answer["probability"])
        weights = np.exp(np.array([answer["probability"] for answer in listed]) - listed[0]["probability"])
        for answer, probability in zip(listed, weights / weights.sum(), strict=True):
            answer["probability"] = float(probability)
        return listed


@torch.inference_mode()
def best_spans(model: Model, batches: Iterator[Batch], examples: AnswerExamples) -> Nbest:
    """Asks the model. batches: all examples, in order. Keeps the best spans of each question only, never all logits."""
    settings = examples.settings
    kept = settings.n_best_size if settings.valid_spans else 1
    count = len(examples.questions)
    tokens = np.zeros((count, kept, 2), np.int64)
    logits = np.full((count, kept, 2), -np.inf, np.float32)
    null = np.full(count, np.inf, np.float32)

    def said(batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Of each window the score of no answer (N,), the best spans (N, kept, 2), and their logits."""
        grid = span_logits(model, placed(model, batch))  # (2, N, 1 + K)
        document = grid[:, :, 1:]  # (2, N, K)
        valid = settings.valid_spans
        places, scores = valid_spans(document, kept, settings.max_answer_length) if valid else likeliest_ends(document)
        return grid[:, :, 0].sum(0).cpu().numpy(), places.cpu().numpy(), scores.cpu().numpy()

    done = 0
    for silent, places, scores in each_once(said, batches):
        here = slice(done, done + len(silent))
        done = here.stop
        owner = examples.owner[here]
        np.minimum.at(null, owner, silent)
        found = places + examples.first[here, None, None], scores
        turns = np.arange(len(owner)) - np.searchsorted(owner, owner)  # which of its question's windows of this batch
        for turn in range(int(turns.max()) + 1):
            now = turns == turn
            asked = owner[now]
            some_tokens = np.concatenate([tokens[asked], found[0][now]], axis=1)
            some_logits = np.concatenate([logits[asked], found[1][now]], axis=1)
            best = np.argsort(-some_logits.sum(-1), axis=1, kind="stable")[:, :kept, None]
            tokens[asked] = np.take_along_axis(some_tokens, best, 1)
            logits[asked] = np.take_along_axis(some_logits, best, 1)
    return _nbest(examples, tokens, logits, null)


def valid_spans(grid: Tensor, kept: int, longest: int) -> tuple[Tensor, Tensor]:
    """The `kept` best spans of at most `longest` tokens that end where they begin or later.

    grid: (2, N, K), logits of start and end, -inf outside of the document.
    Returns (first, last) int64 (N, kept, 2) and their two logits (N, kept, 2), -inf where there are no more.
    """
    start, end = F.pad(grid, (0, max(0, kept - grid.shape[2])), value=-torch.inf)  # (N, K), K at least `kept`
    ends = F.pad(end, (0, longest - 1), value=-torch.inf).unfold(1, longest, 1)  # (N, K, longest)
    best = (start.unsqueeze(2) + ends).flatten(1).topk(kept, dim=1)
    first, further = best.indices // longest, best.indices % longest  # (N, kept)
    last = (first + further).clamp(max=start.shape[1] - 1)
    scores = torch.stack([start.gather(1, first), end.gather(1, last)], dim=2)
    possible = best.values.isfinite().unsqueeze(2)
    return torch.stack([first, last], dim=2), scores.masked_fill(~possible, -torch.inf)


def likeliest_ends(grid: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest start and the likeliest end of each window, each by itself: the end may come first.

    grid: as in `valid_spans`. Returns (first, last) int64 (N, 1, 2) and their two logits (N, 1, 2).
    """
    best = F.pad(grid, (0, max(0, 1 - grid.shape[2])), value=-torch.inf).max(2)  # (2, N)
    return best.indices.t().unsqueeze(1), best.values.t().unsqueeze(1)


def best_threshold(odds: NDArray[np.float64], best: NDArray[np.float64], nothing: NDArray[np.float64]) -> float:
    """Above which odds "no answer" is given, so that the sum of the scores is greatest. All (G,).

    best, nothing: what each question scores with its best span, and with no answer.
    """
    order = np.argsort(odds, kind="stable")
    odds = odds[order]
    gain = np.concatenate([[0.0], np.cumsum((best - nothing)[order])])  # by answering the k lowest odds
    between = np.concatenate([[True], odds[1:] > odds[:-1], [True]])  # equal odds are answered alike
    k = int(np.argmax(np.where(between, gain, -np.inf)))
    if k == 0:
        return float(odds[0] - 1)
    return float(odds[-1] + 1 if k == len(odds) else (odds[k - 1] + odds[k]) / 2)


def _nbest(
    examples: AnswerExamples, tokens: NDArray[np.int64], logits: NDArray[np.float32], null: NDArray[np.float32]
) -> Nbest:
    """The best span with any text of each question."""
    count = len(tokens)
    spans, best = np.full((count, 2), -1), np.full(count, -np.inf)
    sums = logits.sum(-1).astype(np.float64)  # (G, S)
    for question in range(count):
        for place, score in enumerate(sums[question]):
            if score == -np.inf:
                break
            start, end = examples.characters_of(question, *tokens[question, place].tolist())
            if start < end:
                spans[question], best[question] = (start, end), score
                break
    odds = np.minimum(null - best, _NO_SPAN)
    return Nbest(examples, spans, odds, tokens, logits, null)
