"""Examples: what an objective or a task makes of a group of sequences, before packing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    input_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int32] | None = None
    token_type_ids: NDArray[np.uint8] | None = None
    sequence_labels: NDArray[np.int64] | NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)
