"""Which token comes next: by chance, the likeliest, or of the likeliest sequence. Apart from what the model is.

Legend: B rows, V vocabulary, P prompts, K beams of each.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pluri.config import Config
from pluri.errors import CheckpointError
from pluri.inference.steps import Steps
from pluri.runtime import Keys, uniform

Stopped = Literal["end", "stop", "length", "context"]
"""Why a text ends: the model ended it, a stop string came, it is as long as wanted, or the model reads no more."""

Ended = Callable[[list[int]], Stopped | None]
"""What was written after a prompt -> why nothing follows, or None."""


LengthPenalty = Annotated[float, Field(ge=-10, le=10)]
"""Beyond that, powers of a length overflow, and all but it is rounded away."""


class Generation(Config):
    """How to go on with a prompt.

    temperature: logits are divided by it; 0 takes the likeliest token. top_k: only of so many likeliest tokens.
    top_p: only of the fewest tokens that together have this probability (Holtzman et al. 2020, section 3.1).
    repetition_penalty: logits of tokens that stand already, in the prompt too, are divided by it, negative ones
        multiplied (Keskar et al., "CTRL", 2019, section 4.1).
    beams: of as many sequences at a time, the likeliest, by log-likelihood / length ** length_penalty.
    stop: texts before which to stop. seed: of all chance.
    """

    max_new_tokens: int = Field(100, ge=1)
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    beams: int = Field(1, ge=1)
    length_penalty: LengthPenalty = 1.0
    stop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.beams > 1 and self.temperature:
            raise ValueError(f"{self.beams} beams look for the likeliest text, without chance: set temperature = 0")
        if "" in self.stop:
            raise ValueError("a stop string is empty: it would stand before every text")
        return self


def sample(
    steps: Steps,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    ended: Sequence[Ended],
    keys: Keys,
    settings: Generation,
) -> Iterator[tuple[int, int, Stopped | None]]:
    """(prompt, token, why it ends there, if it does), token by token, of all prompts in turn.

    steps: a row for each prompt. limits: tokens of each at most. ended: for each. keys: uint64 (P,), all its chance.
    What comes of a prompt depends on nothing but itself and its key. CheckpointError: logits that are no numbers.
    """
    rows = list(range(len(prompts)))  # the prompt of each row
    written: list[list[int]] = [[] for _ in prompts]
    for turn in itertools.count():
        scores = penalized(_sound(steps.logits), [[*prompts[p], *written[p]] for p in rows], settings)
        draws = torch.from_numpy(uniform(keys[rows], turn)).to(scores.device)
        chosen = drawn(scores, draws, settings)
        going = []
        for row, (prompt, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            written[prompt].append(token)
            stopped = ended[prompt](written[prompt])
            if stopped is None and len(written[prompt]) == limits[prompt]:
                stopped = "length" if limits[prompt] == settings.max_new_tokens else "context"
            yield prompt, token, stopped
            if stopped is None:
                going.append(row)
        if not going:
            return
        if len(going) < len(rows):
            kept = torch.tensor(going, device=chosen.device)
            steps.select(kept)
            rows, chosen = [rows[row] for row in going], chosen[kept]
        steps.advance(chosen)


def _sound(logits: Tensor) -> Tensor:
    if not bool(logits.isfinite().all()):
        do = "pretrain again with a lower learning rate, or take another copy"
        raise CheckpointError("the model's logits are not finite", where="model", do=do)
    return logits


def penalized(scores: Tensor, histories: Sequence[Sequence[int]], settings: Generation) -> Tensor:
    """Scores (B, V) after the penalty for the tokens in each row's history."""
    if settings.repetition_penalty == 1:
        return scores
    scores = scores.clone()
    for row, ids in enumerate(histories):
        at = torch.tensor(ids, device=scores.device)
        values = scores[row, at]
        scores[row, at] = torch.where(
            values < 0, values * settings.repetition_penalty, values / settings.repetition_penalty
        )
    return scores


