"""One word in many sentences: what its contextual vectors tell apart, and static ones cannot.

Legend: n occurrences that are drawn, L layers (the embedding and each layer), H heads, S pieces of a sentence.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model
from pluri.errors import DataError, UsageError
from pluri.inference.attention_maps import attention_maps
from pluri.inference.embeddings import frame
from pluri.inference.word_vectors import WordVectors, word_vectors
from pluri.models.heads import Model
from pluri.run.corpus import Corpus, Tokenized, is_word, never_occurs, occurrences, sampled
from pluri.runtime import mix, pick_device, uniform
from pluri.tasks.clusters import Clusters, clustered
from pluri.tasks.geometry import mean_cosine
from pluri.tasks.static import read_vectors
from pluri.tasks.word2vec import train_static
from pluri.tokens.tokenizer import Tokenizer

_OCCURRENCES, _OTHERS = 100, 1000  # sentences with the word, and without it, that are read
_NEIGHBOURS = 8
_PIECES = 48  # of the sentence whose attention is drawn

Neighbours = list[tuple[str, float]]  # a word, and its cosine, the nearest first


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A sentence, and the characters [start, end) of the word in it. cluster: 0, 1, ..."""

    sentence: str
    start: int
    end: int
    cluster: int


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """method: cbow, skip-gram or a file. cosines: float32 (n, n), of the word's one vector with itself; None where it
    has none. trained_on: words that it was learnt from, None for a file."""

    method: str
    cosines: NDArray[np.float32] | None
    neighbours: Neighbours
    trained_on: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """What `compare` found. Occurrences stand cluster by cluster, like beside like.

    layer: the one whose vectors make clusters and neighbours. cosines: float32 (L, n, n).
    baseline: float64 (L,), the mean cosine of any two words of the file, from different sentences.
    command: that finds the same.
    found: occurrences in the file; lost: of those that were to be drawn, how many the model's length cut off.
    pieces, attention: a sentence as the model reads it, and float32 (layers, H, S, S), what each piece (a row) takes of
        each.
    """

    word: str
    model: str
    command: str
    layer: int
    occurrences: list[Occurrence]
    cosines: NDArray[np.float32]
    baseline: NDArray[np.float64]
    clusters: Clusters
    neighbours: list[Neighbours]
    static: Static
    found: int
    lost: int
    pieces: list[str]
    attention: NDArray[np.float32]

    def mean_cosines(self, *, within: bool | None = None) -> NDArray[np.float64]:
        """(L,), over pairs of occurrences: all, or those within one cluster, or of two different ones."""
        labels = np.array([each.cluster for each in self.occurrences])
        pairs = ~np.eye(len(labels), dtype=bool)
        if within is not None:
            pairs &= (labels[:, None] == labels) == within
        return self.cosines[:, pairs].astype(np.float64).mean(1)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        count = self.clusters.count
        return {
            "word": self.word,
            "model": self.model,
            "command": self.command,
            "layer": self.layer,
            "found": self.found,
            "lost": self.lost,
            "occurrences": [
                {"sentence": o.sentence, "start": o.start, "end": o.end, "cluster": o.cluster} for o in self.occurrences
            ],
            "cosines": np.round(self.cosines.astype(np.float64), 4).tolist(),
            "baseline": self.baseline.tolist(),
            "clusters": {"count": count, "silhouette": self.clusters.silhouette, "structure": self.clusters.strength},
            "neighbours": self.neighbours,
            "static": {
                "method": self.static.method,
                "cosine": None if self.static.cosines is None else float(self.static.cosines.min()),
                "neighbours": self.static.neighbours,
                "trained_on": self.static.trained_on,
            },
        }


