"""Static word vectors learnt from one's own text: CBOW and skip-gram (Mikolov et al. 2013), by gensim."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from pluri.tasks.static import StaticVectors

Method = Literal["cbow", "skip-gram"]


def train_static(
    sentences: Iterable[list[str]],
    method: Method = "cbow",
    *,
    width: int = 100,
    window: int = 5,
    min_count: int = 1,
    epochs: int = 5,
    seed: int = 0,
) -> StaticVectors:
    """The vectors of the words of some sentences, which are gone through epochs + 1 times.

    The other settings are gensim's own. One thread, so that the same seed gives the same vectors.
    """
    from gensim.models import Word2Vec

    trained = Word2Vec(
        sentences,
        sg=int(method == "skip-gram"),
        vector_size=width,
        window=window,
        min_count=min_count,
        epochs=epochs,
        seed=seed,
        workers=1,
    ).wv
    rows = {word: i + 1 for i, word in enumerate(map(str, trained.index_to_key))}
    none = np.zeros((1, width), np.float32)
    return StaticVectors(rows, np.concatenate([none, trained.vectors.astype(np.float32)]))
