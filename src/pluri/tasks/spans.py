"""Tags that spell spans (B-PER I-PER O): their scheme, the spans that they spell, and which tag may follow which.

IOB1 and IOB2: Tjong Kim Sang and Veenstra, "Representing Text Chunks", 1999. BIOES, BILOU and BMES also mark the last
unit of a span (E or L) and a span of one unit (S or U).

Legend: U units (the tokens of all sentences, one after the other), G sentences, C labels, S spans.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pluri.config import Config
from pluri.tokens.ragged import offsets_of

Scheme = Literal["IOB1", "IOB2", "BIOES", "BILOU", "BMES"]
Ids = NDArray[np.int64]

_OUTSIDE, _BEGIN, _INSIDE, _END, _SINGLE = range(5)
_IOB = {"B": _BEGIN, "I": _INSIDE}
_PARTS: dict[Scheme, dict[str, int]] = {
    "IOB2": _IOB,
    "IOB1": _IOB,
    "BIOES": {"B": _BEGIN, "I": _INSIDE, "E": _END, "S": _SINGLE},
    "BILOU": {"B": _BEGIN, "I": _INSIDE, "L": _END, "U": _SINGLE},
    "BMES": {"B": _BEGIN, "M": _INSIDE, "E": _END, "S": _SINGLE},
}
_TAG = re.compile("O|([BIESLUM])(?:-(.+))?")


class Tagging(Config):
    """What a model folder keeps of tags that spell spans, as tagging.toml.

    scheme: by default what the labels' names say. legal: predict only sequences of tags that the scheme allows.
    """

    scheme: Scheme | None = None
    legal: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SpanTags:
    """What C labels mean.

    parts: int64 (C,), the unit's place in its span. types: int64 (C,), the span's type, -1 outside. names: of the
        types; "" where tags have none (B, I).
    allowed: bool (C + 1, C + 1), whether the column may follow the row; row C is the start of a sentence, column C its
        end.
    """

    parts: Ids
    types: Ids
    names: tuple[str, ...]
    allowed: NDArray[np.bool_]


def scheme_of(labels: Sequence[str]) -> Scheme | None:
    """The scheme that labels are named by: a letter and a type (B-PER), or a letter alone; None if they spell no spans.

    By names alone IOB1 is taken for IOB2, which has the same ones.
    """
    tags = [_TAG.fullmatch(label) for label in labels]
    letters = {tag[1] for tag in tags if tag} - {None}
    typed = any(tag and tag[2] for tag in tags)
    if not all(tags) or not (typed or "B" in letters):  # I and O alone are more likely something else
        return None
    return next((scheme for scheme, parts in _PARTS.items() if letters <= parts.keys()), None)


def recognized(labels: tuple[str, ...], ids: Ids, lengths: Ids) -> Scheme | None:
    """As `scheme_of`, but IOB1 is told from IOB2: by which of them forbids fewer of the tags.

    ids: (U,), the label of each unit. lengths: (G,), units of each sentence.
    """
    scheme = scheme_of(labels)
    if scheme != "IOB2":
        return scheme
    either: tuple[Scheme, Scheme] = ("IOB2", "IOB1")
    return min(either, key=lambda one: int(illegal(span_tags(labels, one), ids, lengths).sum()))


@lru_cache(maxsize=16)
def span_tags(labels: tuple[str, ...], scheme: Scheme) -> SpanTags:
    tags = [_TAG.fullmatch(label) for label in labels]
    names = sorted({tag[2] or "" for tag in tags if tag and tag[1]})
    # a letter of another scheme, in data that was not learnt from, goes on with its span
    parts = [_PARTS[scheme].get(tag[1], _INSIDE) if tag and tag[1] else _OUTSIDE for tag in tags]
    types = [names.index(tag[2] or "") if tag and tag[1] else -1 for tag in tags]
    allowed = _allowed(scheme, np.array([*parts, _OUTSIDE]), np.array([*types, -1]))
    return SpanTags(np.array(parts, np.int64), np.array(types, np.int64), tuple(names), allowed)


def _allowed(scheme: Scheme, parts: Ids, types: Ids) -> NDArray[np.bool_]:
    """parts, types: (C + 1,), the border of a sentence last. IOB1: B only parts neighbours of one type."""
    going_on = parts == _BEGIN if scheme == "IOB1" else np.isin(parts, (_INSIDE, _END))
    unfinished = np.isin(parts, (_BEGIN, _INSIDE))[:, None]
    allowed = ~going_on | (unfinished & (types[:, None] == types))
    return allowed if scheme in ("IOB1", "IOB2") else allowed & (~unfinished | going_on)


def illegal(tags: SpanTags, ids: Ids, lengths: Ids) -> NDArray[np.bool_]:
    """Which units (U,) have a tag that may not stand there: after the one before it, or at the end of its sentence."""
    border, filled = len(tags.parts), lengths > 0
    offsets = offsets_of(lengths)
    before = np.roll(ids, 1)
    before[offsets[:-1][filled]] = border
    wrong = ~tags.allowed[before, ids]
    last = offsets[1:][filled] - 1
    wrong[last] |= ~tags.allowed[ids[last], border]
    return wrong


def find_spans(tags: SpanTags, ids: Ids, lengths: Ids) -> tuple[Ids, Ids, Ids]:
    """(first unit, last unit + 1, type) of each span, (S,) each, in order; units are counted over all sentences.

    Illegal tags are read as conlleval does (Tjong Kim Sang and Buchholz 2000), and seqeval unless it is told to be
    strict: neighbours of one type are one span, unless the first ends one or the second begins one.
    """
    parts, types = tags.parts[ids], tags.types[ids]
    apart = np.ones(len(ids) + 1, bool)  # whether no span goes on from unit i - 1 to unit i
    apart[1:-1] = np.isin(parts[:-1], (_END, _SINGLE)) | np.isin(parts[1:], (_BEGIN, _SINGLE)) | (np.diff(types) != 0)
    apart[offsets_of(lengths)] = True
    inside = types >= 0
    starts, lasts = np.flatnonzero(inside & apart[:-1]), np.flatnonzero(inside & apart[1:])
    return starts, lasts + 1, types[starts]


def span_counts(tags: SpanTags, gold: Ids, predicted: Ids, lengths: Ids) -> NDArray[np.float64]:
    """The spans of each sentence that are right (start, end and type), predicted, and true: (G, 3)."""
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    wanted, found = find_spans(tags, gold, lengths), find_spans(tags, predicted, lengths)
    both, i, j = np.intersect1d(wanted[0], found[0], assume_unique=True, return_indices=True)
    right = both[(wanted[1][i] == found[1][j]) & (wanted[2][i] == found[2][j])]
    counts = [np.bincount(sentence[starts], minlength=len(lengths)) for starts in (right, found[0], wanted[0])]
    return np.stack(counts, axis=1).astype(np.float64)
