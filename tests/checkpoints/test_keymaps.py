"""Tables are reversible: there and back gives the same tensors to the bit."""

from typing import Any

import pytest
import torch

from pluri.checkpoints.keymaps import canonical, from_published, published_names, to_published, without_prefix
from pluri.models.config import preset
from pluri.models.heads import Model

HEADS = {
    "bert": [{"masked": 50, "pair": 2}, {"classify": 3}, {"tag": 4}, {"pool": 32}],
    "roberta": [{"masked": 50}, {"classify": 3}, {"tag": 4}, {"pool": 32}],
    "albert": [{"masked": 50, "pair": 2}, {"classify": 3}, {"tag": 4}, {"pool": 32}],
    "modern": [{"masked": 50, "pair": 2, "classify": 3, "tag": 4}],
}


def tiny(family: str, heads: dict[str, int]) -> Model:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}
    return Model(preset(family, "tiny", vocab_size=50, max_length=16, **sizes), heads, seed=1)


@pytest.mark.parametrize(("family", "heads"), [(f, h) for f, all_heads in HEADS.items() for h in all_heads])
def test_there_and_back(family: str, heads: dict[str, int]):
    model = tiny(family, heads)
    state = model.state_dict()
    published = to_published(model.config, state)
    assert sum(t.numel() for t in published.values()) == sum(t.numel() for t in state.values())
    again = from_published(model.config, state, published)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_queries_keys_and_values_are_cut_in_this_order():
    model = tiny("bert", {})
    fused = model.state_dict()["body.blocks.1.attention.qkv.weight"]
    names = published_names(model.config, "body.blocks.1.attention.qkv.weight")
    assert [name.split(".")[-2] for name in names] == ["query", "key", "value"]
    published = to_published(model.config, model.state_dict())
    assert torch.equal(published["bert.encoder.layer.1.attention.self.key.weight"], fused[32:64])


def test_other_spellings_of_one_model_become_one():
    model = tiny("bert", {"masked": 50})
    plain = to_published(model.config, model.state_dict())
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in plain.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in old.items()}
    old["bert.embeddings.position_ids"] = torch.arange(16)
    old["cls.predictions.decoder.weight"] = plain["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = plain["cls.predictions.bias"].clone()
    assert canonical(model.config, old).keys() == plain.keys()
    base = to_published(model.config, tiny("bert", {"pool": 32}).state_dict())
    assert canonical(model.config, without_prefix(model.config, base)).keys() == base.keys()


def test_an_output_layer_that_is_not_tied_keeps_its_name():
    model = tiny("bert", {"masked": 50})
    plain = to_published(model.config, model.state_dict())
    untied = plain | {"cls.predictions.decoder.weight": plain["bert.embeddings.word_embeddings.weight"] + 1}
    assert "cls.predictions.decoder.weight" in canonical(model.config, untied)
