"""What attention has computed of the tokens before: their keys and values, so that one more token costs only its own.

Legend: B rows, one sequence each; T columns so far; L new positions; H heads, C channels of a head.
"""

import torch
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.models.config import ModelConfig

_NOWHERE = 2**62  # the position of a padding column: beyond that of every token, so that none sees it


class LayerCache:
    """Keys and values of one layer, (B, H, T, C) each, in memory for `size` columns that is taken once.

    source: those of a source, (B, H, S, C) each, which do not grow; None where there is none.
    """

    def __init__(self, size: int) -> None:
        self.size, self.length = size, 0
        self._both: Tensor | None = None  # (2, B, H, size, C)
        self.source: tuple[Tensor, Tensor] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts those of new positions, (B, H, L, C) each, behind; returns all. For inference: no gradient passes."""
        if self._both is None:
            rows, heads, _, channels = keys.shape
            self._both = keys.new_empty(2, rows, heads, self.size, channels)
        first, self.length = self.length, self.length + keys.shape[2]
        self._both[0, :, :, first : self.length] = keys
        self._both[1, :, :, first : self.length] = values
        return self._both[0, :, :, : self.length], self._both[1, :, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, in another order, or several times."""
        if self._both is not None:
            kept = self._both[:, :, :, : self.length].index_select(1, rows)
            if len(rows) != self._both.shape[1]:
                self._both = kept.new_empty(2, len(rows), *self._both.shape[2:])
            self._both[:, :, :, : self.length] = kept
        if self.source is not None:
            self.source = self.source[0].index_select(0, rows), self.source[1].index_select(0, rows)


class Cache:
    """Keys and values of every layer, for rows that grow to the right.

    Rows may be of unequal length: where a batch has padding, the column stays, and nothing sees it.
    size: columns at most, padding included. source_ids: the sequence_ids of the sources; None where there are none.
    """

    def __init__(self, config: ModelConfig, size: int) -> None:
        self.layers = [LayerCache(size) for _ in range(config.decoder_layers or config.num_layers)]
        self.source_ids: Tensor | None = None  # (B, S)
        self._positions: Tensor | None = None  # (B, T)

    def extend(self, batch: Batch, full: bool) -> Tensor | None:
        """Takes the columns of a batch of one sequence a row; returns the positions of all (B, T + L), None if T is 0.

        full: whether the batch has no padding.
        """
        new = batch.position_ids if full else batch.position_ids.masked_fill(batch.sequence_ids == 0, _NOWHERE)
        if self._positions is None:
            self._positions = new
            return None
        self._positions = torch.cat([self._positions, new], 1)
        return self._positions

    def cut(self, columns: int) -> None:
        """Forgets all but the first columns."""
        for layer in self.layers:
            layer.length = columns
        if self._positions is not None:
            self._positions = self._positions[:, :columns]

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, in another order, or several times. rows: int64, each in [0, B)."""
        for layer in self.layers:
            layer.select(rows)
        if self._positions is not None:
            self._positions = self._positions.index_select(0, rows)
        if self.source_ids is not None:
            self.source_ids = self.source_ids.index_select(0, rows)
