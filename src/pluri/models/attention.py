"""Self-attention over rows of packed sequences.

Legend: B rows, L positions a row, D width, H heads, C channels of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.models.cache import Cache, LayerCache
from pluri.models.config import ModelConfig
from pluri.models.dropout import dropout
from pluri.models.linear import StackedLinear
from pluri.models.norms import inverse_rms
from pluri.models.positions import rotary_frequencies, rotary_turns, rotate_


@dataclass(frozen=True, slots=True)
class Layout:
    """What attention has to know of a batch: made once, used by every block of a kind.

    mask: bool (B, 1, L, L), True where a position sees another; None = every position sees its whole row.
    turns: complex64 (B, L, 1, 1, C / 2); None without rotary positions.
    causal: without a mask, every position sees its row up to itself; a mask says so itself.
    """

    mask: Tensor | None
    turns: Tensor | None
    causal: bool = False


def layouts(
    batch: Batch, config: ModelConfig, frequencies: Tensor | None = None, cache: Cache | None = None
) -> list[Layout]:
    """One for each layer. Positions see their own sequence and nothing else, with a window only what is near there.

    In a causal model they see nothing that comes after them. Padding (sequence 0) sees padding, so that no row is
    empty.
    frequencies: (C / 2,), of rotary positions in a model that stores them; None = those of config.rotary_base.
    cache: the batch is put behind its columns, and sees them too.
    """
    ids, positions = batch.sequence_ids, batch.position_ids
    # Only a batch of one sequence a row may need no mask; asking the others would cost a device sync.
    full = batch.starts.shape[0] == ids.shape[0] and bool((ids == 1).all())
    columns = None if cache is None else cache.extend(batch, full)  # (B, T + L) with T columns before these
    if columns is None:
        columns, causal = positions, config.causal and full
        mask = None if full else (ids[:, None, :, None] == ids[:, None, None, :])
        if config.causal and mask is not None:
            mask = mask & before(ids.shape[1], ids.device)
    else:
        mask, causal = columns[:, None, None, :] <= positions[:, None, :, None], False

    def turns(base: float, stored: Tensor | None = None) -> Tensor | None:
        if config.positions != "rotary":
            return None
        computed = rotary_frequencies(config.head_size, base, positions.device) if stored is None else stored
        return rotary_turns(positions, computed)

    everywhere = Layout(mask, turns(config.rotary_base, frequencies), causal)
    if config.window is None:
        return [everywhere] * config.num_layers
    near = (positions[:, None, :, None] - columns[:, None, None, :]).abs() <= config.window // 2  # (B, 1, L, T + L)
    if causal:
        near = near & before(ids.shape[1], ids.device)
    local = Layout(near if mask is None else near & mask, turns(config.local_rotary_base))
    return [local if i % config.global_every else everywhere for i in range(config.num_layers)]


def before(length: int, device: torch.device) -> Tensor:
    """bool (L, L): True where the column is the row's own or one before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class _QueriesAndKeys(torch.autograd.Function):
    """Normalizes and turns queries and keys together, in fp32, in as few passes over memory as there can be."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, turns: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor, Tensor]:
        qk = qkv[:, :, :2].float()  # (B, L, 2, H, C)
        inverse = None if eps is None else inverse_rms(qk, eps)
        qk = qk.clone() if inverse is None else qk * inverse
        if turns is not None:
            rotate_(qk, turns)
        qk = qk.to(qkv.dtype)
        ctx.save_for_backward(qk, inverse, turns)
        return qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad_q, grad_k, grad_v), (qk, inverse, turns) = upstream, ctx.saved_tensors
        grad = torch.stack((grad_q, grad_k), 2).float()  # (B, L, 2, H, C)
        if inverse is not None:  # turning keeps lengths, so that the norm's gradient is the same after it as before
            along = torch.linalg.vecdot(grad, qk.float()).unsqueeze(-1).mul_(-1 / grad.shape[-1])
            grad.addcmul_(qk, along).mul_(inverse)
        if turns is not None:
            rotate_(grad, turns.conj())
        return torch.cat((grad.to(qk.dtype), grad_v.unsqueeze(2)), 2), None, None


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention with dropout of its weights: (B, H, L, C) each, to (B, H, L, C).

    mask: bool, broadcast to (B, H, L, L), or None. causal: without a mask, each position sees up to itself.
    On a CPU torch's own function has no fused kernel with dropout, and drops as slowly as `dropout` says.
    """
    if not rate or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)  # (B, H, L, L)
    if causal:
        mask = before(q.shape[2], q.device)
    if mask is not None:
        scores += mask.to(scores.dtype).log()  # 0 or -inf: adding is faster than filling
    return dropout(scores.softmax(-1), rate) @ v


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2), one product for q, k and v."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.qk_eps = config.norm_eps if config.qk_norm else None  # Henry et al., "Query-key normalization" (2020)
        self.dropout = config.attention_dropout
        self.qkv = StackedLinear(width, width, 3, bias=config.biases)
        self.out = nn.Linear(width, width, bias=config.biases)

    def forward(self, x: Tensor, layout: Layout, cache: LayerCache | None = None) -> Tensor:
        """x: (B, L, D) to (B, L, D). cache: of what the rows were before; x joins it, and sees it."""
        rows, length, width = x.shape
        qkv = self.qkv(x).view(rows, length, 3, self.num_heads, -1)  # (B, L, 3, H, C)
        if layout.turns is None and self.qk_eps is None:
            q, k, v = qkv.unbind(2)
        else:
            q, k, v = _QueriesAndKeys.apply(qkv, layout.turns, self.qk_eps)  # type: ignore[not-iterable]
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, L, C)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, T + L, C)
        rate = self.dropout if self.training else 0.0
        mixed = attended(q, k, v, layout.mask, rate, causal=layout.causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))
