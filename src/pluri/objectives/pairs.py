"""Sentence pairs: which two parts stand in a sequence, and what is to be told of them.

NSP, next sentence prediction: the second part follows the first (label 0), or is from another document (label 1), half
of the time each (BERT: Devlin et al., 2019, section 3.1). SOP, sentence order prediction: two neighbours in order
(label 0) or swapped (label 1), half of the time each (ALBERT: Lan et al., 2020, section 3.1).

Legend: n sequences; parts (2n,), those of sequence i at 2i and 2i + 1.
"""

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import IGNORE
from pluri.objectives.pieces import Pieces
from pluri.runtime import Keys, uniform
from pluri.tokens.ragged import Ragged
from pluri.tokens.store import TokenStore

_BORDER, _LABEL, _OTHER = range(3)
"""What a draw is for."""


def sop(store: TokenStore, pieces: Pieces, keys: Keys) -> tuple[Pieces, NDArray[np.int64]]:
    """The two parts of each piece, in order or swapped, and the labels (n,).

    A piece without a sentence border inside is one part, its second part is empty, and its label is IGNORE.
    """
    border = _border(store.sentence_starts(pieces.documents, pieces.starts, pieces.lengths), keys)  # (n,)
    swapped = (uniform(keys, _LABEL) < 0.5) & (border > 0)
    first, second = _halves(pieces, border)
    return (
        _interleaved(_where(swapped, second, first), _where(swapped, first, second)),
        np.where(border > 0, swapped.astype(np.int64), IGNORE),
    )


def nsp(
    store: TokenStore, pieces: Pieces, keys: Keys, everything: Pieces, room: int
) -> tuple[Pieces, NDArray[np.int64]]:
    """The first part of each piece, and its second part or one from another document; and the labels (n,).

    everything: where a random part is taken from, pieces sorted by document. A random part begins and ends where a true
    one could, at sentence borders, and is about as long, so that its content alone tells it from a true one.
    room: tokens of both parts together at most.
    A piece without a sentence border inside is one part, its second part is empty, and its label is IGNORE.
    """
    border = _border(store.sentence_starts(pieces.documents, pieces.starts, pieces.lengths), keys)
    random = (uniform(keys, _LABEL) < 0.5) & (border > 0)
    first, second = _halves(pieces, border)
    other = _from_another_document(everything, pieces.documents, uniform(keys, _OTHER))
    other = _tail(store, other, second.lengths, room - first.lengths)
    return (
        _interleaved(first, _where(random, other, second)),
        np.where(border > 0, random.astype(np.int64), IGNORE),
    )


def _border(sentences: Ragged, keys: Keys) -> NDArray[np.int64]:
    """One of the sentence starts of each piece, 0 where it has none: (n,)."""
    counts = sentences.lengths
    nth = (uniform(keys, _BORDER) * counts).astype(np.int64)
    border = np.zeros(len(counts), np.int64)
    some = counts > 0
    border[some] = sentences.ids[(sentences.offsets[:-1] + nth)[some]]
    return border


def _halves(pieces: Pieces, border: NDArray[np.int64]) -> tuple[Pieces, Pieces]:
    """Before and after the border; a piece without one (0) is all in the first part."""
    size = np.where(border > 0, border, pieces.lengths)
    return (
        Pieces(pieces.documents, pieces.starts, size),
        Pieces(pieces.documents, pieces.starts + size, pieces.lengths - size),
    )


def _from_another_document(everything: Pieces, documents: NDArray[np.int64], chance: NDArray[np.float64]) -> Pieces:
    """A piece of any other document, each as likely as the next: n pieces."""
    first = np.searchsorted(everything.documents, documents)
    own = np.searchsorted(everything.documents, documents, side="right") - first
    index = (chance * (len(everything) - own)).astype(np.int64)
    return everything.take(np.where(index < first, index, index + own))


def _tail(store: TokenStore, pieces: Pieces, wanted: NDArray[np.int64], most: NDArray[np.int64]) -> Pieces:
    """Each piece from the sentence start that leaves it nearest to `wanted` tokens; never more than `most`, (n,)."""
    sentences = store.sentence_starts(pieces.documents, pieces.starts, pieces.lengths)
    counts = sentences.lengths
    starts = sentences.ids.astype(np.int64)
    left = np.repeat(pieces.lengths, counts) - starts  # tokens from each sentence start to the end of its piece
    distance = np.abs(left - np.repeat(wanted, counts)) + (left > np.repeat(most, counts)) * 2**20
    some = counts > 0
    border = np.zeros(len(pieces), np.int64)
    if some.any():  # the least (distance, start) of each piece, both in one number
        border[some] = np.minimum.reduceat(distance << 32 | starts, sentences.offsets[:-1][some]) & (2**32 - 1)
    return Pieces(pieces.documents, pieces.starts + border, np.minimum(pieces.lengths - border, most))


def _where(condition: NDArray[np.bool_], yes: Pieces, no: Pieces) -> Pieces:
    return Pieces(
        np.where(condition, yes.documents, no.documents),
        np.where(condition, yes.starts, no.starts),
        np.where(condition, yes.lengths, no.lengths),
    )


def _interleaved(first: Pieces, second: Pieces) -> Pieces:
    """The parts of sequence i at 2i and 2i + 1."""
    return Pieces(
        np.stack([first.documents, second.documents], 1).reshape(-1),
        np.stack([first.starts, second.starts], 1).reshape(-1),
        np.stack([first.lengths, second.lengths], 1).reshape(-1),
    )
