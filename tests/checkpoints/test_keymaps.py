"""Tables are reversible: there and back gives the same tensors to the bit."""

from typing import Any

import pytest
import torch

from pluri.checkpoints.keymaps import (
    canonical,
    from_published,
    published_names,
    to_published,
    unused_names,
    without_prefix,
)
from pluri.models.config import preset
from pluri.models.heads import Model

ALL: list[dict[str, int]] = [{"masked": 50}, {"classify": 3}, {"tag": 4}]
HEADS = {
    "bert": [*ALL, {"masked": 50, "pair": 2}, {"pool": 32}],
    "roberta": [*ALL, {"pool": 32}],
    "xlm-roberta": ALL,
    "camembert": ALL,
    "albert": [*ALL, {"masked": 50, "pair": 2}, {"pool": 32}],
    "distilbert": ALL,
    "electra": ALL,
    "esm": [*ALL, {"pool": 32}],
    "modernbert": ALL,
    "eurobert": [*ALL, {"masked": 50, "pair": 2}, {"answer": 2}],
    "gpt2": [{"next": 50}, {}],
    "llama": [{"next": 50}, {}],
    "bart": [{"next": 50}, {}],
    "modern": [{"masked": 50, "pair": 2, "classify": 3, "tag": 4}],
}


def tiny(family: str, heads: dict[str, int]) -> Model:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}
    if family == "electra":
        sizes["embedding_size"] = 16
    if family == "modern":
        sizes["context"] = 1  # without it the preset is EuroBERT
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
    old["cls.predictions.decoder.weight"] = plain["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = plain["cls.predictions.bias"].clone()
    assert canonical(model.config, old).keys() == plain.keys()
    base = to_published(model.config, tiny("bert", {"pool": 32}).state_dict())
    assert canonical(model.config, without_prefix(model.config, base)).keys() == base.keys()


def test_rotary_queries_and_keys_change_their_order_and_values_do_not():
    model = tiny("esm", {})
    ours = model.state_dict()["body.blocks.0.attention.qkv.bias"]  # 32 each, 2 heads of 16
    ours.copy_(torch.arange(96.0))
    published = to_published(model.config, model.state_dict())
    name = "esm.encoder.layer.0.attention.self.{}.bias".format
    halves = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15]
    assert published[name("query")].tolist() == halves + [16 + i for i in halves]
    assert published[name("key")][:16].tolist() == [32 + i for i in halves]
    assert published[name("value")].tolist() == list(range(64, 96))


@pytest.mark.parametrize("family", ["distilbert", "modernbert"])
def test_a_tied_output_layer_is_stored_once(family: str):
    model = tiny(family, {"masked": 50})
    plain = to_published(model.config, model.state_dict())
    embedding = plain[published_names(model.config, "body.embeddings.tokens.weight")[0]]
    copy = published_names(model.config, "heads.masked.weight")[0]
    assert copy not in plain
    assert canonical(model.config, plain | {copy: embedding.clone()}).keys() == plain.keys()
    assert copy in canonical(model.config, plain | {copy: embedding + 1})
    assert copy not in unused_names(model.config)  # so that an untied one is an error


def test_an_output_layer_that_is_not_tied_keeps_its_name():
    model = tiny("bert", {"masked": 50})
    plain = to_published(model.config, model.state_dict())
    untied = plain | {"cls.predictions.decoder.weight": plain["bert.embeddings.word_embeddings.weight"] + 1}
    assert "cls.predictions.decoder.weight" in canonical(model.config, untied)
