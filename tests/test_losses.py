"""The blocked cross-entropy against torch's own, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

import pluri.losses as losses
from pluri.losses import blocked_cross_entropy


@pytest.mark.parametrize("block", [1, 7 * 11, 10**6])
def test_equal_to_torch_in_value_and_gradient(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_BLOCK_ELEMENTS", block)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float32) for s in ((23, 5), (11, 5), (11,)))
    labels = torch.randint(0, 11, (23,), generator=generator)
    inputs = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    expected_inputs = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    value = blocked_cross_entropy(inputs[0], inputs[1], inputs[2], labels, 40)
    expected = F.cross_entropy(F.linear(*expected_inputs), labels, reduction="sum") / 40
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(inputs, expected_inputs, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_huge_logits_do_not_overflow() -> None:
    hidden = torch.full((4, 2), 1e4, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    value = blocked_cross_entropy(hidden, weight, torch.zeros(2), torch.tensor([0, 0, 0, 1]), 4)
    value.backward()
    assert torch.isfinite(value)
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_nothing_predicted_is_zero_not_nan() -> None:
    hidden, weight = torch.zeros(0, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    value = blocked_cross_entropy(hidden, weight, torch.zeros(5), torch.zeros(0, dtype=torch.int64), 0)
    value.backward()
    assert value.item() == 0
    assert weight.grad is not None
    assert weight.grad.abs().sum() == 0
