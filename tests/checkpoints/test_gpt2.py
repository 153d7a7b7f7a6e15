"""GPT-2's folders as they are on the hub, and its loss."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from pluri.batches.example import IGNORE, Examples
from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model, read_model, save_model
from pluri.errors import CheckpointError
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import offsets_of
from pluri.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

V = 61


@pytest.fixture
def published(tmp_path: Path, tokenizer: Tokenizer) -> Any:
    torch.manual_seed(0)
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 20, "vocab_size": V, "initializer_range": 0.25}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=2, eos_token_id=3)).eval()
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save(tmp_path / "gpt2")
    return model


def rewritten(folder: Path, **config: Any) -> Path:
    """config.json with other values."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@torch.no_grad()
def test_a_folder_of_the_first_days(published: Any, tmp_path: Path):
    """Without a prefix, with the causal mask among the weights, and the inner width left to its default."""
    folder = rewritten(tmp_path / "gpt2", n_inner=None)
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        bare[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
    save_file(bare, folder / "model.safetensors")
    loaded = read_model(folder)
    assert loaded.left_out == ["transformer.h.0.attn.bias", "transformer.h.1.attn.bias"]
    assert loaded.model.new_heads == ()
    assert loaded.model.config.intermediate_size == 96
    ids = torch.arange(5, 17)[None]
    batch = pack(examples_of(ids), 16, packed=False)
    logits = loaded.model.eval()(batch, "next")
    torch.testing.assert_close(logits, published(ids).logits[0, :-1], atol=1e-5, rtol=0)


def examples_of(ids: torch.Tensor) -> Examples:
    """Rows of equal length as examples whose labels are the tokens that follow."""
    labels = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORE)], 1)
    flat = [each.flatten().int().numpy() for each in (ids, labels)]
    return Examples(flat[0], offsets_of(torch.full((len(ids),), ids.shape[1]).numpy()), flat[1])


def test_loss_and_gradients_are_the_published_ones(published: Any, tmp_path: Path):
    ours = load_model(tmp_path / "gpt2")[0].eval()
    ids = torch.randint(5, V, (3, 12), generator=torch.Generator().manual_seed(1))
    published(ids, labels=ids).loss.backward()
    for packed in (True, False):
        ours.zero_grad()
        loss, parts = pretraining_loss(ours, pack(examples_of(ids), 16, packed=packed), 3 * 11, 0)
        loss.backward()
        assert set(parts) == {"next_loss"}
        assert abs(loss.item() - published(ids, labels=ids).loss.item()) <= 1e-5
        pairs = [
            (ours.body.embeddings.tokens.weight, published.transformer.wte.weight.grad),
            (
                ours.body.get_parameter("blocks.1.attention.qkv.weight"),
                published.transformer.h[1].attn.c_attn.weight.grad.t(),
            ),
            (ours.body.get_parameter("blocks.0.ffn.down.bias"), published.transformer.h[0].mlp.c_proj.bias.grad),
        ]
        for mine, expected in pairs:
            torch.testing.assert_close(mine.grad, expected, atol=1e-5, rtol=1e-4)


def test_the_ids_in_config_json_are_the_tokenizers(tmp_path: Path, tokenizer: Tokenizer):
    model = Model(preset("gpt2", "tiny", vocab_size=V, hidden_size=24, num_heads=3), {"next": V})
    folder = save_model(tmp_path, model, tokenizer)
    told = transformers.AutoConfig.from_pretrained(folder)
    assert (told.bos_token_id, told.eos_token_id, told.pad_token_id) == (2, 3, 0)


@pytest.mark.parametrize("key", ["scale_attn_by_inverse_layer_idx", "add_cross_attention"])
def test_variants_that_compute_something_else_are_refused(published: Any, tmp_path: Path, key: str):
    with pytest.raises(CheckpointError, match=f"{key} = True is not supported"):
        load_model(rewritten(tmp_path / "gpt2", **{key: True}))


def test_an_output_layer_that_is_not_tied_is_refused(published: Any, tmp_path: Path):
    path = tmp_path / "gpt2" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, path)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight, which config\.json does not explain"):
        load_model(tmp_path / "gpt2")


def test_the_tokenizer_of_the_hub(tmp_path: Path):
    """Its tokenizer_config.json names no special token: the class there knows them."""
    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(["the cat sat on the mat"] * 9, vocab_size=270, special_tokens=["<|endoftext|>"])
    raw.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    ours, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.cls_id == ours.sep_id == theirs.eos_token_id == raw.token_to_id("<|endoftext|>")
    assert ours.mask_id is None
    text = " the mat,\nça va"
    assert ours.encode_batch([text])[0].ids == theirs.encode(text)
    assert ours.decode([*theirs.encode(text), theirs.eos_token_id]) == text
