"""Which sentences are read for one word, and what is kept of the vectors of all their words.

Legend: L layers (the embedding and each layer), D width.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.inference.word_vectors import WordVectors
from pluri.run.corpus import Corpus, Reservoir, is_word, occurrences
from pluri.runtime import mix, uniform
from pluri.tasks.geometry import mean_cosine

_HAVING, _OTHERS = 100, 500  # sentences with the word, and without it, whose vectors are taken
_LEARNT = 50_000  # that static vectors are learnt from


@dataclass(frozen=True, slots=True)
class Sentences:
    """What one pass over a file leaves. having: sentences with the word, each once; others: without it.

    learnt: of both kinds, for static vectors, those in `having` among them.
    vocabulary: how often each word stands in the file, in lower case. found: how often the word does.
    """

    having: list[str]
    others: list[str]
    learnt: list[str]
    vocabulary: Counter[str]
    found: int

    @classmethod
    def of(cls, word: str, corpus: Corpus, seed: int) -> "Sentences":
        vocabulary: Counter[str] = Counter()
        having, others, learnt = (Reservoir[str](most, seed) for most in (_HAVING, _OTHERS, _LEARNT))
        found = 0
        for sentence in corpus:
            words = corpus.words(sentence)
            vocabulary.update(name.lower() for name, _ in words)
            times = len(occurrences(word, sentence, words))
            found += times
            (having if times else others).add(sentence)
            learnt.add(sentence)
        drawn = list(dict.fromkeys(having.items()))
        some = learnt.items()
        missing = set(drawn).difference(some)
        return cls(drawn, others.items(), some + [each for each in drawn if each in missing], vocabulary, found)


class Reading:
    """What is kept of the vectors of all words, chunk after chunk.

    kept: of each occurrence (L, D). spots: its sentence, and its first character and the one after its last.
    """

    def __init__(self, word: str, corpus: Corpus, layer: int, seed: int) -> None:
        self.word, self.corpus, self.layer = word, corpus, layer
        self.key = mix(mix(np.uint64(0), seed), 0xBA5E)
        self.kept: list[NDArray[np.float32]] = []
        self.spots: list[tuple[str, int, int]] = []
        self._any: list[NDArray[np.float32]] = []  # (L, D) of a word of each sentence, by chance
        self._sums: dict[str, tuple[NDArray[np.float64], int]] = {}

    def take(self, read: WordVectors, having: Sequence[str]) -> None:
        """having: the sentences with the word, which come first in the stream."""
        for text in map(int, np.unique(read.text)):
            rows = np.flatnonzero(read.text == text)
            first, last = self._occurrence(having[text], read, rows) if text < len(having) else (0, 0)
            place = read.place[rows]
            others = rows[(place < first) | (place >= last)]
            others = others[[is_word(read.words[i]) for i in others]] if len(others) else others
            if len(others):
                drawn = others[int(uniform(self.key, text) * len(others))]
                self._any.append(read.vectors[:, drawn].copy())
            for i in others:
                name = read.words[i].lower()
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + read.vectors[self.layer, i].astype(np.float64), count + 1)

    def _occurrence(self, sentence: str, read: WordVectors, rows: NDArray[np.int64]) -> tuple[int, int]:
        """Keeps the first occurrence in a sentence, unless it was cut off. Returns its words, [first, last)."""
        words = self.corpus.words(sentence)
        first, last = occurrences(self.word, sentence, words)[0]
        here = rows[(read.place[rows] >= first) & (read.place[rows] < last)]
        if len(here) == last - first:
            self.kept.append(read.vectors[:, here].mean(1))
            self.spots.append((sentence, words[first][1][0], words[last - 1][1][1]))
        return first, last

    def baseline(self) -> NDArray[np.float64]:
        """(L,), the mean cosine of two words from different sentences; nan if there are no two."""
        if len(self._any) < 2:
            return np.full(len(self.kept[0]), np.nan)
        return np.array([mean_cosine(layer) for layer in np.stack(self._any, axis=1)])

    def types(self) -> tuple[list[str], NDArray[np.float64]]:
        """The other words, and the mean vector of each, (words, D)."""
        means = [total / count for total, count in self._sums.values()]
        return list(self._sums), np.stack(means) if means else np.empty((0, self.kept[0].shape[-1]))
