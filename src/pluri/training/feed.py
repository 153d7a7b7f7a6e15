"""Batches on their way to where they are computed, and figures on their way back: a GPU never waits for either.

What a step needs is copied to the GPU while the step before is computed, and what a step says of itself is read some
steps later. On a CPU both happen at once.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.models.heads import Model
from pluri.models.placing import laid_for
from pluri.training.parallel import my_parts

_STEPS_BEHIND = 2  # the GPU always has one step to do while the CPU reads the figures of another

Fed = tuple[Batch, list[tuple[Batch, float]]]
"""A batch on the CPU; this process's parts of it on the model's device, each with what its loss is multiplied by."""


def fed(batches: Iterator[Batch], model: Model, dtype: torch.dtype, accumulation: int) -> Iterator[Fed]:
    """Each batch with its parts, as many as `accumulation`. dtype: of the model's products."""
    if next(model.parameters()).device.type == "cpu":
        for batch in batches:
            yield batch, [(laid_for(model, part, dtype), times) for part, times in my_parts(batch, accumulation)]
        return
    side = torch.cuda.Stream()
    ahead: deque[tuple[Fed, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(side):
            parts = my_parts(batch, accumulation)
            sent = [(laid_for(model, part, dtype).pinned().to("cuda"), times) for part, times in parts]
            copied = torch.cuda.Event()
            copied.record()
            ahead.append(((batch, sent), copied))
        if len(ahead) > 1:
            first, copied = ahead.popleft()
            now = torch.cuda.current_stream()
            now.wait_event(copied)
            for tensor in (tensor for part, _ in first[1] for tensor in part.tensors()):
                tensor.record_stream(now)  # its memory is not given away before this stream has read it
            yield first


class Figures:
    """Numbers of steps, each with a note of its step, in their order. late: they are read two steps later."""

    def __init__(self, *, late: bool) -> None:
        self._behind = _STEPS_BEHIND if late else 0
        self._sent: deque[tuple[Any, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def send(self, note: Any, numbers: dict[str, Tensor]) -> None:
        """numbers: of no dimension, on the device; float64 keeps them as they are."""
        values, copied = torch.stack(list(numbers.values())), None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values, copied = host.copy_(values, non_blocking=True), torch.cuda.Event()
            copied.record()
        self._sent.append((note, list(numbers), values, copied))

    def read(self, *, everything: bool = False) -> Iterator[tuple[Any, dict[str, float]]]:
        """The notes and numbers of the steps that are far enough behind; or of all, which waits for them."""
        while len(self._sent) > (0 if everything else self._behind):
            note, names, values, copied = self._sent.popleft()
            if copied is not None:
                copied.synchronize()
            yield note, dict(zip(names, values.tolist(), strict=True))
