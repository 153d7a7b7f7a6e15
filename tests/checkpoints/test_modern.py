"""The preset `modern` is an architecture that `transformers` has; with fields of its own it is none, and says so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.exchange import convert_model
from pluri.checkpoints.huggingface import load_model, read_model, save_model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import offsets_of
from pluri.tokens.tokenizer import Tokenizer

V = 61
LENGTHS = torch.tensor([9, 5, 14, 2])


def stirred(heads: dict[str, int], **overrides: Any) -> Model:
    """A model of the preset, every parameter away from its start."""
    config = preset("modern", "tiny", vocab_size=V, max_length=16, hidden_size=32, num_heads=2, **overrides)
    model = Model(config, heads, seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(*, packed: bool) -> Any:
    ids = torch.randint(5, V, (int(LENGTHS.sum()),), generator=torch.Generator().manual_seed(5))
    return pack(Examples(ids.int().numpy(), offsets_of(LENGTHS.numpy())), 16, packed=packed)


@torch.no_grad()
def states(model: Model) -> list[torch.Tensor]:
    """The hidden states of each sequence, from packed rows."""
    rows = batch(packed=True)
    hidden = model.hidden(rows).flatten(0, 1)
    return [hidden[s : s + n] for s, n in zip(rows.starts.tolist(), rows.lengths.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("heads", "name", "without"),
    [
        ({}, "EuroBertModel", []),
        ({"masked": V}, "EuroBertForMaskedLM", []),
        ({"masked": V, "pair": 2}, "EuroBertForMaskedLM", ["pair"]),
        ({"classify": 3}, "EuroBertForSequenceClassification", []),
        ({"tag": 3}, "EuroBertForTokenClassification", []),
        ({"answer": 2}, "EuroBertModel", ["answer"]),
    ],
)
@torch.no_grad()
def test_transformers_opens_what_the_preset_makes(
    heads: dict[str, int], name: str, without: list[str], tmp_path: Path, tokenizer: Tokenizer
):
    transformers = pytest.importorskip("transformers")
    ours = stirred(heads)
    save_model(tmp_path / "a", ours, tokenizer)
    converted = convert_model(tmp_path / "a", tmp_path / "b")
    assert (converted.architecture, converted.only_here, converted.left_out) == (name, without, [])
    assert str(converted).endswith(f"transformers.{name}" + "".join(f", without {head}" for head in without))
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "b")
    padded = batch(packed=False)
    hidden = theirs(padded.input_ids, (padded.sequence_ids > 0).long()).last_hidden_state
    for mine, row in zip(states(ours), hidden, strict=True):
        torch.testing.assert_close(mine, row[: len(mine)], atol=1e-5, rtol=0)
    again, _ = load_model(tmp_path / "b")
    assert again.num_classes == heads
    assert all(torch.equal(again.state_dict()[key], value) for key, value in ours.state_dict().items())
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "b").mask_token_id == tokenizer.mask_id


def test_config_json_is_as_transformers_writes_it(tmp_path: Path, tokenizer: Tokenizer):
    transformers = pytest.importorskip("transformers")
    save_model(tmp_path / "a", stirred({"masked": V}), tokenizer)
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    assert {key: after.get(key) for key in before} == before
    assert (
        load_file(tmp_path / "a" / "model.safetensors").keys() == load_file(tmp_path / "b" / "model.safetensors").keys()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("context", 2), ("qk_norm", True), ("embedding_norm", True), ("token_types", 2), ("gated", False), ("window", 4)],
)
def test_a_field_that_no_architecture_has_is_named(field: str, value: Any, tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path / "a", stirred({"masked": V}, **{field: value}), tokenizer)
    converted = convert_model(tmp_path / "a", tmp_path / "b")
    assert (converted.architecture, converted.only_here) == (None, [f"{field} = {value!r}"])
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_type"] == "pluri"


def test_an_output_layer_of_its_own(tmp_path: Path, tokenizer: Tokenizer):
    model = stirred({"masked": V}, tied=False)
    weight, bias = model.decoder
    assert weight is not model.body.embeddings.tokens.weight
    assert bias is None
    save_model(tmp_path, model, tokenizer)
    assert torch.equal(load_model(tmp_path)[0].decoder[0], weight)
    other = read_model(tmp_path, heads={"tag": 3})
    assert (other.model.new_heads, other.left_out) == (("tag",), ["lm_head.weight"])


def test_a_tied_output_layer_is_no_new_head(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, stirred({}), tokenizer)
    assert load_model(tmp_path, heads={"masked": V})[0].new_heads == ()
    save_model(tmp_path, stirred({}, tied=False), tokenizer)
    assert load_model(tmp_path, heads={"masked": V})[0].new_heads == ("masked",)
