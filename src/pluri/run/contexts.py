"""One word in many sentences: what its contextual vectors tell apart, and static ones cannot.

Legend: n occurrences that are drawn, L layers (the embedding and each layer), H heads, S pieces of a sentence.
"""

from collections.abc import Iterable, Sequence
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
from pluri.inference.word_vectors import word_vectors
from pluri.models.heads import Model
from pluri.run.command import command_line
from pluri.run.corpus import Corpus, is_word, never_occurs
from pluri.run.occurrences import Reading, Sentences
from pluri.runtime import pick_device
from pluri.tasks.clusters import Clusters, clustered
from pluri.tasks.static import read_vectors
from pluri.tasks.word2vec import train_static
from pluri.tokens.tokenizer import Tokenizer

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
    unknown: whether the tokenizer reads the word, or a part of it, as unknown.
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
    unknown: bool
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
            "unknown": self.unknown,
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
        other sentences, whose words may be neighbours, 500.
    layer: 0 is the embedding; by default the last. static: cbow or skip-gram, learnt from 50,000 sentences of the same
        file, or a file of static vectors.
    segmented: words are what stands between blanks.
    DataError: the word never occurs (those spelled nearly so are named), or once only. UsageError: see `word_vectors`.
    """
    corpus = Corpus.of(sentences, segmented=segmented)
    where = ", ".join(corpus.files)
    if not word.strip():
        raise UsageError("no word given", where="word", do="name one that the file has")
    word = word.strip()
    drawn = Sentences.of(word, corpus, seed)
    having = drawn.having
    if not having:
        raise never_occurs(word, drawn.vocabulary, where)
    opened, tokenizer = load_model(model)
    depth = opened.config.num_layers
    chosen = depth if layer is None else layer
    if not 0 <= chosen <= depth:
        raise UsageError(f"no layer {chosen}", where="layer", do=f"0, the embedding, to {depth}, the last")
    reading = Reading(word, corpus, chosen, seed)
    for chunk in word_vectors(opened, tokenizer, map(corpus.read, having + drawn.others)):
        reading.take(chunk, having)
    if len(having) < 2:
        what = f"the word {word!r} occurs in 1 sentence, and there is nothing to compare it with"
        raise DataError(what, where=where, do="give more sentences with it")
    if len(reading.kept) < 2:
        length = opened.config.max_length
        what = f"{len(reading.kept)} of {len(having)} sentences have {word!r} within the {length} tokens that are read"
        raise DataError(what, where=where, do="give shorter sentences")
    vectors = np.stack(reading.kept, axis=1)  # (L, n, D)
    clusters = clustered(vectors[chosen])
    order = clusters.order
    shown = [Occurrence(*reading.spots[int(i)], cluster=int(clusters.labels[i])) for i in order]
    unit = vectors[:, order] / np.linalg.norm(vectors[:, order], axis=2, keepdims=True)
    centres = [vectors[chosen][clusters.labels == c].mean(0) for c in range(clusters.count)]
    names, means = reading.types()
    ids = _shortest(tokenizer, [each.sentence for each in shown if each.cluster == 0], opened.config.max_length)
    return Contexts(
        word=word,
        model=str(model),
        command=command_line(
            "compare",
            word,
            sentences=corpus.files,
            model=model,
            layer=layer,
            static=None if static == "cbow" else static,
            segmented=segmented,
            seed=seed or None,
            output="report.html",
        ),
        layer=chosen,
        occurrences=shown,
        cosines=np.clip(unit @ unit.transpose(0, 2, 1), -1, 1),
        baseline=reading.baseline(),
        clusters=clusters,
        neighbours=[_nearest(centre, names, means) for centre in centres],
        static=_static(static, word, corpus, drawn, len(shown), seed),
        found=drawn.found,
        lost=len(having) - len(shown),
        unknown=tokenizer.unk_id is not None and tokenizer.unk_id in tokenizer.encode_batch([word])[0].ids,
        pieces=tokenizer.tokens(ids),
        attention=_attention(opened, ids),
    )


def _nearest(centre: NDArray, names: Sequence[str], vectors: NDArray) -> Neighbours:
    """The words whose vectors have the largest cosine with one."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centre)
    cosines = vectors @ centre / np.maximum(lengths, 1e-12)
    return [(names[int(i)], float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:_NEIGHBOURS]]


def _static(method: str, word: str, corpus: Corpus, drawn: Sentences, n: int, seed: int) -> Static:
    others = [name for name in drawn.vocabulary if is_word(name) and name != word.lower()]
    if method in ("cbow", "skip-gram"):
        learnt = [corpus.tokens(sentence, word) for sentence in drawn.learnt]
        vectors, count = train_static(learnt, method, seed=seed), sum(map(len, learnt))
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
