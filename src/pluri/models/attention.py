"""Self-attention over rows of packed sequences.

Legend: B rows, L positions a row, D width, H heads, C channels of a head.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.batches.batch import Batch, Spans
from pluri.models.cache import Cache, LayerCache
from pluri.models.config import ModelConfig
from pluri.models.dropped_attention import dropped_attention
from pluri.models.flash import flash_attention
from pluri.models.linear import StackedLinear
from pluri.models.norms import inverse_rms
from pluri.models.positions import rotary_frequencies, rotary_turns, rotate_, rotated


@dataclass(frozen=True, slots=True)
class Layout:
    """What attention has to know of a batch: made once, used by every block of a kind.

    mask: bool (B, 1, L, L), True where a position sees another; None = every position sees its whole row.
    turns: complex64 (B, L, 1, 1, C / 2), with spans as pairs of fp32 (..., C / 2, 2); None without rotary positions.
    causal: without a mask, every position sees its row up to itself; a mask says so itself.
    spans: of a batch in one row without gaps, which needs no mask; every position sees its own span, with a `reach` so
        many positions before and behind it.
    """

    mask: Tensor | None
    turns: Tensor | None
    causal: bool = False
    spans: Spans | None = None
    reach: int | None = None


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

    def turns(base: float, stored: Tensor | None = None) -> Tensor | None:
        if config.positions != "rotary":
            return None
        computed = rotary_frequencies(config.head_size, base, positions.device) if stored is None else stored
        found = rotary_turns(positions, computed)
        return found if batch.spans is None else torch.view_as_real(found)

    def mixed(everywhere: Layout, local: Layout) -> list[Layout]:
        return [local if i % config.global_every else everywhere for i in range(config.num_layers)]

    if batch.spans is not None:
        assert cache is None, "a cache goes on with one sequence a row"
        everywhere = Layout(None, turns(config.rotary_base, frequencies), config.causal, batch.spans)
        if config.window is None:
            return [everywhere] * config.num_layers
        near = replace(everywhere, turns=turns(config.local_rotary_base), reach=config.window // 2)
        return mixed(everywhere, near)
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
    everywhere = Layout(mask, turns(config.rotary_base, frequencies), causal)
    if config.window is None:
        return [everywhere] * config.num_layers
    near = (positions[:, None, :, None] - columns[:, None, None, :]).abs() <= config.window // 2  # (B, 1, L, T + L)
    if causal:
        near = near & before(ids.shape[1], ids.device)
    return mixed(everywhere, Layout(near if mask is None else near & mask, turns(config.local_rotary_base)))


@dataclass(frozen=True, slots=True)
class Reading:
    """Positions whose states are asked for, row by row: R of each row at most.

    at: int64 (P,), flat positions (of B * L) in any order. slots: int64 (B, R), the same row by row; a row that has
    fewer repeats its first position. kept: int64 (P,), where in the flattened slots each of `at` stands.
    """

    at: Tensor
    slots: Tensor
    kept: Tensor

    @classmethod
    def of(cls, at: Tensor, rows: int, length: int) -> "Reading":
        at, order = at.sort()
        row = at // length  # (P,)
        most, rank = max(1, len(at)), torch.arange(len(at), device=at.device)
        if rows > 1:  # with one row, nothing has to be asked of the device
            counts = torch.bincount(row, minlength=rows)  # (B,)
            most, rank = max(1, int(counts.max())), rank - (counts.cumsum(0) - counts)[row]
        slots = (torch.arange(rows, device=at.device) * length).unsqueeze(1).repeat(1, most)
        slots[row, rank] = at
        kept, given = torch.empty_like(at), torch.empty_like(at)
        kept[order], given[order] = row * most + rank, at
        return cls(given, slots, kept)


@dataclass(frozen=True, slots=True)
class Source:
    """What the blocks of a decoder see of the sources of a batch.

    states: (B, S, D), what the encoder made of them; None = the cache has their keys and values.
    mask: bool (B, 1, L, S), True where a position sees one of its source; None = every position sees the whole row.
    spans: of the batch and its source, where both lie in one row without gaps; no mask then.
    """

    states: Tensor | None
    mask: Tensor | None
    spans: tuple[Spans, Spans] | None = None


def crossing(batch: Batch, source_ids: Tensor) -> Tensor | None:
    """The mask of Source: positions see the source of their own sequence. source_ids: int32 (B, S), as sequence_ids.

    Padding sees all, so that no row is empty.
    """
    ids = batch.sequence_ids
    mask = (ids[:, None, :, None] == source_ids[:, None, None, :]) | (ids == 0)[:, None, :, None]
    full = batch.starts.shape[0] == ids.shape[0] and bool(mask.all())
    return None if full else mask


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


def _queries_and_keys(qkv: Tensor, turns: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same in operations that a compiler makes one kernel of, forward and backward."""
    qk = qkv[:, :, :2].float()  # (B, L, 2, H, C)
    if eps is not None:
        qk = F.rms_norm(qk, qk.shape[-1:], eps=eps)
    if turns is not None:
        qk = rotated(qk, turns)
    q, k = qk.to(qkv.dtype).unbind(2)
    return q, k, qkv[:, :, 2]


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention with dropout of its weights: q (B, H, R, C), k and v (B, H, L, C), to (B, H, R, C).

    mask: bool, broadcast to (B, H, R, L), or None. causal: without a mask, each position sees up to itself.
    On a CPU torch's own function has no fused kernel with dropout.
    """
    if not rate or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal)
    return dropped_attention(q, k, v, before(q.shape[2], q.device)[None, None] if causal else mask, rate)


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

    def forward(
        self, x: Tensor, layout: Layout, reading: Reading | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """x: (B, L, D) to (B, L, D), or to (P, D) at the positions of a reading.

        cache: of what the rows were before; x joins it, and sees it.
        """
        rows, length, width = x.shape
        q, k, v = self._projected(x, layout)
        if layout.spans is not None:
            return self.out(self._within(layout.spans, q[0], k[0], v[0], layout, reading))
        mask, causal = layout.mask, layout.causal
        if reading is not None:
            q = q.flatten(0, 1)[reading.slots]  # (B, R, H, C)
            if causal:
                mask, causal = before(length, x.device)[reading.slots % length].unsqueeze(1), False  # (B, 1, R, L)
            elif mask is not None:
                mask = mask.flatten(0, 2)[reading.slots].unsqueeze(1)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, L or R, C)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, T + L, C)
        mixed = attended(q, k, v, mask, self.dropout if self.training else 0.0, causal=causal)
        mixed = mixed.transpose(1, 2).reshape(rows, -1, width)
        return self.out(mixed if reading is None else mixed.flatten(0, 1)[reading.kept])

    def _within(self, spans: Spans, q: Tensor, k: Tensor, v: Tensor, layout: Layout, reading: Reading | None) -> Tensor:
        """Attention within spans: q, k and v (L, H, C) to (1, L, D), or to (P, D) at the positions of a reading."""
        queries, rate = spans.bounds, self.dropout if self.training else 0.0
        some = None if layout.causal or layout.reach is not None else reading  # else it matters where a query stands
        if some is not None:
            at = some.slots[0]  # (P,), ascending
            q, queries = q[at], torch.searchsorted(at, queries.long(), out_int32=True)
        longest = (spans.longest, spans.longest)
        mixed = flash_attention(
            q, k, v, queries, spans.bounds, longest, rate, reach=layout.reach, causal=layout.causal
        ).flatten(1)
        if reading is None:
            return mixed.unsqueeze(0)
        return mixed[reading.at if some is None else reading.kept]

    def weights(self, x: Tensor, layout: Layout) -> Tensor:
        """How much each position takes of each: fp32 (B, H, L, L), rows that sum to 1."""
        q, k, _ = (t.transpose(1, 2).float() for t in self._projected(x, layout))  # (B, H, L, C)
        mask = before(x.shape[1], x.device) if layout.causal else layout.mask
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)

    def _projected(self, x: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """Queries, keys and values: (B, L, H, C) each."""
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, -1)  # (B, L, 3, H, C)
        if layout.turns is None and self.qk_eps is None:
            return qkv.unbind(2)
        if layout.spans is not None:
            return _queries_and_keys(qkv, layout.turns, self.qk_eps)
        return _QueriesAndKeys.apply(qkv, layout.turns, self.qk_eps)  # type: ignore[return-value]


class CrossAttention(nn.Module):
    """Multi-head attention of a sequence to its source (Vaswani et al. 2017, section 3.2.3). Positions play no part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.q = nn.Linear(width, width, bias=config.biases)
        self.kv = StackedLinear(width, width, 2, bias=config.biases)
        self.out = nn.Linear(width, width, bias=config.biases)

    def forward(self, x: Tensor, source: Source, cache: LayerCache | None = None) -> Tensor:
        """x: (B, L, D) to (B, L, D). cache: keeps the keys and values of the source, and gives them back."""
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, L, C)
        if source.states is not None:
            kv = self.kv(source.states).unflatten(-1, (2, self.num_heads, -1))  # (B, S, 2, H, C)
            k, v = (t.transpose(1, 2) for t in kv.unbind(2))  # (B, H, S, C)
            if cache is not None:
                cache.source = (k, v)
        else:
            assert cache is not None
            assert cache.source is not None
            k, v = cache.source
        rate = self.dropout if self.training else 0.0
        if source.spans is not None:
            ours, theirs = source.spans
            q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))  # (L or S, H, C)
            longest = (ours.longest, theirs.longest)
            mixed = flash_attention(q, k, v, ours.bounds, theirs.bounds, longest, rate)
            return self.out(mixed.flatten(1).unsqueeze(0))
        mixed = attended(q, k, v, source.mask, rate)
        return self.out(mixed.transpose(1, 2).flatten(2))