def compare(
    word: str,
    sentences: Iterable[str | Path] | str | Path,
    model: str | Path,
    *,
    layer: int | None = None,
    static: str = "cbow",
    segmented: bool = False,
    seed: int = 0,
) -> Contexts:
    """The vectors of a word in each of its sentences, and what they are near to.

    word: one word, or several in a row, which then count as one; in upper or lower case. Its vector is the mean over
        its words (over characters where a script has no spaces).
    sentences: files, a sentence a line. Of more than 100 occurrences, one a sentence, 100 are drawn by chance; of the
        other sentences, whose words may be neighbours, 1,000.
    layer: 0 is the embedding; by default the last. static: cbow or skip-gram, learnt from the same file, or a file of
        static vectors.
    segmented: words are what stands between blanks.
    DataError: the word never occurs (those spelled nearly so are named), or once only. UsageError: see `word_vectors`.
    """
    corpus = Corpus.of(sentences, segmented=segmented)
    where = ", ".join(corpus.files)
    if not word.strip():
        raise UsageError("no word given", where="word", do="name one that the file has")
    having, others, vocabulary, found = _read(word.strip(), corpus, seed)
    if not having:
        raise never_occurs(word, vocabulary, where)
    opened, tokenizer = load_model(model)
    depth = opened.config.num_layers
    chosen = depth if layer is None else layer
    if not 0 <= chosen <= depth:
        raise UsageError(f"no layer {chosen}", where="layer", do=f"0, the embedding, to {depth}, the last")
    reading = _Reading(word.strip(), corpus, chosen, seed)
    for chunk in word_vectors(opened, tokenizer, map(corpus.read, having + others)):
        reading.take(chunk, having)
    if len(reading.kept) < 2:
        what = f"the word {word!r} occurs in {len(having)} sentence{'s' * (len(having) > 1)}"
        raise DataError(what + ", and vectors need two to compare", where=where, do="give more sentences with it")
    vectors = np.stack(reading.kept, axis=1)  # (L, n, D)
    clusters = clustered(vectors[chosen])
    order = clusters.order
    shown = [Occurrence(*reading.spots[int(i)], cluster=int(clusters.labels[i])) for i in order]
    unit = vectors[:, order] / np.linalg.norm(vectors[:, order], axis=2, keepdims=True)
    centres = [vectors[chosen][clusters.labels == c].mean(0) for c in range(clusters.count)]
    names, means = reading.types()
    ids = _shortest(tokenizer, [each.sentence for each in shown if each.cluster == 0], opened.config.max_length)
    return Contexts(
        word=word.strip(),
        model=str(model),
        command=_command(word, corpus, model, layer, static, segmented, seed),
        layer=chosen,
        occurrences=shown,
        cosines=np.clip(unit @ unit.transpose(0, 2, 1), -1, 1),
        baseline=reading.baseline(),
        clusters=clusters,
        neighbours=[_nearest(centre, names, means) for centre in centres],
        static=_static(static, word.strip(), corpus, vocabulary, len(shown), seed),
        found=found,
        lost=len(having) - len(shown),
        pieces=tokenizer.tokens(ids),
        attention=_attention(opened, ids),
    )


def _command(
    word: str, corpus: Corpus, model: str | Path, layer: int | None, static: str, segmented: bool, seed: int
) -> str:
    files = [part for file in corpus.files for part in ("--sentences", file)]
    said = ["pluri", "compare", word, *files, "--model", str(model)]
    said += [] if layer is None else ["--layer", str(layer)]
    said += [] if static == "cbow" else ["--static", static]
    said += ["--segmented"] * segmented + (["--seed", str(seed)] if seed else [])
    return shlex.join([*said, "-o", "report.html"])


def _read(word: str, corpus: Corpus, seed: int) -> tuple[list[str], list[str], Counter[str], int]:
    """Sentences that have the word, others, how often each word of the file occurs, and how often the word does."""
    vocabulary: Counter[str] = Counter()
    found = 0

    def having() -> Iterator[str]:
        nonlocal found
        for sentence in corpus:
            words = corpus.words(sentence)
            vocabulary.update(name.lower() for name, _ in words)
            times = len(occurrences(word, sentence, words))
            found += times
            if times:
                yield sentence

    first = list(dict.fromkeys(sampled(having(), _OCCURRENCES, seed)))
    others = (sentence for sentence in corpus if not occurrences(word, sentence, corpus.words(sentence)))
    return first, sampled(others, _OTHERS, seed), vocabulary, found


class _Reading:
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
                self._any.append(read.vectors[:, drawn])
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


def _nearest(centre: NDArray, names: Sequence[str], vectors: NDArray) -> Neighbours:
    """The words whose vectors have the largest cosine with one."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centre)
    cosines = vectors @ centre / np.maximum(lengths, 1e-12)
    return [(names[int(i)], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:_NEIGHBOURS]]


def _static(method: str, word: str, corpus: Corpus, vocabulary: Counter[str], n: int, seed: int) -> Static:
    word = word.lower()
    others = [name for name in vocabulary if is_word(name) and name != word]
    if method in ("cbow", "skip-gram"):
        vectors, count = train_static(Tokenized(corpus, word), method, seed=seed), sum(vocabulary.values())
    else:
        vectors, count = read_vectors(method, [word, *others]), None
    row = int(vectors.of([word])[0])
    if not row:
        return Static(method, None, [], count)
    rows = vectors.of(others)
    names = [name for name, found in zip(others, rows, strict=True) if found]
    each = vectors.vectors[np.full(n, row)].astype(np.float64)  # the same vector in each of its sentences
    unit = each / np.linalg.norm(each, axis=1, keepdims=True)
    near = _nearest(vectors.vectors[row], names, vectors.vectors[rows[rows > 0]])
    return Static(method, np.clip(unit @ unit.T, -1, 1).astype(np.float32), near, count)


def _shortest(tokenizer: Tokenizer, sentences: Sequence[str], length: int) -> list[int]:
    """The pieces of the shortest sentence, cut where they are too many to be drawn or read."""
    before, after = frame(tokenizer)
    ids = min((list(encoding.ids) for encoding in tokenizer.encode_batch(sentences)), key=len)
    return [*before, *ids[: min(_PIECES, length) - len(before) - len(after)], *after]


def _attention(model: Model, ids: Sequence[int]) -> NDArray[np.float32]:
    """(layers, H, S, S)."""
    batch = pack(Examples(np.array(ids, np.int32), np.array([0, len(ids)])), model.config.max_length)
    maps = attention_maps(model, batch.to(pick_device()))
    return np.stack([each[0, :, : len(ids), : len(ids)].cpu().numpy() for each in maps])
