"""The fused pieces give the values and gradients of the plain formulas."""

import pytest
import torch
import torch.nn.functional as F

from pluri.models.attention import _QueriesAndKeys
from pluri.models.blocks import ACTIVATIONS
from pluri.models.norms import RMSNorm
from pluri.models.positions import rotary_frequencies, rotary_turns, rotate_

EPS = 1e-3  # large, so that a slip in its place shows


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gain", [False, True])
def test_rms_norm_is_the_plain_formula(gain: bool):
    norm = RMSNorm(16, EPS, gain=gain)
    x, upstream = random(3, 5, 16), random(3, 5, 16, seed=1)
    x[0, 0] = 0  # padding may be all 0
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = norm(a)
    plain = b / (b.square().mean(-1, keepdim=True) + EPS).sqrt()
    gains = torch.linspace(-1, 2, 16, requires_grad=True)
    if norm.weight is not None:
        norm.weight.data.copy_(gains)
        ours, plain = norm(a), plain * gains
    torch.testing.assert_close(ours, plain)
    ours.backward(upstream)
    plain.backward(upstream)
    torch.testing.assert_close(a.grad, b.grad)
    if norm.weight is not None:
        torch.testing.assert_close(norm.weight.grad, gains.grad)


def plainly(qkv: torch.Tensor, positions: torch.Tensor | None, eps: float | None):
    """Queries, keys and values by the textbook: a loop over pairs of channels."""
    qk = qkv[:, :, :2]
    if eps is not None:
        qk = qk / (qk.square().mean(-1, keepdim=True) + eps).sqrt()
    if positions is not None:
        columns = []
        size = qkv.shape[-1]
        for i in range(size // 2):
            angle = positions[:, :, None, None] * 100.0 ** (-2 * i / size)
            even, odd = qk[..., 2 * i], qk[..., 2 * i + 1]
            columns += [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
        qk = torch.stack(columns, -1)
    return (*qk.unbind(2), qkv[:, :, 2])


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("eps", [None, EPS])
def test_queries_and_keys_are_the_plain_formula(rotary, eps):
    qkv, positions = random(2, 7, 3, 2, 8), torch.arange(14).view(2, 7)
    turns = rotary_turns(positions, rotary_frequencies(8, 100.0)) if rotary else None
    a, b = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    ours = _QueriesAndKeys.apply(a, turns, eps)
    plain = plainly(b, positions if rotary else None, eps)
    upstream = [random(2, 7, 2, 8, seed=s) for s in (1, 2, 3)]
    for mine, other in zip(ours, plain, strict=True):  # type: ignore[call-overload]
        torch.testing.assert_close(mine, other)
    torch.autograd.backward(ours, upstream)  # type: ignore[arg-type]
    torch.autograd.backward(plain, upstream)
    torch.testing.assert_close(a.grad, b.grad)
    assert torch.equal(a.detach(), qkv)  # the input is left as it was


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = random(8), random(8, seed=1)

    def score(i: int, j: int) -> float:
        turns = rotary_turns(torch.tensor([[i, j]]), rotary_frequencies(8, 10_000.0))
        turned = rotate_(torch.stack((q, k)).view(1, 2, 1, 1, 8).clone(), turns).view(2, 8)
        return float(turned[0] @ turned[1])

    assert score(3, 10) == pytest.approx(score(503, 510), abs=1e-3)
    assert score(3, 10) != pytest.approx(score(3, 11), abs=1e-3)


def test_activations():
    x = random(100)
    assert torch.equal(ACTIVATIONS["gelu"](x), F.gelu(x))
    cubic = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    torch.testing.assert_close(ACTIVATIONS["gelu_new"](x), cubic)
    assert torch.equal(ACTIVATIONS["relu2"](x), x.clamp_min(0) ** 2)
    torch.testing.assert_close(ACTIVATIONS["silu"](x), x * torch.sigmoid(x))
