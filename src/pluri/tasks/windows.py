"""Sparse features of tokens in their neighbourhood: what a linear tagger without pretraining can see.

Legend: U units (tokens of all sentences, one after the other), F features a unit, K distinct features.
"""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pluri.runtime import mix
from pluri.tasks.task import Labelled

_WINDOWS = ((-2,), (-1,), (0,), (1,), (2,), (-2, -1), (-1, 0), (0, 1), (1, 2), (-1, 1), (-1, 0, 1))
# What tokens of several characters are known by besides their spelling, and at which places of the window.
_AFFIXES: tuple[tuple[Callable[[str], str], tuple[int, ...]], ...] = (
    (lambda token: token[:1], (-1, 0, 1)),
    (lambda token: token[:2], (0, 1)),
    (lambda token: token[:3], (0,)),
    (lambda token: token[-1:], (-1, 0, 1)),
    (lambda token: token[-2:], (-1, 0)),
    (lambda token: token[-3:], (0,)),
    (lambda token: str(len(token)), (-1, 0, 1)),
)


class TokenWindows:
    """Tokens at -2 to +2, their pairs, character classes and, where tokens have several characters, their affixes.

    After the feature sets of linear taggers (Toutanova et al. 2003, table 4; for characters Ng and Low 2004, table 1).
    Fitted on the training sentences: features that they lack are not used.
    """

    def __init__(self, train: Sequence[Labelled]) -> None:
        self.affixes = any(len(token) > 1 for record in train for token in record.units)
        self.known = np.unique(self._keys(train))  # (K,), ascending

    def __call__(self, records: Sequence[Labelled]) -> csr_matrix:
        """(U, K), 1 where a unit has a feature."""
        keys = self._keys(records)  # (U, F)
        columns = np.minimum(np.searchsorted(self.known, keys), len(self.known) - 1)
        found = self.known[columns] == keys
        offsets = np.concatenate([[0], np.cumsum(found.sum(1))])
        values = np.ones(int(offsets[-1]), np.float32)
        return csr_matrix((values, columns[found], offsets), shape=(len(keys), len(self.known)))

    def _keys(self, records: Sequence[Labelled]) -> NDArray[np.uint64]:
        """Each feature of each unit as a 64-bit hash of its kind and content: (U, F)."""
        tokens = [token for record in records for token in record.units]
        sentence = np.repeat(np.arange(len(records)), [len(record.units) for record in records])
        spelled = _neighbours(_hashes(tokens, lambda token: token), sentence)
        columns = []
        for window in _WINDOWS:
            key = np.full(len(tokens), mix(np.uint64(0), len(columns)))
            for place in window:
                key = mix(key, spelled[place])
            columns.append(key)
        kinds: list[tuple[Callable[[str], str], tuple[int, ...]]] = [(_character_class, (-1, 0, 1))]
        for content, places in [*kinds, *(_AFFIXES if self.affixes else ())]:
            around = _neighbours(_hashes(tokens, content), sentence)
            for place in places:
                columns.append(mix(np.full(len(tokens), mix(np.uint64(0), len(columns))), around[place]))
        return np.stack(columns, axis=1)


def _hashes(tokens: Sequence[str], content: Callable[[str], str]) -> NDArray[np.uint64]:
    """A 64-bit number for what each token says, at least 1: (U,)."""
    known: dict[str, int] = {}
    for token in tokens:
        if token not in known:
            key = np.uint64(1)
            for character in content(token):
                key = mix(key, ord(character))[()]
            known[token] = int(key) | 1
    return np.array([known[token] for token in tokens], np.uint64)


def _neighbours(values: NDArray[np.uint64], sentence: NDArray[np.int64]) -> dict[int, NDArray[np.uint64]]:
    """For each place -2 to 2 the value that stands there in the same sentence, else 0: (U,) each."""
    index = np.arange(len(values))
    shifted = {}
    for place in range(-2, 3):
        at = np.clip(index + place, 0, len(values) - 1)
        inside = (at == index + place) & (sentence[at] == sentence)
        shifted[place] = np.where(inside, values[at], 0)
    return shifted


def _character_class(token: str) -> str:
    """Unicode category and script of the first and last character: capital letter, digit, punctuation, ..."""
    ends = (token[0], token[-1]) if token else ()
    return " ".join(unicodedata.category(end) + unicodedata.name(end, "?").split(" ")[0] for end in ends)
