"""Optimizers against their published updates, and bf16 weights against their fp32 masters."""

from typing import Any

import pytest
import torch
from torch import nn

from pluri.errors import CheckpointError
from pluri.training.optimizer import MasterOptimizer, Muon, orthogonalized


def test_orthogonalized_keeps_singular_vectors_and_levels_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in [(6, 10), (10, 6), (8, 8)]:
        matrix = torch.randn(shape, generator=generator)
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        result = orthogonalized(matrix[None])[0]
        values = torch.linalg.svdvals(result)
        well_conditioned = s / s.norm() > 0.05
        assert (values.sort().values - torch.diag(u.T @ result @ vh.T).sort().values).abs().max() < 1e-4
        assert ((values > 0.6) & (values < 1.25))[well_conditioned].all()


def published_muon(weight: torch.Tensor, gradients: list[torch.Tensor], lr: float, decay: float) -> torch.Tensor:
    """Jordan (2024), written out: Nesterov momentum .95, five quintic steps; scaled as in Liu et al. (2025)."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = 0.95 * buffer + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * buffer
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        weight = weight * (1 - lr * decay) - lr * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


def test_muon_is_the_published_update() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(6, 9, generator=generator)
    gradients = [torch.randn(6, 9, generator=generator) for _ in range(4)]
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.02)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), published_muon(start, gradients, 0.1, 0.02), atol=1e-5, rtol=1e-5)


def test_stacked_matrices_are_orthogonalized_one_by_one() -> None:
    generator = torch.Generator().manual_seed(2)
    start, gradient = torch.randn(12, 4, generator=generator), torch.randn(12, 4, generator=generator)
    whole = nn.Parameter(start.clone())
    whole.grad = gradient.clone()
    Muon([whole], lr=0.1, stacked={whole: 3}).step()
    for part, grad, result in zip(start.chunk(3), gradient.chunk(3), whole.detach().chunk(3), strict=True):
        torch.testing.assert_close(result, published_muon(part, [grad], 0.1, 0.0), atol=1e-5, rtol=1e-5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](self.embedding(ids)).sum()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_bf16_weights_follow_fp32_masters(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = MasterOptimizer(net, name, weight_decay=0.1, betas=(0.9, 0.99), dtype=torch.bfloat16)
    before = {n: m.detach().clone() for n, m in optimizer.masters.items()}
    for _ in range(20):
        net(torch.arange(7)).backward()
        optimizer.step(1e-5)  # far below what bf16 can add to a weight near 1
    for n, p in net.named_parameters():
        assert p.dtype == torch.bfloat16
        assert optimizer.masters[n].dtype == torch.float32
        assert not torch.equal(optimizer.masters[n], before[n])
        assert torch.equal(p.detach(), optimizer.masters[n].bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_round_trip_continues_to_the_bit(name: str, dtype: torch.dtype) -> None:
    def fresh() -> tuple[Net, MasterOptimizer]:
        torch.manual_seed(0)
        net = Net()
        return net, MasterOptimizer(net, name, weight_decay=0.1, betas=(0.9, 0.99), dtype=dtype)

    def run(net: Net, optimizer: MasterOptimizer, steps: range) -> None:
        for step in steps:
            net(torch.arange(step % 5 + 2)).backward()
            optimizer.step(1e-2)

    net, optimizer = fresh()
    run(net, optimizer, range(6))
    first, first_optimizer = fresh()
    run(first, first_optimizer, range(3))
    state = {k: v.clone() for k, v in first_optimizer.state().items()}
    second, second_optimizer = fresh()
    second_optimizer.load_state(state)
    run(second, second_optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), second.parameters(), strict=True))


def test_adamw_spares_vectors_from_decay_and_adamw_takes_all_without_muon() -> None:
    net = Net()
    optimizer = MasterOptimizer(net, "adamw", weight_decay=0.5, betas=(0.9, 0.99), dtype=torch.float32)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer.step(0.1)
    assert torch.equal(net.blocks[0].bias, before["blocks.0.bias"])  # type: ignore[arg-type]
    torch.testing.assert_close(net.embedding.weight.detach(), before["embedding.weight"] * 0.95)


def test_the_state_of_another_model_is_refused() -> None:
    options: dict[str, Any] = {"weight_decay": 0.1, "betas": (0.9, 0.99), "dtype": torch.float32}
    state = MasterOptimizer(Net(), "muon", **options).state()
    name = "weights.blocks.0.weight"
    for other in ({**state, name: torch.zeros(3, 2)}, {key: each for key, each in state.items() if key != name}):
        net = Net()
        before = net.embedding.weight.detach().clone()
        with pytest.raises(CheckpointError, match=r"of another model: blocks\.0\.weight is (missing|\(3, 2\), not)"):
            MasterOptimizer(net, "muon", **options).load_state(other)
        assert torch.equal(net.embedding.weight, before)
