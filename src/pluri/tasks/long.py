"""Sequences that are longer than a model reads: windows that overlap, and their vote.

Legend: n windows, U units, P what windows speak of: one unit each, or one a labelled position.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pluri.config import Config
from pluri.errors import UsageError


class Windows(Config):
    """window_overlap: tokens that windows over longer sequences share, see `Tuning`; None: such are not read so."""

    window_overlap: int | None = Field(default=None, ge=0)


def check_overlap(overlap: int | None, room: int) -> int:
    """Tokens that windows of `room` tokens share; none by default. UsageError beyond half of them."""
    if (overlap or 0) > room // 2:
        what = f"windows of {room} tokens cannot share {overlap}"
        raise UsageError(what, where="window_overlap", do=f"at most {room // 2}")
    return overlap or 0


def token_windows(length: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """(start, end) of windows over a sequence of tokens: all as long as they may be, evenly laid.

    Neighbours share at least `overlap` tokens.
    """
    if length <= room:
        return [(0, length)]
    count = -(-(length - overlap) // (room - overlap))
    starts = np.linspace(0, length - room, count).round().astype(int).tolist()
    return [(start, start + room) for start in starts]


def word_windows(sizes: Sequence[int], room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the words in each window. sizes: the tokens of each word, at most `room`.

    Neighbours share at least `overlap` tokens, where words of several tokens leave room for them.
    """
    first = 0
    while True:
        last, tokens = first, 0
        while last < len(sizes) and tokens + sizes[last] <= room:
            tokens += sizes[last]
            last += 1
        yield first, last
        if last == len(sizes):
            return
        first, shared = last, 0
        while shared < overlap and shared + sizes[first - 1] + sizes[last] <= room:  # what comes next must fit, too
            first -= 1
            shared += sizes[first]


def mean_vote(blocks: Iterable[NDArray[np.float32]], votes: NDArray[np.int64], units: int) -> NDArray[np.float32]:
    """The mean of what was said of each unit, (U, ...). blocks: (some of P, ...), in order. votes: (P,), of which unit.

    Every unit is spoken of.
    """
    total: NDArray[np.float32] = np.zeros(0, np.float32)
    done = 0
    for block in blocks:
        if not done:
            total = np.zeros((units, *block.shape[1:]), np.float32)
        np.add.at(total, votes[done : done + len(block)], block)
        done += len(block)
    counts = np.bincount(votes, minlength=units).astype(np.float32)
    return total / counts.reshape(-1, *[1] * (total.ndim - 1))
