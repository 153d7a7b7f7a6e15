"""Weights in 8 bits: how near the outputs are, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model
from pluri.errors import CheckpointError, UsageError
from pluri.inference.generate import generate
from pluri.inference.int8 import Int8Linear, Int8Model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

WORDS = ["the", "a", "river", "bank", "money", "of", "in", "water", "lends", "runs", "deep", "old", "house"]


@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_is_as_near_as_its_steps(biased: bool):
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(40, 64, generator=generator), torch.randn(2, 9, 64, generator=generator)
    weight[3], bias = 0.0, torch.randn(40, generator=generator) if biased else None
    expected = F.linear(x, weight, bias)
    error = Int8Linear(weight, bias)(x) - expected
    assert error.abs().max() < 0.1 * expected.std()
    assert error.abs().max() > 1e-4 * expected.std()  # it is rounded
    wide = weight * torch.logspace(-3, 3, 40)[:, None]  # each output has its own scale
    relative = (Int8Linear(wide, None)(x) - F.linear(x, wide)) / F.linear(x, wide).std((0, 1)).clamp_min(1e-9)
    assert relative.abs().max() < 0.1


def test_a_trained_model_loses_little(tmp_path: Path):
    chosen = np.random.default_rng(0).integers(0, len(WORDS), (300, 30))
    (tmp_path / "text.txt").write_text("\n".join(" ".join(WORDS[w] for w in row) for row in chosen), encoding="utf-8")
    tokenizer = train_tokenizer([tmp_path / "text.txt"], kind="gpt2", vocab_size=280)
    prepare([tmp_path / "text.txt"], tokenizer, tmp_path / "store", workers=1)
    shape = {"preset": "gpt2", "size": "tiny", "hidden_size": 64, "max_length": 32}
    values = {"store": tmp_path / "store", "output": tmp_path / "run", "model": shape, "objective": {"next": True}}
    training = {"steps": 25, "batch_tokens": 600}
    folder = pretrain(PretrainConfig.parse({**values, "training": training}), progress=False)

    source = NextTokens(TokenStore.open(tmp_path / "store"), length=32)
    batch = pack(source.examples(np.arange(60), np.zeros(60, int)), 32)
    assert batch.labels is not None
    labels = batch.labels.flatten()[batch.predicted]

    @torch.inference_mode()
    def loss(model: Model) -> float:
        return float(F.cross_entropy(model.outputs("next", model.hidden(batch), batch), labels))

    model = load_model(folder)[0].eval()
    before = loss(model)
    after = loss(Int8Model(model))
    assert before < 5.0
    assert 0 < abs(after - before) < 0.01 * before
    for prompt in ("the river", ""):
        (found,) = generate(prompt, folder, int8=True, max_new_tokens=8, temperature=0)
        assert found["tokens"] == 8 or found["stopped"] == "end"


def test_what_cannot_be_rounded_is_told():
    broken = Model(preset("gpt2", "tiny", vocab_size=50, hidden_size=32, num_heads=2), {"next": 50})
    broken.body.embeddings.tokens.weight.data[7, 3] = torch.nan
    with pytest.raises(CheckpointError, match="weights of the model are not finite"):
        Int8Model(broken)


def test_other_models_are_refused():
    config = preset("bert", "tiny", vocab_size=50, hidden_size=32, num_heads=2)
    with pytest.raises(UsageError, match="int8 is for causal models in fp32 on a CPU"):
        Int8Model(Model(config, {"masked": 50}))
    causal = Model(preset("gpt2", "tiny", vocab_size=50, hidden_size=32, num_heads=2), {"next": 50})
    with pytest.raises(UsageError, match="int8 is for causal models in fp32 on a CPU"):
        Int8Model(causal.to(torch.bfloat16))
