"""From labelled pairs to their ids: [CLS] first [SEP] second [SEP], or what else the tokenizer puts around a pair.

Legend: n pairs, T tokens in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError, UsageError
from pluri.tasks.task import Labelled
from pluri.tokens.template import pair_template
from pluri.tokens.tokenizer import Tokenizer

FIRST, SECOND = 1, 3
"""The places of the two sequences among the five parts of a pair."""


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """pieces: int32, the ids of each pair, special tokens included.

    sizes: int64 (n, 5), tokens in each part of a pair: before, first, between, second, after.
    types: uint8 (T,), the segment of each token. truncated: how many pairs were cut.
    """

    pieces: list[NDArray[np.int32]]
    sizes: NDArray[np.int64]
    types: NDArray[np.uint8]
    truncated: int


def encode_pairs(records: Sequence[Labelled], tokenizer: Tokenizer, length: int, *, truncate: bool) -> EncodedPairs:
    """length: the longest pair, special tokens included. truncate: cut longer ones (`fitting`).

    DataError, with file:line: a pair is too long, and not to be cut. UsageError: no pair fits.
    """
    template = pair_template(tokenizer)
    room = length - template.num_special
    if room < 2:
        raise UsageError(f"no pair fits into a model of length {length}", where="max_length")
    firsts, seconds = (_ids(tokenizer, [record.units[side] for record in records]) for side in (0, 1))
    lengths = np.array([(len(a), len(b)) for a, b in zip(firsts, seconds, strict=True)], np.int64)  # (n, 2)
    kept = fitting(lengths, room)
    cut = (kept < lengths).any(1)
    if cut.any() and not truncate:
        at = int(cut.argmax())
        raise DataError(
            f"a pair of {lengths[at, 0]} and {lengths[at, 1]} tokens, the model reads {room}",
            where=records[at].where,
            do="shorten it, or cut such pairs, the longer text first: --truncate (pluri finetune: --set truncate=true)",
        )
    specials = (template.before, template.between, template.after)
    marks = np.split(template.types, np.cumsum([len(part) for part in specials])[:-1])
    pieces, types = [], []
    for a, b, (m, n) in zip(firsts, seconds, kept.tolist(), strict=True):
        pieces.append(np.concatenate([specials[0], a[:m], specials[1], b[:n], specials[2]], dtype=np.int32))
        segments = (np.full(m, template.first, np.uint8), np.full(n, template.second, np.uint8))
        types += [marks[0], segments[0], marks[1], segments[1], marks[2]]
    sizes = np.array([len(part) for part in types], np.int64).reshape(-1, 5)
    return EncodedPairs(pieces, sizes, np.concatenate(types), int(cut.sum()))


def fitting(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """How many tokens of each sequence to keep, (n, 2), so that both fit into `room`. lengths: (n, 2).

    The longer one loses its end until both are equal; of an odd room it keeps one more, of two equal ones the second
    does. So does "longest_first" of the `tokenizers` library.
    """
    first, second = lengths.T
    shorter = np.minimum(np.minimum(first, second), room // 2)
    longer = np.minimum(np.maximum(first, second), room - shorter)
    swapped = first > second
    return np.stack([np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)], 1)


def compared(u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    """What tells two vectors apart: u, v, |u - v|, u * v (Conneau et al. 2017, section 3.1). (n, D) to (n, 4D)."""
    return np.concatenate([u, v, np.abs(u - v), u * v], axis=1)


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch(texts)]
