"""BART's folders, both ways: the outputs of transformers to 1e-5, packed rows too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pluri.batches.batch import Batch
from pluri.batches.example import Examples, answered
from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model, read_model, save_model
from pluri.errors import CheckpointError
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import Ragged, offsets_of
from pluri.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

V = 61
CONFIGS: list[dict[str, Any]] = [
    {"d_model": 24, "encoder_layers": 2, "decoder_layers": 1, "heads": 3, "ffn": 40, "activation_function": "gelu"},
    {"d_model": 16, "encoder_layers": 1, "decoder_layers": 3, "heads": 2, "ffn": 16, "activation_function": "relu"},
    {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "heads": 4, "ffn": 64, "activation_function": "gelu"},
]


def published(kind: str, values: dict[str, Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {f"{side}_{what}": values[short] for side in ("encoder", "decoder") for what, short in
             (("attention_heads", "heads"), ("ffn_dim", "ffn"))}  # fmt: skip
    plain = {name: value for name, value in values.items() if name not in ("heads", "ffn")}
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    tokens["forced_eos_token_id"] = 3
    config = transformers.BartConfig(
        vocab_size=V, max_position_embeddings=40, init_std=0.25, **plain, **sizes, **tokens
    )
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        if kind != "BartModel":
            model.final_logits_bias.normal_()
    return model


def pairs(seed: int = 0) -> Examples:
    """Eight answers and their sources."""
    chance = np.random.default_rng(seed)
    sides = [chance.integers(1, 18, 8) for _ in range(2)]
    answers, sources = (Ragged(chance.integers(5, V, n.sum()).astype(np.int32), offsets_of(n)) for n in sides)
    return answered(answers, sources, start=3)


def of_each(flat: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
    """Rows of a flat (B * L, ...) tensor that belong to each sequence, in the order in which they were given."""
    return [flat[s : s + n] for s, n in zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)]


def asked(model: Any, batch: Batch) -> Any:
    """What transformers makes of a batch of one sequence a row."""
    assert batch.source is not None
    return model(
        input_ids=batch.source.input_ids,
        attention_mask=(batch.source.sequence_ids > 0).long(),
        decoder_input_ids=batch.input_ids,
        output_hidden_states=True,
    )


def agree(ours: Model, theirs: Any) -> None:
    ours.eval()
    padded, packed = pack(pairs(), 40, packed=False), pack(pairs(), 40)
    assert len(packed.input_ids) < 5
    answer = asked(theirs, padded)
    for batch in (padded, packed):
        assert batch.source is not None
        assert padded.source is not None
        encoded = ours.body(batch.source, layers=True)
        for mine, other in zip(encoded, answer.encoder_hidden_states, strict=True):
            for a, b in zip(
                of_each(mine.flatten(0, 1), batch.source), of_each(other.flatten(0, 1), padded.source), strict=True
            ):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        hidden = ours.body(batch, layers=True)
        found = list(zip(hidden, answer.decoder_hidden_states, strict=True))
        if ours.num_classes:
            where = torch.arange(batch.input_ids.numel())
            found.append(
                (ours.outputs("next", hidden[-1], batch, where).unflatten(0, batch.input_ids.shape), answer.logits)
            )
        for mine, other in found:
            for a, b in zip(of_each(mine.flatten(0, 1), batch), of_each(other.flatten(0, 1), padded), strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("kind", ["BartModel", "BartForConditionalGeneration"])
@torch.no_grad()
def test_published_to_pluri(kind: str, values: dict[str, Any], tmp_path: Path, tokenizer: Tokenizer):
    theirs = published(kind, values)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    loaded = read_model(tmp_path)
    assert loaded.left_out == []
    assert loaded.model.num_classes == ({"next": V} if "For" in kind else {})
    agree(loaded.model, theirs)


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("heads", [{}, {"next": V}])
@torch.no_grad()
def test_pluri_to_published(heads: dict[str, int], values: dict[str, Any], tmp_path: Path, tokenizer: Tokenizer):
    sizes = {"hidden_size": values["d_model"], "num_heads": values["heads"], "intermediate_size": values["ffn"]}
    layers = {"num_layers": values["encoder_layers"], "decoder_layers": values["decoder_layers"]}
    config = preset(
        "bart", "tiny", vocab_size=V, max_length=40, activation=values["activation_function"], **sizes, **layers
    )
    ours = Model(config, heads, seed=1)
    generator = torch.Generator().manual_seed(0)
    for tensor in ours.state_dict().values():
        tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    save_model(tmp_path, ours, tokenizer)
    opener = transformers.AutoModelForSeq2SeqLM if heads else transformers.AutoModel
    theirs, report = opener.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.decoder_start_token_id == tokenizer.sep_id
    agree(ours, theirs.eval())
    again = load_model(tmp_path)[0].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())


def test_the_loss_is_the_published_loss(tmp_path: Path, tokenizer: Tokenizer):
    theirs = published("BartForConditionalGeneration", CONFIGS[0])
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, _ = load_model(tmp_path)
    padded, packed = pack(pairs(), 40, packed=False), pack(pairs(), 40)
    assert padded.labels is not None
    assert padded.source is not None
    expected = theirs(
        input_ids=padded.source.input_ids, attention_mask=(padded.source.sequence_ids > 0).long(),
        decoder_input_ids=padded.input_ids, labels=padded.labels,
    ).loss  # fmt: skip
    value, parts = pretraining_loss(ours.eval(), packed, len(packed.predicted), 0)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    assert list(parts) == ["next_loss"]


def rewritten(folder: Path, **config: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@torch.no_grad()
def test_a_folder_of_the_hub(tmp_path: Path, tokenizer: Tokenizer):
    """With the shared embedding under each of its names, and without the constant that is 0 as a rule."""
    theirs = published("BartForConditionalGeneration", CONFIGS[0])
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    shared = tensors.pop("model.shared.weight")
    del tensors["final_logits_bias"]
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    save_file(tensors | {name: shared.clone() for name in names}, path)
    agree(load_model(tmp_path)[0], theirs)
    save_file(tensors | {names[0]: shared, names[1]: shared + 1}, path)
    with pytest.raises(CheckpointError, match=r"model\.decoder\.embed_tokens\.weight, which config\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale_embedding": True}, "scale_embedding = True is not supported"),
        ({"decoder_ffn_dim": 80}, "decoder_ffn_dim = 80 is not supported, only encoder_ffn_dim"),
        ({"decoder_layers": 0}, "bart has decoder_layers, one at least"),
    ],
)
def test_variants_are_refused(change: dict[str, Any], message: str, tmp_path: Path, tokenizer: Tokenizer):
    published("BartForConditionalGeneration", CONFIGS[0]).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(rewritten(tmp_path, **change))
