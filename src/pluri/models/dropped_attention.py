"""Attention with dropout of its weights on a CPU, a part at a time, so that the scores stay in the cache.

Legend: B rows, H heads, R positions that ask, L positions a row, C channels of a head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pluri.models.dropout import draw_kept

# Scores at once, 4 MiB in fp32. Forward and backward of 6 rows of 384 positions took twice as long in one piece, where
# each matrix is above what glibc keeps, and was mapped and unmapped at each use (docs/log.md).
_SCORES = 1 << 20


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    """Scaled dot-product attention with dropout of its weights: q (B, H, R, C), k and v (B, H, L, C), to (B, H, R, C).

    mask: bool, broadcast to (B, 1, R, L), or None. rate: above 0. Draws from torch's generator.
    One matrix is kept for the backward pass, the weights, which are negative where they were dropped.
    """
    return _DroppedAttention.apply(q, k, v, mask, rate)  # type: ignore[return-value]


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float) -> Tensor:
        q, k, v = (q * q.shape[-1] ** -0.5).contiguous(), k.contiguous(), v.contiguous()
        out, weights = torch.empty_like(q), []
        # 0 or -inf: adding is faster than filling
        hidden = None if mask is None else mask.to(q.dtype).log().expand(len(q), -1, -1, -1)
        for rows, heads in _parts(q, k):
            scores = q[rows, heads] @ k[rows, heads].transpose(2, 3)
            if hidden is not None:
                scores += hidden[rows]
            p = scores.softmax(-1)
            keep, ctx.scale = draw_kept(p.shape, rate)
            weights.append(torch.where(keep, p, -p))
            out[rows, heads] = weights[-1].relu() @ v[rows, heads]
        out *= ctx.scale
        ctx.save_for_backward(q, k, v, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (q, k, v, out, *weights) = upstream, ctx.saved_tensors
        mean = (grad * out).sum(-1, keepdim=True)  # of the gradient of a row's weights (Dao et al. 2022, appendix B.2)
        grad = (grad * ctx.scale).contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for (rows, heads), signed in zip(_parts(q, k), weights, strict=True):
            at = (rows, heads)
            p = signed.relu()
            grad_v[at] = p.transpose(2, 3) @ grad[at]
            scores = (grad[at] @ v[at].transpose(2, 3)).mul_(p)
            scores -= torch.abs(signed, out=p).mul_(mean[at])
            grad_q[at] = scores @ k[at]
            grad_k[at] = scores.transpose(2, 3) @ q[at]
        return grad_q * q.shape[-1] ** -0.5, grad_k, grad_v, None, None


def _parts(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and heads that are computed together: whole rows, or some heads of one."""
    (rows, heads, asking, _), seen = q.shape, k.shape[2]
    few = max(1, _SCORES // (asking * seen))
    at_once, heads_at_once = max(1, few // heads), min(few, heads)
    for row in range(0, rows, at_once):
        for head in range(0, heads, heads_at_once):
            yield slice(row, row + at_once), slice(head, head + heads_at_once)
