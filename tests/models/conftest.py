"""Tiny models of every family, and packed batches of random sequences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.packing import pack
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import offsets_of

VOCABULARY = 50


@pytest.fixture
def make_model() -> Callable[..., Model]:
    def make(family: str, heads: dict[str, int] | None = None, **overrides: Any) -> Model:
        """Every parameter away from 0, so that each has an effect."""
        sizes: dict[str, Any] = {
            "hidden_size": 32,
            "num_heads": 2,
            "num_layers": 2,
            "intermediate_size": 48,
            "max_length": 64,
        }
        quiet: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0}
        special: dict[str, dict[str, Any]] = {
            "electra": {"embedding_size": 16},
            "esm": {"token_dropout": 7},
            "modernbert": {"window": 6, "num_layers": 3},
            # without these the preset is EuroBERT or Llama
            "modern": {"qk_norm": True, "context": 0 if overrides.get("causal") else 2, "embedding_norm": True},
        }
        config = preset(family, "tiny", vocab_size=VOCABULARY, **(sizes | quiet | special.get(family, {}) | overrides))
        model = Model(config, heads or {}, seed=1)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    def make(lengths: list[int], length: int = 64, *, packed: bool = True, seed: int = 0) -> Batch:
        chance = np.random.default_rng(seed)
        offsets = offsets_of(np.array(lengths, np.int64))
        ids = chance.integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
        labels = np.where(chance.random(len(ids)) < 0.3, ids, IGNORE).astype(np.int32)
        return pack(Examples(ids, offsets, labels), length, packed=packed)

    return make
