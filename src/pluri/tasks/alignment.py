"""Judging an alignment: translations of words that no method learnt from, and parallel sentences.

Legend: S, T words (or sentences) of the two languages, D width, P pairs, G queries.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pluri.inference.alignment import SIMILARITIES, Similarity, directions, procrustes, ranks
from pluri.runtime import permuted
from pluri.tasks.intervals import Interval, mean_intervals
from pluri.tasks.static import StaticVectors
from pluri.tasks.word2vec import train_static

METRICS = ("mrr", "p@1", "p@5", "p@10")
_HALVES = 0x0A11_6E5D  # the key by which a dictionary is cut in two

_STATIC_WIDTH, _STATIC_EPOCHS = 200, 10  # twice gensim's: these corpora are small

Case = tuple[str, int | None, Similarity, int]
"""A method, a layer (None: it has none), a similarity, and a direction (0: the first language is asked for)."""


@dataclass(slots=True)
class Judge:
    """The ranks of true translations under several methods, all of them of the same queries.

    pairs: int64 (P, 2), translations of each other. learns: bool (P,), the pairs that a method may learn from; a word
    of such a pair is no query. None: there are none, and every pair is a query.
    queries: (G,) of each direction. ranks: of these, by case.
    learnt: the MRR over the words of pairs to learn from alone, by case: what a layer may be chosen by.
    """

    pairs: NDArray[np.int64]
    learns: NDArray[np.bool_] | None = None
    queries: list[NDArray[np.int64]] = field(init=False)
    ranks: dict[Case, NDArray[np.float64]] = field(default_factory=dict)
    learnt: dict[Case, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queries = [self._only(side, False) for side in (0, 1)]

    def _only(self, side: int, trained: bool) -> NDArray[np.int64]:
        """The words of a side all of whose pairs are trained ones, or none of whose are."""
        mine = self.pairs[:, side]
        if self.learns is None:
            return np.empty(0, np.int64) if trained else np.unique(mine)
        return np.setdiff1d(mine, mine[self.learns != trained])

    def judge(
        self,
        method: str,
        layer: int | None,
        source: NDArray[np.float32],
        target: NDArray[np.float32],
        *,
        mapped: bool = False,
    ) -> None:
        """source: (S, D). target: (T, D). mapped: by the orthogonal map that fits the pairs to learn from best."""
        for similarity in SIMILARITIES:
            a, b = directions(source, similarity), directions(target, similarity)
            a = a @ self.map(a, b) if mapped else a
            for side, found in enumerate(ranks(a, b, self.pairs, similarity)):
                case = method, layer, similarity, side
                self.ranks[case] = found[self.queries[side]]
                if self.learns is not None:
                    self.learnt[case] = float(np.mean(1 / found[self._only(side, True)]))

    def map(self, source: Tensor, target: Tensor) -> Tensor:
        """The orthogonal map (D, D) that fits the pairs to learn from best. source: (S, D). target: (T, D)."""
        assert self.learns is not None
        return procrustes(*(x[side] for x, side in zip((source, target), self.pairs[self.learns].T, strict=True)))

    def best_layer(self, method: str) -> int | None:
        """The layer whose MRR is best over the trained words, both directions together, by CSLS."""
        scores: dict[int | None, float] = {}
        for (name, layer, similarity, _), value in self.learnt.items():
            if name == method and similarity == "csls":
                scores[layer] = scores.get(layer, 0.0) + value
        return max(scores, key=lambda layer: scores[layer])

    def measures(self, case: Case) -> NDArray[np.float64]:
        """(G, 4): of each query what it adds to the METRICS."""
        found = self.ranks[case]
        return np.stack([1 / found, *((found <= most).astype(float) for most in (1, 5, 10))], axis=1)

    def difference(self, case: Case, other: Case) -> Interval:
        """Of two MRRs, with its interval over the words, which are the same."""
        return mean_intervals(self.measures(case)[:, :1] - self.measures(other)[:, :1])[0]

    def rows(self, task: str, names: tuple[str, str], sizes: tuple[int, int]) -> list[dict[str, Any]]:
        """A row for each case and metric, with its 95% interval over the queries. sizes: S and T."""
        found = []
        for case in self.ranks:
            method, layer, similarity, side = case
            about = {"task": task, "method": method, "layer": layer, "similarity": similarity}
            about |= {"direction": f"{names[side]} to {names[1 - side]}"}
            about |= {"queries": len(self.queries[side]), "candidates": sizes[1 - side]}
            for metric, interval in zip(METRICS, mean_intervals(self.measures(case)), strict=True):
                span = {"value": interval.value, "low": interval.low, "high": interval.high}
                found.append({**about, "metric": metric, **span})
        return found


def halves(pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs are to be learnt from: those of half of the first language's words, drawn once and for all."""
    words = np.unique(pairs[:, 0])
    drawn = words[permuted(np.arange((len(words) + 1) // 2), len(words), _HALVES)]
    return np.isin(pairs[:, 0], drawn)


def static_vectors(texts: Iterable[list[str]]) -> StaticVectors:
    """The vectors of the words of some texts, learnt from these alone."""
    return train_static(texts, "cbow", width=_STATIC_WIDTH, epochs=_STATIC_EPOCHS)
