"""The most probable sequence of labels among those that are allowed (Viterbi, "Error bounds for convolutional codes",
1967; Forney 1973), for labels that a model gives independently of each other.

Legend: U units (the tokens of all sentences, one after the other), G sentences, C labels, P units of a block.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pluri.tokens.ragged import offsets_of

_FORBIDDEN = -1e9
"""A step that is not allowed costs more than any sentence; finite, so that where every way has one, the fewest win."""


def legal_labels(
    blocks: Iterable[Tensor], lengths: NDArray[np.int64], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The label of each unit, and the probability that the model gives to it: (U,) each.

    Holds the scores of a block and of the sentences that it began, never more.

    blocks: logits (P, C), in order; a sentence may go on from one to the next. lengths: (G,), units of each sentence.
    allowed: (C + 1, C + 1), see `best_paths`.
    """
    lengths = lengths[lengths > 0]
    ends = np.cumsum(lengths)
    first = done = 0  # sentences and units that are decided
    waiting = np.zeros((0, len(allowed) - 1), np.float32)
    values, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for block in blocks:
        waiting = np.concatenate([waiting, block.log_softmax(-1).cpu().numpy()])
        whole = int(np.searchsorted(ends, done + len(waiting), side="right"))
        if whole > first:
            here, waiting = np.split(waiting, [ends[whole - 1] - done])
            values.append(best_paths(here, lengths[first:whole], allowed))
            scores.append(np.exp(here[np.arange(len(here)), values[-1]]))
            first, done = whole, int(ends[whole - 1])
    return np.concatenate(values), np.concatenate(scores)


def best_paths(
    scores: NDArray[np.floating], lengths: NDArray[np.int64], allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The labels (P,) whose scores have the greatest sum in each sentence, all sentences at once.

    scores: (P, C), log-probabilities. lengths: (G,), at least 1 each.
    allowed: (C + 1, C + 1), whether the column may follow the row; row C is the start of a sentence, column C its end.
        Where nothing is, the labels that break the fewest rules.
    """
    cost = np.where(allowed, 0.0, _FORBIDDEN)
    between, start, end = cost[:-1, :-1], cost[-1, :-1], cost[:-1, -1]
    longest_first = np.argsort(-lengths, kind="stable")
    firsts, sizes = offsets_of(lengths)[:-1][longest_first], lengths[longest_first]
    running = np.searchsorted(-sizes, -np.arange(sizes[0]), side="left")  # sentences longer than t, for each t
    best = scores[firsts] + start  # (G, C), the best way to each label so far
    came_from = np.zeros(scores.shape, np.int64)
    for t in range(1, len(running)):
        at = firsts[: running[t]] + t
        ways = best[: running[t], :, None] + between  # (running, C before, C)
        came_from[at] = ways.argmax(1)
        best[: running[t]] = ways.max(1) + scores[at]
    label = (best + end).argmax(1)  # (G,)
    found = np.empty(len(scores), np.int64)
    for t in reversed(range(len(running))):
        at = firsts[: running[t]] + t
        found[at] = label[: running[t]]
        label[: running[t]] = came_from[at, label[: running[t]]]
    return found
