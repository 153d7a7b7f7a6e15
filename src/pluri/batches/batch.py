"""Batch: rows of packed sequences, the only thing that models see of the data.

Legend: B rows, L positions a row, N sequences in the batch, T = B * L.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from pluri.batches.example import IGNORE


@dataclass(frozen=True, slots=True)
class Spans:
    """What has to be known of a batch whose sequences lie end to end in one row, without asking a device (`flat`).

    bounds: int32 (S + 1,); span i is [bounds[i], bounds[i + 1]) of the row. The first N are the sequences, in order;
        the others are padding, and may be empty.
    predicted: int64 (P,), the positions that have a label.
    longest: no span is longer. tokens: of all sequences.
    """

    bounds: Tensor
    predicted: Tensor
    longest: int
    tokens: int


_Part = TypeVar("_Part", "Batch", Spans)


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of L positions; several sequences share a row and never see each other.

    input_ids: int64 (B, L).
    sequence_ids: int32 (B, L); 0 = padding, 1, 2, ... = the sequences of the row, from left to right.
    position_ids: int64 (B, L); starts again with each sequence, at 0 unless its example says otherwise.
    token_type_ids: int64 (B, L).
    starts: int64 (N,); index into the flattened (B * L) positions of each sequence's first token, in the order in
        which the sequences were given, not the order in which they were packed.
    lengths: int64 (N,); tokens of each sequence, in the same order.
    labels: int64 (B, L), IGNORE where nothing is predicted; or None.
    sequence_labels: int64 or float32 (N,), or int64 (N, 2) of answers; or None.
    source: what an encoder reads while this is the decoder's; or None. It has as many rows, and what belongs together
        stands in the same row under the same sequence id.
    spans: of a batch in one row without gaps; None of any other.
    """

    input_ids: Tensor
    sequence_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor
    starts: Tensor
    lengths: Tensor
    labels: Tensor | None = None
    sequence_labels: Tensor | None = None
    source: "Batch | None" = None
    spans: Spans | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens, those of the source too, padding not counted."""
        return int(self.lengths.sum()) + (0 if self.source is None else self.source.num_tokens)

    @property
    def num_positions(self) -> int:
        """Positions, those of the source too, padding included."""
        return self.input_ids.numel() + (0 if self.source is None else self.source.num_positions)

    @property
    def predicted(self) -> Tensor:
        """Flat indices (P,) of the positions that have a label."""
        if self.spans is not None:
            return self.spans.predicted
        if self.labels is None:
            return torch.empty(0, dtype=torch.int64)
        return torch.nonzero(self.labels.reshape(-1) != IGNORE).squeeze(-1)

    @property
    def places(self) -> Tensor:
        """Flat indices (number of tokens,) of the tokens, sequence after sequence in the order of `starts`."""
        if self.spans is not None:
            return torch.arange(self.spans.tokens, device=self.starts.device)
        before = self.lengths.cumsum(0) - self.lengths
        shifts = torch.repeat_interleave(self.starts - before, self.lengths)
        return shifts + torch.arange(shifts.shape[0], device=shifts.device)

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> "Batch":
        return _each(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> "Batch":
        """In memory that a GPU copies from while the CPU goes on."""
        return _each(self, Tensor.pin_memory)

    def tensors(self) -> list[Tensor]:
        """All, those of the source too."""
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        _each(self, keep)
        return found


def _each(part: _Part, change: Callable[[Tensor], Tensor]) -> _Part:
    """The same with every tensor changed."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
    changed |= {name: _each(value, change) for name, value in values.items() if isinstance(value, Batch)}
    changed |= {name: _each(value, change) for name, value in values.items() if isinstance(value, Spans)}
    return replace(part, **changed)
