"""Presets, impossible sizes, and the count of operations."""

from typing import get_args

import pytest
from torch.utils.flop_counter import FlopCounterMode

from pluri.errors import UsageError
from pluri.models.config import Family, ModelConfig, departures, preset, train_flops
from pluri.models.heads import Model

# Millions of parameters with pooling and masked head: Turc et al. (2019), table 1; Lan et al. (2020), table 1.
PUBLISHED = [
    ("bert", "tiny", 30522, 4.4),
    ("bert", "mini", 30522, 11.3),
    ("bert", "small", 30522, 29.1),
    ("bert", "medium", 30522, 41.7),
    ("bert", "base", 30522, 110.1),
    ("albert", "base", 30000, 11.8),
]


@pytest.mark.parametrize(("name", "size", "vocab_size", "millions"), PUBLISHED)
def test_presets_have_the_published_numbers_of_parameters(name, size, vocab_size, millions):
    config = preset(name, size, vocab_size=vocab_size)
    model = Model(config, {"pool": config.hidden_size, "masked": vocab_size})
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("name", get_args(Family))
@pytest.mark.parametrize("size", ["tiny", "mini", "small", "medium", "base"])
def test_heads_are_64_wide(name, size):
    config = preset(name, size, vocab_size=100)
    assert config.head_size == 64
    assert config == ModelConfig.parse(config.model_dump())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "hidden_size 128 is not divisible by num_heads 3"),
        ({"num_heads": 128}, "even head size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": -5}, "vocab_size"),
        ({"pad_id": 100}, "pad_id 100 is outside the vocabulary"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "swish"}, "activation"),
        ({"hiden_size": 64}, "did you mean 'hidden_size'"),
    ],
)
def test_impossible_sizes_are_refused_by_name(changes, message):
    with pytest.raises(UsageError, match=message):
        preset("modern", "tiny", **({"vocab_size": 100} | changes))


def test_unknown_presets_sizes_and_variants():
    with pytest.raises(UsageError, match="unknown preset 'brt'; choose one of bert, roberta"):
        preset("brt", "tiny", vocab_size=100)
    with pytest.raises(UsageError, match="unknown size 'huge'"):
        preset("bert", "huge", vocab_size=100)
    with pytest.raises(UsageError, match="bert has positions = 'learned'"):
        preset("bert", "tiny", vocab_size=100, positions="rotary")
    with pytest.raises(UsageError, match="use albert"):
        preset("bert", "tiny", vocab_size=100, embedding_size=64)


@pytest.mark.parametrize("family", ["bert", "albert", "eurobert", "modern"])
def test_flops_are_those_that_torch_counts(family, make_model, make_batch):
    model, batch = make_model(family, {"masked": 50}), make_batch([64, 64])
    with FlopCounterMode(display=False) as counter:
        model(batch, "masked").sum().backward()
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for operation, n in counted.items() if "attention" not in str(operation))  # it counts a part only
    assert products == train_flops(model.config, 128, len(batch.predicted), len(batch.predicted), 0)
    attention = train_flops(model.config, 0, 0, 0, 2 * 64**2)
    scores_and_mix = 2 * model.config.num_layers * (2 * 64 * 64 * model.config.hidden_size) * len([64, 64])
    assert attention == 3 * scores_and_mix


@pytest.mark.parametrize(
    ("changes", "family", "apart"),
    [
        ({}, "eurobert", {}),
        ({"num_layers": 3, "dropout": 0.1, "activation": "gelu", "pooling": "first", "tied": False}, "eurobert", {}),
        ({"causal": True}, "llama", {}),
        ({"qk_norm": True, "context": 2}, "modern", {"qk_norm": True, "context": 2}),
        ({"causal": True, "pooling": "first"}, "modern", {"pooling": "first"}),
        ({"decoder_layers": 2}, "modern", {"decoder_layers": 2}),
        ({"embedding_size": 64}, "modern", {"embedding_size": 64}),
    ],
)
def test_the_preset_modern_is_published_unless_a_field_departs(changes, family, apart):
    config = preset("modern", "tiny", vocab_size=100, **changes)
    assert config.family == family
    assert departures(config) == apart
