"""How contextual each layer is: Ethayarajh's measures over a sample of sentences.

Legend: L layers (the embedding and each layer), n vectors, D width, R replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pluri.inference.word_vectors import word_vectors
from pluri.models.heads import Model
from pluri.run.corpus import Corpus, is_word
from pluri.runtime import mix, permuted
from pluri.tasks.geometry import (
    intra_sentence_similarity,
    maximum_explainable_variance,
    mean_cosine,
    mean_cosines,
    self_similarity,
)
from pluri.tasks.intervals import Interval, draws, percentiles
from pluri.tokens.tokenizer import Tokenizer

CONTEXTS = 5  # sentences that a word has to stand in (Ethayarajh 2019, section 3.2)
_WORDS, _OCCURRENCES = 300, 20  # words that are measured, and occurrences of each
_RANDOM = 1000  # occurrences of any words, for the baselines


@dataclass(frozen=True, slots=True)
class Sample:
    """Which words of some sentences are looked at. A place is (sentence, word).

    words: the places of each chosen word, one a sentence. anywhere: places of words drawn uniformly.
    """

    sentences: list[str]
    words: dict[str, list[tuple[int, int]]]
    anywhere: list[tuple[int, int]]

    @classmethod
    def of(cls, sentences: Sequence[str], corpus: Corpus, seed: int) -> "Sample":
        places: dict[str, list[tuple[int, int]]] = {}
        every: list[tuple[int, int]] = []
        for i, sentence in enumerate(sentences):
            for k, (name, _) in enumerate(corpus.words(sentence)):
                if is_word(name):
                    every.append((i, k))
                    own = places.setdefault(name.lower(), [])
                    if not own or own[-1][0] != i:
                        own.append((i, k))
        often = [word for word, own in places.items() if len(own) >= CONTEXTS]
        keys = [mix(mix(np.uint64(0), seed), stream) for stream in (0x11, 0x12)]
        chosen, drawn = (
            [] if not things else permuted(np.arange(min(most, len(things))), len(things), key)
            for things, most, key in ((often, _WORDS, keys[0]), (every, _RANDOM, keys[1]))
        )
        words = {often[i]: _spread(places[often[i]], _OCCURRENCES) for i in chosen}
        return cls(list(sentences), words, [every[i] for i in drawn])


@dataclass(slots=True)
class _Kept:
    """vectors: (L, D) of each place that is wanted. sentences: intra-sentence similarity, (L,) of each sentence."""

    vectors: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    sentences: list[list[float]] = field(default_factory=list)


def geometry(model: Model, tokenizer: Tokenizer, corpus: Corpus, sample: Sample) -> dict[str, list[Interval]]:
    """Each measure in each layer: self_similarity, intra_sentence_similarity and maximum_explainable_variance, each
    minus its baseline; and the baselines, anisotropy and variance_baseline.

    The baseline of a word's explainable variance is that of as many occurrences drawn at random, since a share of few
    is larger than one of many. Intervals are over words or sentences, and over the occurrences of the baseline.
    """
    kept = _read(model, tokenizer, corpus, sample)
    anywhere = [kept.vectors[place] for place in sample.anywhere if place in kept.vectors]
    words = [[kept.vectors[place] for place in own if place in kept.vectors] for own in sample.words.values()]
    words = [np.stack(own, 1) for own in words if len(own) >= CONTEXTS]  # (L, n, D) each
    found: dict[str, list[Interval]] = {}
    random = np.stack(anywhere, 1)  # (L, n, D)
    weights = draws(random.shape[1])  # (R, n)
    for layer, vectors in enumerate(random):
        base, bases = mean_cosine(vectors), mean_cosines(vectors, weights)
        alike = np.array([self_similarity(own[layer]) for own in words])
        inside = np.array([each[layer] for each in kept.sentences])
        matched = np.array([_of_as_many(vectors, own.shape[1], i) for i, own in enumerate(words)])
        variance = np.array([maximum_explainable_variance(own[layer]) for own in words])
        for name, interval in (
            ("self_similarity", _minus(alike, base, bases)),
            ("intra_sentence_similarity", _minus(inside, base, bases)),
            ("maximum_explainable_variance", _minus(variance - matched, 0.0, np.zeros(len(bases)))),
            ("anisotropy", percentiles(base, bases)),
            ("variance_baseline", _minus(matched, 0.0, np.zeros(len(bases)))),
        ):
            found.setdefault(name, []).append(interval)
    return found


def _read(model: Model, tokenizer: Tokenizer, corpus: Corpus, sample: Sample) -> _Kept:
    wanted = {place for own in sample.words.values() for place in own}.union(sample.anywhere)
    kept = _Kept()
    for chunk in word_vectors(model, tokenizer, map(corpus.read, sample.sentences)):
        spoken = np.array([is_word(word) for word in chunk.words], bool)
        for place in zip(chunk.text.tolist(), chunk.place.tolist(), range(len(chunk.words)), strict=True):
            if place[:2] in wanted:
                kept.vectors[place[:2]] = chunk.vectors[:, place[2]].copy()
        for text in np.unique(chunk.text):
            rows = np.flatnonzero((chunk.text == text) & spoken)
            if len(rows) > 1:
                kept.sentences.append([intra_sentence_similarity(layer[rows]) for layer in chunk.vectors])
    return kept


def _of_as_many(vectors: NDArray[np.float32], count: int, seed: int) -> float:
    """The explainable variance of so many vectors, drawn from (n, D)."""
    drawn = permuted(np.arange(min(count, len(vectors))), len(vectors), mix(np.uint64(1), seed))
    return maximum_explainable_variance(vectors[drawn])


def _minus(values: NDArray[np.float64], baseline: float, baselines: NDArray[np.float64]) -> Interval:
    """The mean of the values minus the baseline; baselines: (R,), its replicates."""
    means = draws(len(values), seed=1, replicates=len(baselines)) @ values / len(values)
    return percentiles(float(values.mean()) - baseline, means - baselines)


def _spread(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most so many of them, evenly over all."""
    if len(places) <= most:
        return places
    return [places[i] for i in np.linspace(0, len(places) - 1, most).astype(int)]
