import pytest
import torch
from torch import Tensor

from pluri.models import dropped_attention as module
from pluri.models.dropout import dropout
from pluri.models.dropped_attention import dropped_attention

ROWS, HEADS, ASKING, SEEN, CHANNELS = 3, 4, 8, 12, 5


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    scores = q @ k.transpose(2, 3) * CHANNELS**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return dropout(scores.softmax(-1), rate) @ v


def outcome(attention, mask: Tensor | None) -> list[Tensor]:
    """What attention gives, and the gradients of what went in."""
    torch.manual_seed(0)
    lengths = (ASKING, SEEN, SEEN)
    inputs = [torch.randn(ROWS, n, HEADS, CHANNELS).transpose(1, 2).requires_grad_() for n in lengths]
    out = attention(*inputs, mask, 0.3)
    (out * torch.randn(ROWS, HEADS, ASKING, CHANNELS)).sum().backward()
    return [out, *(t.grad for t in inputs if t.grad is not None)]


def masks() -> dict[str, Tensor | None]:
    own = torch.rand(ROWS, 1, ASKING, SEEN, generator=torch.Generator().manual_seed(1)) < 0.6
    own[..., 0] = True
    return {"none": None, "own": own, "shared": own[:1]}


@pytest.mark.parametrize("scores", [1, ASKING * SEEN, 2 * ASKING * SEEN, 2 * HEADS * ASKING * SEEN, 1 << 20])
@pytest.mark.parametrize("mask", masks())
def test_parts_give_what_the_whole_gives(scores: int, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws: a part of them begins where the one before it ends."""
    monkeypatch.setattr(module, "_SCORES", scores)
    found, expected = outcome(dropped_attention, masks()[mask]), outcome(plain, masks()[mask])
    assert len(found) == 4
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_part_holds_more_scores_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of a row is the least."""
    sizes: list[int] = []
    drawn = module.draw_kept
    monkeypatch.setattr(module, "draw_kept", lambda shape, rate: (sizes.append(shape.numel()), drawn(shape, rate))[1])
    one = ASKING * SEEN
    for scores, most in ((1, one), (2 * one, 2 * one), (3 * HEADS * one - 1, 2 * HEADS * one)):
        monkeypatch.setattr(module, "_SCORES", scores)
        sizes.clear()
        outcome(dropped_attention, None)
        assert max(sizes) == most
        assert sum(sizes) == ROWS * HEADS * one


def test_bf16_stays_bf16() -> None:
    q = torch.randn(1, 2, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    out = dropped_attention(q, q, q, None, 0.1)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert q.grad is not None
    assert q.grad.dtype == torch.bfloat16
