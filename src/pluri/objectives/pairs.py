"""Sentence pairs: which two parts stand in a sequence, and what is to be told of them.

NSP, next sentence prediction: the second part follows the first (label 0), or is from another document (label 1), half
of the time each (BERT: Devlin et al., 2019, section 3.1). SOP, sentence order prediction: two neighbours in order
(label 0) or swapped (label 1), half of the time each (ALBERT: Lan et al., 2020, section 3.1).

Legend: n sequences; parts (2n,), those of sequence i at 2i and 2i + 1; S sentence starts.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import IGNORE
from pluri.objectives.pieces import Pieces
from pluri.runtime import Keys, uniform
from pluri.tokens.store import TokenStore

_BORDER, _LABEL, _OTHER = range(3)
"""What a draw is for."""

_MOST_PIECES = 1_000_000
"""Pieces that random second parts are taken from: more would only take memory."""


@dataclass(frozen=True, slots=True)
class Tails:
    """Every second part that there is: what stands in a piece from one of its sentence starts on.

    tails: (S,), by length and then by document. keys: int64 (S,), length * stride + document, ascending.
    """

    tails: Pieces
    keys: NDArray[np.int64]
    stride: int

    @classmethod
    def of(cls, store: TokenStore, pieces: Pieces) -> Self:
        """The tails of all pieces; of more than a million, of that many spread evenly."""
        if len(pieces) > _MOST_PIECES:
            pieces = pieces.take(np.linspace(0, len(pieces) - 1, _MOST_PIECES).astype(np.int64))
        sentences = store.sentence_starts(pieces.documents, pieces.starts, pieces.lengths)
        piece = np.repeat(np.arange(len(pieces)), sentences.lengths)  # (S,)
        lengths = pieces.lengths[piece] - sentences.ids
        stride = int(pieces.documents.max(initial=0)) + 1
        keys = lengths * stride + pieces.documents[piece]
        order = np.argsort(keys, kind="stable")
        tails = Pieces(pieces.documents[piece], pieces.starts[piece] + sentences.ids, lengths).take(order)
        return cls(tails, keys[order], stride)

    def elsewhere(self, parts: Pieces, chance: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A tail as long as each part, of any other document, each as likely as the next; and whether there is one.

        parts: n, of documents that may be unknown here. Returns places in `tails` (n,), and bool (n,).
        """
        base = parts.lengths * self.stride
        first, last = np.searchsorted(self.keys, base), np.searchsorted(self.keys, base + self.stride)
        own = np.clip(np.searchsorted(self.keys, base + parts.documents), first, last)
        own_end = np.clip(np.searchsorted(self.keys, base + parts.documents, side="right"), first, last)
        others = last - first - (own_end - own)
        place = first + (chance * others).astype(np.int64)
        return np.where(place < own, place, place + own_end - own), others > 0


def sop(store: TokenStore, pieces: Pieces, keys: Keys) -> tuple[Pieces, NDArray[np.int64]]:
    """The two parts of each piece, in order or swapped, and the labels (n,).

    A piece without a sentence border inside is one part, its second part is empty, and its label is IGNORE.
    """
    border = _border(store, pieces, keys)  # (n,)
    swapped = (uniform(keys, _LABEL) < 0.5) & (border > 0)
    first, second = _halves(pieces, border)
    return (
        _interleaved(_where(swapped, second, first), _where(swapped, first, second)),
        np.where(border > 0, swapped.astype(np.int64), IGNORE),
    )


def nsp(store: TokenStore, pieces: Pieces, keys: Keys, tails: Tails) -> tuple[Pieces, NDArray[np.int64]]:
    """The first part of each piece, and its second part or one from another document; and the labels (n,).

    A random part begins and ends where a true one could, and is exactly as long as the true one that it stands for: so
    its content alone tells it from a true one, and lengths say nothing.
    tails: where random parts are taken from.
    A piece without a sentence border inside, or whose second part has no equal in length elsewhere, is one part: its
    second part is empty, and its label is IGNORE.
    """
    border = _border(store, pieces, keys)
    _, second = _halves(pieces, border)
    place, known = tails.elsewhere(second, uniform(keys, _OTHER))
    random = known & (uniform(keys, _LABEL) < 0.5)
    first, second = _halves(pieces, np.where(known, border, 0))
    return (
        _interleaved(first, _replaced(second, random, tails.tails.take(place[random]))),
        np.where(known, random.astype(np.int64), IGNORE),
    )


def _border(store: TokenStore, pieces: Pieces, keys: Keys) -> NDArray[np.int64]:
    """One of the sentence starts of each piece, 0 where it has none: (n,)."""
    sentences = store.sentence_starts(pieces.documents, pieces.starts, pieces.lengths)
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


def _where(condition: NDArray[np.bool_], yes: Pieces, no: Pieces) -> Pieces:
    return Pieces(
        np.where(condition, yes.documents, no.documents),
        np.where(condition, yes.starts, no.starts),
        np.where(condition, yes.lengths, no.lengths),
    )


def _replaced(pieces: Pieces, condition: NDArray[np.bool_], others: Pieces) -> Pieces:
    """The pieces, but `others`, as many as there are, where the condition holds."""

    def column(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.int64]:
        changed = mine.copy()
        changed[condition] = theirs
        return changed

    return Pieces(
        column(pieces.documents, others.documents),
        column(pieces.starts, others.starts),
        column(pieces.lengths, others.lengths),
    )


def _interleaved(first: Pieces, second: Pieces) -> Pieces:
    """The parts of sequence i at 2i and 2i + 1."""
    return Pieces(
        np.stack([first.documents, second.documents], 1).reshape(-1),
        np.stack([first.starts, second.starts], 1).reshape(-1),
        np.stack([first.lengths, second.lengths], 1).reshape(-1),
    )
