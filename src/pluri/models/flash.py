"""Attention without a mask, over sequences that lie end to end: FlashAttention's kernel for unequal lengths on a GPU.

Legend: T tokens, P queries, S spans, H heads, C channels of a head.
"""

import torch
from torch import Tensor

from pluri.models.config import ModelConfig

_HALVES = (torch.bfloat16, torch.float16)


def has_kernel(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel is there for such a model: on a GPU of Ampere's generation or later, in half precision."""
    if device.type != "cuda" or dtype not in _HALVES or not torch.backends.cuda.is_flash_attention_available():
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8 and config.head_size % 8 == 0 and config.head_size <= 256


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest: tuple[int, int],
    rate: float,
    *,
    reach: int | None = None,
    causal: bool = False,
) -> Tensor:
    """Each query sees the keys of the span with its own number: q (P, H, C), k and v (T, H, C), to (P, H, C).

    queries, keys: int32 (S + 1,), the bounds of the spans of either. longest: no span of either is longer.
    rate: of the dropout of the weights. reach: a query sees only so many keys before and behind its own place.
    causal: and none behind it. A query without keys becomes 0. Dao, "FlashAttention-2" (2023).

    torch.nn.attention.varlen wraps the same operator, and always says 0 for the rate of dropout.
    """
    left, right = (-1, -1) if reach is None else (reach, reach)
    return torch.ops.aten._flash_attention_forward(
        q, k, v, queries, keys, *longest, rate, causal, False,
        window_size_left=left, window_size_right=0 if causal else right,
    )[0]  # fmt: skip
