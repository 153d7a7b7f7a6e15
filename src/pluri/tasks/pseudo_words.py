"""Pseudo-words: two words of the corpus written as one artificial word, and whether vectors still tell them apart
(Gale, Church and Yarowsky 1992; Schuetze 1992). Nobody has to label anything: what stood there is known.

Legend: n occurrences of a pseudo-word, D width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pluri.runtime import mix, permuted

_ALIKE = 1.25  # how many times as often as the other a word of a pair may occur
_FOLDS = 5


def paired(counts: Mapping[str, int], fewest: int, most: int, seed: int) -> list[tuple[str, str]]:
    """At most so many pairs of words of like frequency, drawn by chance; every word is in one at most.

    counts: how often each word occurs; those below `fewest` are left out.
    """
    ranked = sorted((word for word, count in counts.items() if count >= fewest), key=lambda word: (-counts[word], word))
    pairs = [(a, b) for a, b in zip(ranked[::2], ranked[1::2], strict=False) if counts[a] <= _ALIKE * counts[b]]
    order = permuted(np.arange(len(pairs)), len(pairs), mix(mix(np.uint64(0), seed), 0xFA1)) if pairs else []
    return [pairs[i] for i in order[:most]]


def told_apart(vectors: NDArray[np.float32], second: NDArray[np.bool_]) -> float:
    """The share of occurrences whose word is told from their vectors, 0 to 1, chance being 0.5.

    vectors: (n, D). second: (n,), whether it is the second word; as many are as are not.
    By the nearer of the two words' means, over five folds; dimensions are scaled by what they vary within the
    words there. Where both are as near, as with static vectors, it is half a hit.
    """
    rank = np.zeros(len(second), np.int64)
    for side in (False, True):
        rank[second == side] = np.arange((second == side).sum())
    wide, hits = vectors.astype(np.float64), 0.0
    for fold in range(_FOLDS):
        held = rank % _FOLDS == fold
        if not held.any():
            continue
        known, word = wide[~held], second[~held]
        spread = np.sqrt((known[~word].var(0) + known[word].var(0)) / 2)
        scaled = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0)
        nearer = [((wide[held] - known[word == side].mean(0)) * scaled) ** 2 for side in (False, True)]
        lead = nearer[0].sum(1) - nearer[1].sum(1)  # above 0: nearer to the second
        hits += float(np.where(lead == 0, 0.5, (lead > 0) == second[held]).sum())
    return hits / len(second)


def balanced(first: Sequence[int], second: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """As many of either, at most `most`."""
    count = min(len(first), len(second), most)
    return list(first[:count]), list(second[:count])
