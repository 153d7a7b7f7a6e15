"""One step of writing: the logits of the next token of some rows, and going on with what was chosen.

Legend: B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.models.cache import Cache
from pluri.models.heads import Model


class Steps(Protocol):
    """What a search asks of a model, whatever the model reads besides: rows that each want a next token."""

    logits: Tensor
    """Of the next token of each row: fp32 (B, V)."""

    def advance(self, tokens: Tensor) -> None:
        """Puts a token behind each row, int64 (B,), and computes the logits of the one after it."""
        ...

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, in another order, or several times: int64, each in [0, B)."""
        ...


class CausalSteps:
    """Steps of a causal model, also of one beside an encoder, with a cache: a token costs its own computation alone.

    prompts: the ids of each row, at least one. room: tokens that will be put behind each row at most.
    source: what an encoder reads for the rows, one sequence a row.
    The device and precision are the model's.
    """

    def __init__(
        self, model: Model, prompts: Sequence[Sequence[int]], room: int, *, source: Batch | None = None
    ) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        self.cache = Cache(model.config, int(lengths.max()) + room)
        self._lengths = torch.from_numpy(lengths).to(self.device)  # (B,) tokens of each row
        rows, width = len(prompts), int(lengths.max())
        inside = torch.arange(width) < torch.from_numpy(lengths)[:, None]  # (B, width)
        ids = torch.zeros(rows, width, dtype=torch.int64)
        ids[inside] = torch.from_numpy(np.concatenate(prompts).astype(np.int64))
        positions = torch.arange(width).expand(rows, -1).masked_fill(~inside, 0)
        starts = torch.arange(rows) * width
        types, sizes = torch.zeros_like(ids), torch.from_numpy(lengths)
        self._pass(Batch(ids, inside.int(), positions, types, starts, sizes, source=source))

    def advance(self, tokens: Tensor) -> None:
        ids = tokens[:, None]
        rows, zeros = torch.arange(len(tokens)), torch.zeros_like(ids)
        one = torch.ones(len(tokens), dtype=torch.int64)
        self._pass(Batch(ids, torch.ones_like(ids, dtype=torch.int32), self._lengths[:, None], zeros, rows, one))
        self._lengths = self._lengths + 1

    def select(self, rows: Tensor) -> None:
        rows = rows.to(self.device)
        self.cache.select(rows)
        self._lengths, self.logits = self._lengths[rows], self.logits[rows]

    @torch.inference_mode()
    def _pass(self, batch: Batch) -> None:
        batch = batch.to(self.device)
        hidden = self.model.body(batch, cache=self.cache)
        last = batch.starts + batch.lengths - 1  # (B,)
        self.logits = self.model.outputs("next", hidden, batch, last).float()
