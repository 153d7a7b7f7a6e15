"""Low-rank adaptation (Hu et al., "LoRA", 2021): the body stays, and small factors learn what is added to its matrices.

Legend: R rank, I inputs and O outputs of one matrix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.models.heads import Model

LoraTargets = Literal["query_value", "all_linear"]


class Adapter(nn.Module):
    """What is added to the matrices of one linear layer: scale * B A each, A (R, I) and B (O, R) (section 4.1).

    It becomes a part of the layer, `lora`, until it is merged.

    stacked: how many matrices lie one above the other in the layer. parts: which of them get an update, each its own.
    A is drawn as a linear layer's weights are; B is 0, so that nothing changes at first.
    """

    def __init__(
        self, linear: nn.Linear, stacked: int, parts: Sequence[int], rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.stacked, self.parts, self.scale = stacked, tuple(parts), scale
        bound = 1 / math.sqrt(linear.in_features)
        drawn = (torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator) for _ in parts)
        self.a = nn.ParameterList(drawn)
        self.b = nn.ParameterList(torch.zeros(linear.out_features // stacked, rank) for _ in parts)
        linear.add_module("lora", self.to(linear.weight.device))
        self.hook = linear.register_forward_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """What the layer makes, (..., stacked * O), with the updates' share."""
        outputs = list(output.chunk(self.stacked, -1))
        for part, a, b in zip(self.parts, self.a, self.b, strict=True):
            outputs[part] = outputs[part] + self.scale * F.linear(F.linear(inputs[0], a), b)
        return torch.cat(outputs, -1)

    @torch.no_grad()
    def merge(self, linear: nn.Linear) -> None:
        """Puts the updates into the layer's own weights, and leaves the layer."""
        weights = linear.weight.chunk(self.stacked)
        for part, a, b in zip(self.parts, self.a, self.b, strict=True):
            weights[part].add_(b @ a, alpha=self.scale)
        self.hook.remove()
        del linear.lora


@dataclass(frozen=True, slots=True)
class Lora:
    """The adapters of a model, by the name of the linear layer that each adds to."""

    rank: int
    alpha: int
    adapters: dict[str, Adapter]

    def merge(self, model: Model) -> None:
        """Puts the adapters into the model's weights: it then has the same names and outputs as any other."""
        for name, linear in _linear_layers(model).items():
            if name in self.adapters:
                self.adapters[name].merge(linear)


def attach(model: Model, rank: int, alpha: int, targets: LoraTargets, seed: int) -> Lora:
    """Gives linear layers of the blocks adapters, scaled by alpha / rank, and freezes all else but the heads.

    targets: the query and value projections, as in the paper (section 4.2), or every linear layer of the blocks.
    ModernBERT stacks matrices in its own folders too: a stack has one adapter there, as it has in other programs.
    """
    model.body.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    adapters = {}
    for name, linear in _linear_layers(model).items():
        if targets == "query_value" and not name.endswith(".attention.qkv"):
            continue
        stacked = 1 if model.config.family == "modernbert" else getattr(linear, "stacked", 1)
        parts = (0, 2) if targets == "query_value" and stacked == 3 else range(stacked)
        adapters[name] = Adapter(linear, stacked, parts, rank, alpha / rank, generator)
    return Lora(rank, alpha, adapters)


def _linear_layers(model: Model) -> dict[str, nn.Linear]:
    named = model.named_modules()
    return {
        name: m for name, m in named if name.startswith("body.") and ".blocks." in name and isinstance(m, nn.Linear)
    }
