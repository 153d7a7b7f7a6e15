"""Normalization of each position's vector.

Legend: D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.models.config import ModelConfig


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of squares + eps) over the last dimension, which stays as 1; formed in fp32, in x's dtype."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) in two passes over memory and its gradient in three, where autograd's own takes more than ten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        inverse = inverse_rms(x, eps)
        ctx.save_for_backward(x, inverse)
        return x * inverse

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, inverse) = upstream, ctx.saved_tensors
        along = torch.linalg.vecdot(grad, x).unsqueeze(-1)  # what of the gradient points along x changes nothing
        return (grad * inverse).addcmul_(x, along.mul_(inverse**3).mul_(-1 / x.shape[-1])), None


class RMSNorm(nn.Module):
    """Each vector to unit root mean square (Zhang and Sennrich 2019), and each channel times its gain.

    gain: False leaves it out: the matrix that follows may have such factors in its columns.
    """

    def __init__(self, width: int, eps: float, *, gain: bool = True) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) to (..., D)."""
        if x.is_cuda:  # one fused kernel there
            return F.rms_norm(x, (self.width,), self.weight, self.eps)
        normed: Tensor = _RMSNorm.apply(x, self.eps)  # type: ignore[assignment]
        return normed if self.weight is None else normed * self.weight


def build_norm(config: ModelConfig, width: int) -> nn.Module:
    """LayerNorm with a gain, as published, or RMSNorm: EuroBERT's has a gain, that of `modern` none."""
    if config.norm == "rms":
        return RMSNorm(width, config.norm_eps, gain=config.family != "modern")
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.biases)
