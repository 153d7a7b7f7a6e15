"""Examples: what an objective or a task makes of a group of sequences, before packing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.tokens.ragged import Ragged, offsets_of, slices

IGNORE = -100
"""The label of a position, or of a sequence, that is not to be predicted."""


@dataclass(frozen=True, slots=True)
class Examples:
    """n training sequences, flat and aligned: example i is `[offsets[i]:offsets[i + 1]]` of each token array.

    input_ids: int32 [T], special tokens included.
    offsets: int64 [n + 1].
    labels: int32 [T], the id to predict at each position, IGNORE elsewhere; None if no position is predicted.
    token_type_ids: uint8 [T], 0 for the first segment and 1 for the second; None if all are 0.
    sequence_labels: int64 [n] (a class; IGNORE = none), float32 [n] (a number) or int64 [n, 2] (of the labelled
        positions, which is the start and which the end of the answer); None if there are none.
    first_positions: int64 [n], where each sequence begins to count its positions; None if all begin at 0.
    source: n sequences that an encoder reads, while these are the decoder's; None without an encoder beside it.
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int32] | None = None
    token_type_ids: NDArray[np.uint8] | None = None
    sequence_labels: NDArray[np.int64] | NDArray[np.float32] | None = None
    first_positions: NDArray[np.int64] | None = None
    source: "Examples | None" = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


def answered(
    answers: Ragged,
    sources: Ragged,
    *,
    start: int,
    unknown: int | None = None,
    first_positions: NDArray[np.int64] | None = None,
) -> Examples:
    """What teaches a decoder to write each answer when its encoder reads the source of the same number.

    The decoder reads `start` and the answer but for its last token: the label of a position is the token that comes
    next. An empty answer leaves `start` alone, without a label.
    unknown: an id that is read but is no label, since nobody could restore it.
    """
    offsets = offsets_of(np.maximum(answers.lengths, 1))
    labels = np.full(offsets[-1], IGNORE, np.int32)
    labels[slices(offsets[:-1], answers.lengths)] = answers.ids
    ids = np.empty_like(labels)
    ids[1:] = labels[:-1]
    ids[offsets[:-1]] = start
    if unknown is not None:
        labels[labels == unknown] = IGNORE
    source = Examples(sources.ids, sources.offsets)
    return Examples(ids, offsets, labels, first_positions=first_positions, source=source)