def drawn(logits: Tensor, draws: Tensor, settings: Generation) -> Tensor:
    """A token for each row, int64 (B,). logits: (B, V). draws: fp64 (B,), uniform in [0, 1)."""
    if not settings.temperature:
        return logits.argmax(-1)
    # less the largest, which changes no probability: then a temperature near 0 divides none to +inf
    logits = (logits.double() - logits.amax(-1, keepdim=True)) / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(settings.top_k).values[:, -1:], -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1).roll(1, -1)  # the probability of what is likelier
        before[:, 0] = 0
        logits = logits.masked_fill(
            torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= settings.top_p), -torch.inf
        )
    sums = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


@dataclass(slots=True)
class _Beams:
    """The search from one prompt: what runs, its log-likelihood falling, and the best that are whole, by score."""

    running: list[tuple[float, list[int]]]
    whole: list[tuple[float, list[int], Stopped]] = field(default_factory=list)
    done: bool = False


def beam_search(
    steps: Steps, prompts: Sequence[Sequence[int]], limits: Sequence[int], ended: Sequence[Ended], settings: Generation
) -> list[tuple[list[int], Stopped]]:
    """What is written after each prompt, and why it ends there: the likeliest that the search finds.

    Of 2 K continuations the first K may end; K others go on. It is over when K are whole and none that runs is better
    than the worst of them, at its present length (as transformers searches, with early_stopping = False).
    steps: a row for each prompt.
    """
    count = settings.beams
    searches = [
        _Beams([(0.0, [])] + [(-1e9, [])] * (count - 1)) for _ in prompts
    ]  # the first step leaves from one beam
    open_ = list(range(len(prompts)))
    steps.select(torch.arange(len(prompts), device=steps.logits.device).repeat_interleave(count))
    while True:
        histories = [[*prompts[p], *ids] for p in open_ for _, ids in searches[p].running]
        scores = penalized(_sound(steps.logits).log_softmax(-1), histories, settings)  # (P * K, V)
        vocabulary = scores.shape[1]
        running = torch.tensor([[score for score, _ in searches[p].running] for p in open_], device=scores.device)
        total = (scores.view(len(open_), count, -1) + running[:, :, None]).flatten(1)  # (P, K * V)
        top = total.topk(min(2 * count, total.shape[1]))
        rows, tokens, still = [], [], []
        for row, (p, values, places) in enumerate(zip(open_, top.values.tolist(), top.indices.tolist(), strict=True)):
            parents = _step(searches[p], values, places, vocabulary, limits[p], ended[p], settings)
            if not searches[p].done:
                still.append(p)
                rows += [row * count + parent for parent in parents]
                tokens += [ids[-1] for _, ids in searches[p].running]
        if not still:
            break
        open_ = still
        steps.select(torch.tensor(rows, device=scores.device))
        steps.advance(torch.tensor(tokens, device=scores.device))
    return [(search.whole[0][1], search.whole[0][2]) for search in searches]


def _step(
    search: _Beams,
    values: list[float],
    places: list[int],
    vocabulary: int,
    limit: int,
    ended: Ended,
    settings: Generation,
) -> list[int]:
    """One token more. values, places: the best continuations, falling; a place is beam * vocabulary + token.

    Returns the beams that the new ones leave from.
    """
    running, parents = [], []
    for rank, (value, place) in enumerate(zip(values, places, strict=True)):
        parent, token = divmod(place, vocabulary)
        ids = [*search.running[parent][1], token]
        stopped = ended(ids)
        if stopped is None and len(ids) == limit:
            stopped = "length" if limit == settings.max_new_tokens else "context"
        if stopped is None and len(running) < settings.beams:
            running.append((value, ids))
            parents.append(parent)
        elif stopped is not None and rank < settings.beams:
            search.whole.append((value / len(ids) ** settings.length_penalty, ids, stopped))
    while 0 < len(running) < settings.beams:  # several tokens may end it: stop strings
        running.append((-1e9, running[-1][1]))
        parents.append(parents[-1])
    search.whole = sorted(search.whole, key=lambda found: -found[0])[: settings.beams]
    search.running = running
    best = running[0][0] / len(running[0][1]) ** settings.length_penalty if running else -math.inf
    search.done = not running or (len(search.whole) == settings.beams and best <= search.whole[-1][0])
    return parents
