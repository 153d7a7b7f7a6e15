"""Static word vectors learnt from one's own text: CBOW and skip-gram (Mikolov et al. 2013), by gensim."""

import importlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from pluri.errors import UsageError
from pluri.tasks.static import StaticVectors

Method = Literal["cbow", "skip-gram"]


def train_static(
    sentences: Iterable[list[str]],
    method: Method = "cbow",
    *,
    width: int = 100,
    epochs: int = 5,
    seed: int = 0,
) -> StaticVectors:
    """The vectors of the words of some sentences, which are gone through epochs + 1 times.

    Every word counts; the other settings are gensim's own. One thread, so that the same seed gives the same vectors.
    """
    gensim = check_installed()
    trained = gensim.Word2Vec(
        sentences,
        sg=int(method == "skip-gram"),
        vector_size=width,
        min_count=1,
        epochs=epochs,
        seed=seed,
        workers=1,
    ).wv
    rows = {word: i + 1 for i, word in enumerate(map(str, trained.index_to_key))}
    none = np.zeros((1, width), np.float32)
    return StaticVectors(rows, np.concatenate([none, trained.vectors.astype(np.float32)]))


def check_installed() -> Any:
    """The module gensim.models. UsageError if that is not installed."""
    try:
        return importlib.import_module("gensim.models")
    except ImportError as error:
        do = "pip install 'pluri[understand]'"
        raise UsageError(f"static vectors are learnt by gensim: {error}", do=do) from None
