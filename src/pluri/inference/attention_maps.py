"""Where a model looks: the weights of its attention.

Legend: B rows, L positions a row, H heads.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.models.heads import Model


@torch.inference_mode()
def attention_maps(model: Model, batch: Batch) -> list[Tensor]:
    """The weights in each layer, from the lowest: fp32 (B, H, L, L), what each position (a row) takes of each.

    A row sums to 1 over the positions of its own sequence. The model should be in evaluation mode, on the batch's
    device.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        maps.append(module.weights(*inputs[:2]))  # type: ignore[operator]

    hooks = [block.attention.register_forward_hook(keep) for block in model.body.blocks]  # type: ignore[union-attr]
    try:
        model.hidden(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
