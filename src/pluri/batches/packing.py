"""Packing: several sequences share a row, so that almost no position is padding.

Legend: n sequences of T tokens in all, B rows, L positions a row.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.errors import UsageError

MULTIPLE = 8
"""L is a multiple of this: vector units and tensor cores like it."""


def pack(examples: Examples, length: int, *, packed: bool = True) -> Batch:
    """Lays the sequences into rows of at most `length` positions (rounded up to a multiple of 8).

    packed: False puts one sequence into each row, in order: the same Batch, only with padding.
    A sequence and its source stand in the same row, each side with its own L.
    L is trimmed to the fullest row. Padding holds id 0, which nothing reads.
    UsageError if a sequence is empty or longer than `length`.
    """
    sides = [examples] if examples.source is None else [examples, examples.source]
    for side in sides:
        _check(side.lengths, length)
    if packed:
        rows, columns = best_fit(np.max([side.lengths for side in sides], 0), length)
    else:
        rows, columns = np.arange(len(examples)), np.zeros(len(examples), np.int64)
    order = np.lexsort((columns, rows))  # row after row, from left to right
    batch, *source = (_laid(side, rows, order) for side in sides)
    return replace(batch, source=source[0]) if source else batch


def _laid(examples: Examples, rows: NDArray[np.int64], order: NDArray[np.int64]) -> Batch:
    """The sequences in their rows (n,), packed from the left. order: (n,), row after row, from left to right."""
    lengths = examples.lengths  # (n,)
    in_order, sizes = rows[order], lengths[order]
    first = np.searchsorted(in_order, in_order)  # (n,) of its row, in `order`
    ranks, columns = np.empty(len(rows), np.int32), np.empty(len(rows), np.int64)
    ranks[order] = np.arange(len(rows)) - first + 1  # 1, 2, ... in each row
    before = np.cumsum(sizes) - sizes
    columns[order] = before - before[first]
    fullest = int((columns + lengths).max(initial=0))
    shape = (int(rows.max(initial=-1)) + 1, -(-fullest // MULTIPLE) * MULTIPLE)

    starts = rows * shape[1] + columns  # (n,)
    positions = np.arange(examples.offsets[-1]) - np.repeat(examples.offsets[:-1], lengths)  # (T,)
    places = positions + np.repeat(starts, lengths)  # (T,), where in the flattened rows each token goes
    if examples.first_positions is not None:
        positions = positions + np.repeat(examples.first_positions, lengths)

    def laid(values: NDArray, dtype: type, empty: int = 0) -> Tensor:
        flat = np.full(shape[0] * shape[1], empty, dtype)
        flat[places] = values
        return torch.from_numpy(flat.reshape(shape))

    types, labels, sequence_labels = examples.token_type_ids, examples.labels, examples.sequence_labels
    return Batch(
        input_ids=laid(examples.input_ids, np.int64),
        sequence_ids=laid(np.repeat(ranks, lengths), np.int32),
        position_ids=laid(positions, np.int64),
        token_type_ids=torch.zeros(shape, dtype=torch.int64) if types is None else laid(types, np.int64),
        starts=torch.from_numpy(starts),
        lengths=torch.from_numpy(lengths),
        labels=None if labels is None else laid(labels, np.int64, IGNORE),
        sequence_labels=None if sequence_labels is None else torch.from_numpy(sequence_labels),
    )


def best_fit(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best-fit decreasing: the longest first, each into the row that it leaves least room in (Johnson et al., 1974).

    lengths: (n,), each 1 to `capacity`. Returns the row and the first column of each sequence, both (n,).
    """
    rows, columns = [0] * len(lengths), [0] * len(lengths)
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by their free positions
    rooms = 0  # bit f is set while some row has f free positions: the best fit is its lowest bit at or above `need`
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for i, need in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> need
        if fitting:
            free = need + (fitting & -fitting).bit_length() - 1
            row = with_room[free].pop()
            if not with_room[free]:
                rooms ^= 1 << free
        else:
            free, row = capacity, num_rows
            num_rows += 1
        with_room[free - need].append(row)
        rooms |= 1 << (free - need)
        rows[i], columns[i] = row, capacity - free
    return np.array(rows, np.int64), np.array(columns, np.int64)


def deal(batch: Batch, hands: int) -> list[Tensor]:
    """Which rows each of `hands` gets, ascending: as many as any other or one less, and about as many tokens.

    Where there are fewer rows than hands, the last ones get none.
    """
    tokens = (batch.sequence_ids != 0).sum(1)  # (B,)
    if batch.source is not None:
        tokens += (batch.source.sequence_ids != 0).sum(1)
    order = tokens.argsort(descending=True, stable=True)
    turn, place = torch.arange(len(order)).div(hands, rounding_mode="floor"), torch.arange(len(order)) % hands
    hand = torch.where(turn % 2 == 0, place, hands - 1 - place)  # there and back: who got the longest gets the shortest
    counts = torch.bincount(hand, minlength=hands).tolist()
    return [rows.sort().values for rows in order[hand.argsort(stable=True)].split(counts)]


def take(batch: Batch, rows: Tensor) -> Batch:
    """These rows, ascending, and the sequences that stand in them."""
    num_rows, length = batch.input_ids.shape
    if len(rows) == num_rows:
        return batch
    place = torch.full((num_rows,), -1)
    place[rows] = torch.arange(len(rows))
    row, column = batch.starts.div(length, rounding_mode="floor"), batch.starts % length  # (N,)
    here = place[row] >= 0
    labels, sequence_labels = batch.labels, batch.sequence_labels
    return Batch(
        input_ids=batch.input_ids[rows],
        sequence_ids=batch.sequence_ids[rows],
        position_ids=batch.position_ids[rows],
        token_type_ids=batch.token_type_ids[rows],
        starts=place[row[here]] * length + column[here],
        lengths=batch.lengths[here],
        labels=None if labels is None else labels[rows],
        sequence_labels=None if sequence_labels is None else sequence_labels[here],
        source=None if batch.source is None else take(batch.source, rows),
    )


def _check(lengths: NDArray[np.int64], length: int) -> None:
    longest = int(lengths.max(initial=1))
    if longest > length:
        raise UsageError(
            f"a sequence of {longest} tokens does not fit into rows of {length}",
            do="cut the sequences or raise the length",
        )
    if lengths.min(initial=1) < 1:
        raise UsageError("a sequence without tokens cannot be packed", do="leave empty sequences out")
