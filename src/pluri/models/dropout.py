"""Dropout (Srivastava et al. 2014) at the price of the memory it touches."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 2**16


def dropout(x: Tensor, rate: float) -> Tensor:
    """x with each element set to 0 with probability `rate`, and the others scaled so that the mean stays: any shape.

    On a CPU, torch draws one number after the other for each element, which takes as long as a matrix product; here
    four elements share a draw of 64 bits, and the rate is rounded to 1/65536. Draws from torch's generator.
    """
    if not rate:
        return x
    return _Dropout.apply(x, rate) if x.device.type == "cpu" else F.dropout(x, rate)  # type: ignore[return-value]


def draw_kept(shape: torch.Size, rate: float) -> tuple[Tensor, float]:
    """Which elements stay, bool of this shape on the CPU, and what they are multiplied by so that the mean stays."""
    dropped, count = round(rate * _LEVELS), shape.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(shape) >= dropped - _LEVELS // 2, _LEVELS / max(_LEVELS - dropped, 1)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        keep, ctx.scale = draw_kept(x.shape, rate)
        ctx.save_for_backward(keep)
        return keep * x * ctx.scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return keep * upstream[0] * ctx.scale, None
