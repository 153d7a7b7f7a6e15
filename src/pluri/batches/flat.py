"""A batch as one row without gaps, its sequences end to end: what kernels for sequences of unequal length read.

Legend: N sequences of T tokens in all, S spans.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pluri.batches.batch import Batch, Spans
from pluri.batches.example import IGNORE

MULTIPLE = 256
"""Positions of the row are a multiple of this: matrix units like it."""


def flat(batch: Batch) -> Batch:
    """The same sequences in one row, in the order of `starts`, and padding to a multiple of 256 behind them.

    Makes no device wait: it is for a batch on the CPU, on its way to another device.
    """
    sides = [batch] if batch.source is None else [batch, batch.source]
    longest = [1 << (side.input_ids.shape[1] - 1).bit_length() for side in sides]  # rows are as long, more or less
    pads = -(-MULTIPLE // min(longest))  # as many on both sides, since spans of the same number belong together
    laid, *source = (_laid(side, most, pads) for side, most in zip(sides, longest, strict=True))
    return replace(laid, source=source[0]) if source else laid


def _laid(batch: Batch, longest: int, pads: int) -> Batch:
    places = batch.places  # (T,)
    tokens = len(places)
    total = -(-tokens // MULTIPLE) * MULTIPLE

    def row(values: Tensor, empty: int = 0) -> Tensor:
        """values: (T,), sequence after sequence."""
        return torch.cat((values, values.new_full((total - tokens,), empty))).unsqueeze(0)

    def taken(values: Tensor, empty: int = 0) -> Tensor:
        return row(values.flatten()[places], empty)

    numbers = torch.arange(1, len(batch.starts) + 1, dtype=torch.int32)
    ends = batch.lengths.cumsum(0)  # (N,)
    padding = (tokens + longest * torch.arange(1, pads + 1)).clamp_max(total)
    labels = None if batch.labels is None else taken(batch.labels, IGNORE)
    none = torch.empty(0, dtype=torch.int64)
    return Batch(
        input_ids=taken(batch.input_ids),
        sequence_ids=row(numbers.repeat_interleave(batch.lengths)),
        position_ids=taken(batch.position_ids),
        token_type_ids=taken(batch.token_type_ids),
        starts=ends - batch.lengths,
        lengths=batch.lengths,
        labels=labels,
        sequence_labels=batch.sequence_labels,
        spans=Spans(
            bounds=torch.cat((torch.zeros(1, dtype=torch.int64), ends, padding)).int(),
            predicted=none if labels is None else (labels[0] != IGNORE).nonzero().squeeze(1),
            longest=longest,
            tokens=tokens,
        ),
    )
