"""The blocks of a Transformer: feed-forward, and one layer of it with attention.

Legend: B rows, L positions a row, D width, I inner width of the feed-forward block.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.models.attention import Layout, SelfAttention
from pluri.models.cache import LayerCache
from pluri.models.config import ModelConfig
from pluri.models.dropout import dropout
from pluri.models.linear import StackedLinear
from pluri.models.norms import build_norm


def _gelu_new(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


# relu2: So et al., "Primer" (2021), section 3.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_new,
    "relu": F.relu,
    "silu": F.silu,
    "relu2": _relu2,
    "tanh": torch.tanh,
}


class FeedForward(nn.Module):
    """Two matrices with an activation between; with a gate, one product makes both halves (Shazeer 2020, section 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.intermediate_size
        self.gated = config.gated
        self.activation = ACTIVATIONS[config.activation]
        self.up = StackedLinear(config.hidden_size, inner, 2 if config.gated else 1, bias=config.biases)
        self.down = nn.Linear(inner, config.hidden_size, bias=config.biases)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D) to (B, L, D)."""
        x = self.up(x)  # (B, L, I) or (B, L, 2 I)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            return self.down(self.activation(gate) * value)
        return self.down(self.activation(x))


class Block(nn.Module):
    """One layer: attention and feed-forward, each added to its input, normalized before (pre-norm) or after.

    attention_norm: False leaves out the norm before attention, where the block reads what is normalized already.
    """

    def __init__(self, config: ModelConfig, *, attention_norm: bool = True) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.dropout = config.dropout
        self.attention = SelfAttention(config)
        self.attention_norm = build_norm(config, config.hidden_size) if attention_norm else nn.Identity()
        self.ffn = FeedForward(config)
        self.ffn_norm = build_norm(config, config.hidden_size)

    def forward(self, x: Tensor, layout: Layout, cache: LayerCache | None = None) -> Tensor:
        """x: (B, L, D) to (B, L, D)."""
        if self.pre_norm:
            x = x + self._drop(self.attention(self.attention_norm(x), layout, cache))
            return x + self._drop(self.ffn(self.ffn_norm(x)))
        x = self.attention_norm(x + self._drop(self.attention(x, layout, cache)))
        return self.ffn_norm(x + self._drop(self.ffn(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout) if self.training else x
