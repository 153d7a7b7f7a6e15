"""How vectors of words lie to each other: the measures of Ethayarajh, "How contextual are contextualized word
representations?" (2019), section 3.

Legend: n vectors, D width, R replicates.
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def self_similarity(occurrences: Vectors) -> float:
    """The mean cosine of a word's vectors in two different contexts (definition 1). occurrences: (n, D), n > 1."""
    return mean_cosine(occurrences)


def intra_sentence_similarity(sentence: Vectors) -> float:
    """The mean cosine of the words of a sentence with the mean of them all (definition 2). sentence: (n, D)."""
    return float((_unit(sentence) @ _unit(sentence.mean(0, keepdims=True)).T).mean())


def maximum_explainable_variance(occurrences: Vectors) -> float:
    """The share of the first squared singular value in the sum of all (definition 3): how much of a word's vectors one
    static vector could explain. occurrences: (n, D)."""
    wide = occurrences.astype(np.float64)
    squares = np.linalg.eigvalsh(wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide)
    return float(squares[-1] / squares.sum())


def mean_cosine(vectors: Vectors) -> float:
    """Of all pairs of two different vectors, (n, D). Of words drawn at random it is the anisotropy (section 3.4)."""
    n = len(vectors)
    total = _unit(vectors).sum(0)
    return float((total @ total - n) / (n * (n - 1)))


def mean_cosines(vectors: Vectors, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same where vector i was drawn weights[r, i] times: (R,). Pairs of one vector with itself are left out."""
    unit = _unit(vectors)
    summed = weights @ unit  # (R, D)
    squares = (weights**2).sum(1)
    return ((summed**2).sum(1) - squares) / (weights.sum(1) ** 2 - squares)


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """fp64, each of length 1; a vector of zeros stays."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
