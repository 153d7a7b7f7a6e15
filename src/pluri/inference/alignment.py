"""How well two languages lie upon each other: ranks of translations by the cosine of their vectors.

Legend: L layers, W words, D width, S queries, T candidates, P pairs.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pluri.inference.word_vectors import word_vectors
from pluri.models.heads import Model
from pluri.runtime import Precision
from pluri.tokens.dictionary import Entries
from pluri.tokens.ragged import slices
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.words import split_words

Similarity = Literal["raw", "centred", "csls"]
"""The cosine; the same after the mean of its language is taken from each vector; that, corrected for hubs (CSLS)."""

SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
_NEIGHBOURS = 10  # Conneau et al. 2018, section 2.3
_BLOCK = 1 << 24  # similarities held at once: 64 MiB
_STRIDE = 1 << 32  # more words than any text has


@dataclass(frozen=True, slots=True)
class WordMeans:
    """What a model makes of the words of a corpus.

    vectors: float32 (L, W, D), of each entry the mean over its occurrences, 0 where it has none; mapped from disk.
    counts: int64 (W,), occurrences. mean: float32 (L, D), over all words of the corpus, entries or not.
    words: how many were read; cut: how many were not, being beyond the model's length.
    """

    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]
    mean: NDArray[np.float32]
    words: int
    cut: int


def mean_vectors(
    model: Model, tokenizer: Tokenizer, texts: Iterable[str], entries: Entries, *, precision: Precision = "auto"
) -> WordMeans:
    """The mean vectors, in every layer, of words and phrases over running text. Memory does not grow with the text.

    An occurrence of several words, or of several characters where there are no spaces, is the mean over these.
    """
    layers, width = model.config.num_layers + 1, model.config.hidden_size
    shape = (layers, max(len(entries), 1), width)
    with tempfile.TemporaryFile() as file:
        vectors = np.memmap(file, np.float32, "w+", shape=shape)  # pyright: ignore[reportArgumentType]
    sums = torch.from_numpy(vectors)
    total = torch.zeros(layers, width, dtype=torch.float64)
    counts, words, cut, first = np.zeros(len(entries), np.int64), 0, 0, 0
    waiting: list[list[str]] = []

    def remembered() -> Iterable[str]:
        for text in texts:
            waiting.append([word for word, _ in split_words(text)])
            yield text

    for chunk in word_vectors(model, tokenizer, remembered(), precision=precision):
        last = int(chunk.text[-1]) + 1 if len(chunk.text) else first
        spans = [(first + i, *span) for i in range(last - first) for span in entries.find(waiting[i])]
        del waiting[: last - first]
        found = torch.from_numpy(chunk.vectors)
        total += found.sum(1, dtype=torch.float64)
        words, cut, first = words + len(chunk.words), cut + chunk.cut, last
        if spans:
            text, begin, end, number = np.array(spans, np.int64).T
            keys = chunk.text * _STRIDE + chunk.place
            low, high = (np.searchsorted(keys, text * _STRIDE + side) for side in (begin, end))
            whole = high - low == end - begin  # none of it was cut
            low, sizes, number = low[whole], (end - begin)[whole], number[whole]
            parts = found[:, slices(low, sizes)] / torch.from_numpy(np.repeat(sizes, sizes)).float()[:, None]
            sums.index_add_(1, torch.from_numpy(np.repeat(number, sizes)), parts)
            counts += np.bincount(number, minlength=len(entries))
    sums /= torch.from_numpy(np.maximum(counts, 1)).float()[:, None]
    return WordMeans(vectors, counts, (total / max(words, 1)).float().numpy(), words, cut)


def mean_sentences(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], *, precision: Precision = "auto"
) -> NDArray[np.float32]:
    """(L, S, D): of each text the mean of its words' vectors; 0 of a text without any."""
    layers, width = model.config.num_layers + 1, model.config.hidden_size
    sums, counts = torch.zeros(layers, len(texts), width), np.zeros(len(texts), np.int64)
    for chunk in word_vectors(model, tokenizer, texts, precision=precision):
        sums.index_add_(1, torch.from_numpy(chunk.text), torch.from_numpy(chunk.vectors))
        counts += np.bincount(chunk.text, minlength=len(texts))
    return (sums / torch.from_numpy(np.maximum(counts, 1)).float()[:, None]).numpy()


def directions(vectors: NDArray[np.float32], similarity: Similarity) -> Tensor:
    """Unit vectors (W, D), whose products are cosines; but for "raw", of what is left without the mean of all."""
    unit = F.normalize(torch.from_numpy(np.asarray(vectors, np.float32)), dim=-1)
    return unit if similarity == "raw" else F.normalize(unit - unit.mean(0), dim=-1)


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal map (D, D) that brings P vectors nearest to P others (Schönemann 1966): source @ map ~ target."""
    u, _, v = torch.linalg.svd(source.T @ target)
    return u @ v


def ranks(
    source: Tensor, target: Tensor, pairs: NDArray[np.int64], similarity: Similarity
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rank, from 1, of the best true translation among all of the other language, in both directions.

    source, target: directions (S, D) and (T, D). pairs: (P, 2), which are translations of each other.
    Equal similarities share their ranks: where all are equal, nothing was found. CSLS (Conneau et al. 2018, equation 3)
    takes from each candidate its mean cosine with its 10 nearest queries. Returns (S,) and (T,), NaN where a word has
    no translation. Memory: blocks of 16 million similarities.
    """
    return (
        _ranks(source, target, pairs, similarity == "csls"),
        _ranks(target, source, pairs[:, ::-1], similarity == "csls"),
    )


def _ranks(queries: Tensor, candidates: Tensor, pairs: NDArray[np.int64], csls: bool) -> NDArray[np.float64]:
    """Ranks (S,) of the queries; pairs: (P, 2) of query and candidate."""
    hubs = _nearness(candidates, queries) if csls else None
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    asked, offsets = np.unique(pairs[:, 0], return_index=True)
    found = np.full(len(queries), np.nan)
    rows = max(1, _BLOCK // len(candidates))
    for start in range(0, len(asked), rows):
        index = asked[start : start + rows]
        stop = offsets[start + rows] if start + rows < len(asked) else len(pairs)
        mine = pairs[offsets[start] : stop]
        similar = queries[index] @ candidates.T  # (rows, T)
        if hubs is not None:
            similar = 2 * similar - hubs
        row, column = torch.from_numpy(np.searchsorted(index, mine[:, 0])), torch.from_numpy(mine[:, 1].copy())
        best = torch.full((len(index),), -torch.inf).scatter_reduce(0, row, similar[row, column], "amax")
        similar[row, column] = -torch.inf
        above, level = ((similar > best[:, None]).sum(1), (similar == best[:, None]).sum(1))
        found[index] = (1 + above + level / 2).numpy()
    return found


def _nearness(points: Tensor, others: Tensor) -> Tensor:
    """(T,): the mean cosine of each point (T, D) with its nearest ones among the others."""
    rows, nearest = max(1, _BLOCK // len(others)), min(_NEIGHBOURS, len(others))
    parts = [(part @ others.T).topk(nearest, dim=1).values.mean(1) for part in points.split(rows)]
    return torch.cat(parts)
