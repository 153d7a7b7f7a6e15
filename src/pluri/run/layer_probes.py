"""Linear probes in each layer: what a tag's worth of it can be read off, and what a probe would learn by heart.

Legend: U tokens of all sentences, L layers (the embedding and each layer), D width, R replicates.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError
from pluri.inference.word_vectors import word_vectors
from pluri.models.heads import Model
from pluri.run.corpus import sampled
from pluri.tasks.formats import read_labelled
from pluri.tasks.intervals import Interval, draws, percentiles
from pluri.tasks.probes import control_tags, probed
from pluri.tasks.task import Labelled
from pluri.tokens.tokenizer import Tokenizer

_SENTENCES = 800  # that are drawn of the tagged file
_TEST = 4  # every fourth sentence


def read_tagged(file: str, seed: int) -> list[Labelled]:
    """At most 800 tagged sentences, drawn by chance. DataError: see `read_labelled`, or too few to test on."""
    found = sampled(read_labelled(file, "tag"), _SENTENCES, seed)
    if len(found) < 2 * _TEST or len({tag for each in found for tag in each.labels}) < 2:
        what = f"{len(found)} sentences with {len({tag for each in found for tag in each.labels})} tags"
        raise DataError(what, where=file, do=f"give at least {2 * _TEST} sentences with several tags")
    return found


def probes(model: Model, tokenizer: Tokenizer, tagged: Sequence[Labelled], seed: int) -> dict[str, list[Interval]]:
    """probe_accuracy, control_accuracy and selectivity, their difference, in each layer, with intervals over sentences.

    Every fourth sentence is tested on, the others are learnt from.
    """
    chunks = list(word_vectors(model, tokenizer, (each.units for each in tagged)))
    vectors = np.concatenate([chunk.vectors for chunk in chunks], axis=1)  # (L, U, D)
    text = np.concatenate([chunk.text for chunk in chunks])
    words = [word for chunk in chunks for word in chunk.words]
    place = np.concatenate([chunk.place for chunk in chunks])
    names = sorted({tag for each in tagged for tag in each.labels})
    index = {name: i for i, name in enumerate(names)}
    tags = np.array([index[tagged[t].labels[p]] for t, p in zip(text, place, strict=True)], np.int64)
    control = control_tags(words, tags, seed)
    test = text % _TEST == _TEST - 1
    sequence = np.unique(text[test], return_inverse=True)[1]
    weights = draws(int(sequence.max()) + 1)
    found: dict[str, list[Interval]] = {}
    for layer in vectors:
        right = [probed(layer[~test], labels[~test], layer[test]) == labels[test] for labels in (tags, control)]
        means = [_accuracies(hits, sequence, weights) for hits in right]
        for name, (value, replicates) in {
            "probe_accuracy": means[0],
            "control_accuracy": means[1],
            "selectivity": (means[0][0] - means[1][0], means[0][1] - means[1][1]),
        }.items():
            found.setdefault(name, []).append(percentiles(value, replicates))
    return found


def _accuracies(
    hits: NDArray[np.bool_], sequence: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """The share of hits, and its replicates where sentences are drawn by weights: (R,)."""
    right, all_of_them = np.bincount(sequence, hits), np.bincount(sequence)
    return float(hits.mean()), (weights @ right) / (weights @ all_of_them)
