"""Linear probes of vectors, and the control task that says how much of their accuracy is learning by heart.

Legend: U tokens, D width, C tags.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pluri.runtime import mix, uniform

_STEPS = 200  # of the optimizer: the accuracy no longer moves, though the loss still may


def probed(train: NDArray[np.float32], tags: NDArray[np.int64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """What logistic regression on vectors (U, D) with their tags (U,) says of others: (U',)."""
    if len(np.unique(tags)) == 1:
        return np.full(len(test), tags[0])
    scaler = StandardScaler().fit(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=0.1, max_iter=_STEPS, tol=1e-3).fit(scaler.transform(train), tags)
    return model.predict(scaler.transform(test))


def control_tags(words: Sequence[str], tags: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """One tag for each word, wherever it stands, drawn as often as the true tags are there: (U,).

    A probe can only learn these by heart; by how much it does better on the true ones is its selectivity (Hewitt and
    Liang, "Designing and interpreting probes with control tasks", 2019, section 2).
    """
    types = {word: i for i, word in enumerate(dict.fromkeys(words))}
    key = mix(mix(np.uint64(0), seed), 0xC0)
    drawn = np.sort(tags)[(uniform(key, np.arange(len(types))) * len(tags)).astype(np.int64)]
    return drawn[[types[word] for word in words]]
