"""Pretraining an encoder with a decoder: from a store to a folder that transformers opens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.run.doctor import diagnose
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer
from pluri.training.journal import read_journal

WORDS = ["the", "a", "river", "bank", "money", "of", "in", "water", "lends", "runs", "deep", "old", "house"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of which each word tells the next."""
    file = tmp_path_factory.mktemp("denoising") / "text.txt"
    starts = np.random.default_rng(0).integers(0, len(WORDS), 400)
    lines = [" ".join(WORDS[(s + j) % len(WORDS)] for j in range(6 + s)) + "." for s in starts]
    file.write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer(file, vocab_size=100, sentinels=10)
    return prepare([file], tokenizer, file.parent / "store", workers=1).path


def config(store: Path, output: Path, objective: dict[str, Any], **model: Any) -> PretrainConfig:
    sizes = {"size": "tiny", "hidden_size": 64, "num_layers": 1, "max_length": 32, "dropout": 0.0}
    training = {"steps": 60, "batch_tokens": 1000, "learning_rate": 5e-3, "eval_steps": 60}
    values = {"store": store, "output": output, "training": training, "validation": 0.1, "objective": objective}
    return PretrainConfig.parse(values | {"model": sizes | {"preset": "bart"} | model})


@pytest.mark.parametrize(
    ("kinds", "model"),
    [(["infill", "permute"], {}), (["sentinel"], {"preset": "modern", "decoder_layers": 1})],
    ids=["bart", "modern"],
)
def test_it_learns(store: Path, tmp_path: Path, kinds: list[str], model: dict[str, Any]):
    folder = pretrain(config(store, tmp_path / "run", {"denoise": {"kinds": kinds}}, **model), progress=False)
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    losses = [event["next_loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < 0.5 * losses[0]
    (validation,) = [event for event in events if event["event"] == "validation"]
    assert validation["eval_next_loss"] == pytest.approx(losses[-1], abs=0.5)
    assert 0 < events[1]["model_flops_use"] < 1
    loaded, _ = load_model(folder)
    assert loaded.num_classes == {"next": loaded.config.vocab_size}
    (packing,) = [finding for finding in diagnose(tmp_path / "run") if finding.name == "packing efficiency"]
    assert packing.evidence is not None
    assert 0.7 < packing.evidence <= 1


def test_impossible_runs_are_refused(store: Path, tmp_path: Path):
    for preset in ("bert", "gpt2"):
        with pytest.raises(UsageError, match="decoder"):
            pretrain(config(store, tmp_path / preset, {"denoise": {"kinds": ["mask"]}}, preset=preset), progress=False)
    with pytest.raises(UsageError, match="bart has an encoder, which sees the next tokens"):
        pretrain(config(store, tmp_path / "next", {"next": True}), progress=False)
    with pytest.raises(UsageError, match="bart has no masked head"):
        pretrain(config(store, tmp_path / "masked", {}), progress=False)
