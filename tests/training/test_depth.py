"""Layer-wise learning rates, frozen layers and new layers: what each weight does, by where it stands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.loader import Batches
from pluri.batches.packing import pack
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.models.lora import attach
from pluri.training.config import TrainingConfig
from pluri.training.depth import Freeze, depths, freeze, learning_rate_factors, start_anew
from pluri.training.optimizer import MasterOptimizer
from pluri.training.trainer import train

VOCAB = 40


def made(family: str = "modern", **options: Any) -> Model:
    sizes = {"hidden_size": 32, "num_heads": 2, "num_layers": 3}
    config = preset(family, "tiny", vocab_size=VOCAB, max_length=24, **sizes, **options)
    return Model(config, {"masked": VOCAB, "classify": 2}, seed=1)


class Copies:
    """Sequences of one token each, a fifth to be predicted."""

    mean_length = 10.0

    def __len__(self) -> int:
        return 50

    def examples(self, index: Any, epoch: Any) -> Examples:
        lengths = np.full(len(index), 10)
        ids = np.repeat(5 + index % 30, lengths).astype(np.int32)
        hidden = np.arange(len(ids)) % 5 == 0
        masked = np.where(hidden, 4, ids).astype(np.int32)
        return Examples(masked, np.append(0, lengths.cumsum()), np.where(hidden, ids, IGNORE).astype(np.int32))


def batch() -> Batch:
    return pack(Copies().examples(np.arange(4), np.zeros(4)), 24)


# decay ** (n + 1 - depth), by hand: 0.5 ** 4 in the embeddings, 0.5 ** 3, 0.5 ** 2, 0.5 in layers 1, 2, 3, 1 above.
EXPECTED = {
    "body.embeddings.tokens.weight": 0.0625,
    "body.embeddings.norm.bias": 0.0625,
    "body.blocks.0.attention.qkv.weight": 0.125,
    "body.blocks.1.ffn.down.bias": 0.25,
    "body.blocks.2.ffn_norm.weight": 0.5,
    "heads.classify.pooler.dense.weight": 1.0,
    "heads.classify.out.bias": 1.0,
}


def test_factors_are_those_of_a_table() -> None:
    factors = learning_rate_factors(made("bert"), 0.5)
    assert {name: factors[name] for name in EXPECTED} == EXPECTED
    assert set(factors) == {name for name, _ in made("bert").named_parameters()}
    assert learning_rate_factors(made("esm"), 0.5)["body.norm.weight"] == 1.0  # above the layers


def test_shared_layers_are_one() -> None:
    found = depths(made("albert"))
    assert found["body.embeddings.projection.weight"] == 0
    assert found["body.blocks.0.ffn.up.weight"] == 1
    assert found["heads.classify.out.weight"] == 2


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_weight_moves_by_its_rate(name: str, dtype: torch.dtype) -> None:
    """The first update of AdamW is the rate times the gradient's sign; Muon's is proportional to the rate."""
    moved: list[dict[str, torch.Tensor]] = []
    for decay in (0.5, 1.0):
        model = made("bert")
        factors = learning_rate_factors(model, decay)
        options: dict[str, Any] = {"weight_decay": 0.0, "betas": (0.9, 0.999), "dtype": dtype}
        optimizer = MasterOptimizer(model, name, **options, factors=factors)
        before = {n: m.detach().clone() for n, m in optimizer.masters.items()}
        generator = torch.Generator().manual_seed(3)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
        optimizer.step(0.02)
        moved.append({n: m.detach() - before[n] for n, m in optimizer.masters.items()})
    for n, factor in EXPECTED.items():
        torch.testing.assert_close(moved[0][n], factor * moved[1][n], atol=2e-6, rtol=1e-3)
        assert moved[1][n].abs().mean() > 1e-3
    if name == "adamw":
        assert moved[0]["body.blocks.1.ffn.down.weight"].abs().median().item() == pytest.approx(0.02 * 0.25, rel=1e-3)


@pytest.mark.parametrize(("optimizer", "adapters"), [("adamw", False), ("muon", False), ("adamw", True)])
def test_decayed_rates_resume_to_the_bit(optimizer: str, adapters: bool, tmp_path: Path) -> None:
    values = {"steps": 6, "learning_rate": 5e-3, "precision": "fp32", "optimizer": optimizer, "schedule": "linear"}
    config = TrainingConfig.parse(values)

    def run(folder: Path | None, decay: float = 0.7, **options: Any) -> list[torch.Tensor]:
        model, batches = made(), Batches(Copies(), batch_tokens=100, length=24, seed=0)
        if adapters:
            attach(model, 2, 2, "all_linear", seed=0)
        train(model, batches, pretraining_loss, config, output=folder, layer_decay=decay, **options)
        return list(model.parameters())

    whole = run(None)
    run(tmp_path, stop_after=3)
    halves = run(tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(whole, run(None, 1.0), strict=True))


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (0, set()),
        ("embeddings", {"body.embeddings"}),
        (2, {"body.embeddings", "body.blocks.0", "body.blocks.1"}),
        ("body", {"body"}),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_stay_to_the_bit_and_cost_nothing(layers: Freeze, kept: set[str], precision: str) -> None:
    model, batches = made("bert"), Batches(Copies(), batch_tokens=100, length=24, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    freeze(model, layers)

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return model(batch, "classify").float().square().mean(), {}

    config = TrainingConfig.parse({"steps": 3, "learning_rate": 0.1, "precision": precision, "optimizer": "adamw"})
    train(model, batches, loss, config)
    unused = "heads.masked"
    for name, value in model.state_dict().items():
        frozen = any(name.startswith(f"{part}.") for part in kept)
        if not name.startswith(unused) and name != "body.blocks.2.attention.qkv.bias":
            assert torch.equal(value, before[name]) == frozen, name
    optimizer = MasterOptimizer(model, "adamw", weight_decay=0.1, betas=(0.9, 0.99), dtype=torch.float32)
    assert not any(name.startswith(f"{part}.") for name in optimizer.masters for part in kept)


def test_no_gradient_runs_through_frozen_layers() -> None:
    model, seen = made("bert"), []
    freeze(model, 2)
    for block in model.body.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    model.train()(batch(), "classify").sum().backward()
    assert seen == [False, False, True]
    assert model.body.embeddings.tokens.weight.grad is None


@pytest.mark.parametrize("family", ["bert", "modern", "esm"])
def test_new_layers_are_exactly_the_highest_and_what_is_above(family: str) -> None:
    model = made(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_anew(model, 2, seed=7)
    fresh = Model(model.config, model.num_classes, seed=7).state_dict()
    for name, value in model.state_dict().items():
        new = not name.startswith(("body.embeddings.", "body.blocks.0.", "body.rotary."))
        assert torch.equal(value, fresh[name] if new else before[name]), name
        assert new == (not torch.equal(value, before[name])), name
