"""The published families give the outputs and losses of `transformers`, with weights moved both ways."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.models.config import ModelConfig
from pluri.models.heads import Model
from pluri.tokens.ragged import offsets_of
from pluri.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

V, CLASSES = 61, 3
LENGTHS = [9, 5, 14, 2, 7, 1, 14]

# Width, layers, heads, inner width, and what else differs between the random configurations.
SHAPES = [
    {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40},
    {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32},
]
OTHERS: list[dict[str, Any]] = [{}, {"hidden_act": "silu", "layer_norm_eps": 1e-3}, {"type_vocab_size": 3}]
SUFFIXES = {
    "Bert": [
        "Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification",
        "ForTokenClassification", "ForQuestionAnswering",
    ],
    "Roberta": ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"],
    "Albert": [
        "Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification",
        "ForQuestionAnswering",
    ],
}  # fmt: skip
HEADS: dict[str, dict[str, int]] = {
    "ForPreTraining": {"masked": V, "pair": 2},
    "ForMaskedLM": {"masked": V},
    "ForNextSentencePrediction": {"pair": 2},
    "ForSequenceClassification": {"classify": CLASSES},
    "ForTokenClassification": {"tag": CLASSES},
    "ForQuestionAnswering": {"answer": 2},
}
CASES = [(name, suffix, i) for name, suffixes in SUFFIXES.items() for suffix in suffixes for i in range(len(SHAPES))]


def published(name: str, suffix: str, shape: int) -> Any:
    """A random model of `transformers` with weights large enough that any slip shows."""
    values = {"vocab_size": V, "max_position_embeddings": 20, "initializer_range": 0.25} | SHAPES[shape] | OTHERS[shape]
    if "For" in suffix and "Classification" in suffix:
        values["num_labels"] = CLASSES
    if name == "Albert":
        values["embedding_size"] = (8, 16, 32)[shape]
    torch.manual_seed(shape)
    model = getattr(transformers, name + suffix)(getattr(transformers, f"{name}Config")(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def make_examples(num_types: int) -> Examples:
    chance = np.random.default_rng(1)
    offsets = offsets_of(np.array(LENGTHS))
    ids = chance.integers(5, V, offsets[-1]).astype(np.int32)
    labels = np.where(chance.random(len(ids)) < 0.4, chance.integers(5, V, len(ids)), IGNORE).astype(np.int32)
    types = chance.integers(0, num_types, len(ids)).astype(np.uint8)
    return Examples(ids, offsets, labels, types, chance.integers(0, 2, len(LENGTHS)))


def sequence_states(model: Model, batch: Batch) -> dict[str, list[Tensor]]:
    """Outputs by name, one tensor for each sequence in the order given."""
    where = [slice(s, s + n) for s, n in zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)]
    hidden = model.hidden(batch)
    found = {"hidden": [hidden.flatten(0, 1)[w] for w in where]}
    for head in model.num_classes:
        every = torch.arange(batch.input_ids.numel())
        out = model.outputs(head, hidden, batch, at=every)
        if head in ("tag", "answer"):
            out = out.flatten(0, 1)
        found[head] = [out[w] for w in where] if head in ("masked", "tag", "answer") else list(out)
    return found


def published_states(model: Any, batch: Batch) -> dict[str, list[Tensor]]:
    """The same of `transformers`, from a padded batch with an attention mask."""
    names = {"last_hidden_state": "hidden", "pooler_output": "pool", "prediction_logits": "masked"}
    names |= {"seq_relationship_logits": "pair", "sop_logits": "pair"}
    kind = type(model).__name__
    for end, head in (("MaskedLM", "masked"), ("SequenceClassification", "classify"), ("TokenClassification", "tag")):
        if kind.endswith(end):
            names["logits"] = head
    if kind.endswith("NextSentencePrediction"):
        names["logits"] = "pair"
    mask = (batch.sequence_ids > 0).long()
    given = {"input_ids": batch.input_ids, "attention_mask": mask, "token_type_ids": batch.token_type_ids}
    out = model(**given, output_hidden_states=True)
    found = {names[key]: value for key, value in out.items() if key in names}
    found["hidden"] = out["hidden_states"][-1]
    if kind.endswith("QuestionAnswering"):
        found["answer"] = torch.stack([out["start_logits"], out["end_logits"]], dim=-1)
    return {
        key: [row[:n] if value.dim() == 3 else row for row, n in zip(value, batch.lengths.tolist(), strict=True)]
        for key, value in found.items()
    }


def assert_same(ours: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours:
        for mine, other in zip(ours[key], theirs[key], strict=True):
            assert mine.shape == other.shape
            assert (mine - other).abs().max() <= 1e-5, key


@pytest.mark.parametrize(("name", "suffix", "shape"), CASES)
@torch.no_grad()
def test_published_to_pluri_and_back(name: str, suffix: str, shape: int, tmp_path: Path, tokenizer: Tokenizer):
    theirs = published(name, suffix, shape)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    ours, _ = load_model(tmp_path / "theirs")
    ours.eval()
    assert ours.new_heads == ()
    examples = make_examples(theirs.config.type_vocab_size)
    padded = pack(examples, 16, packed=False)
    expected = published_states(theirs, padded)
    assert_same(sequence_states(ours, padded), expected)
    assert_same(sequence_states(ours, pack(examples, 16)), expected)

    save_model(tmp_path / "ours", ours, tokenizer)
    again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    assert_same(published_states(again.eval(), padded), expected)
    for key in ("hidden_size", "layer_norm_eps", "hidden_act", "type_vocab_size", "pad_token_id", "num_labels"):
        assert getattr(again.config, key) == getattr(theirs.config, key)


def pluri_config(name: str) -> ModelConfig:
    family = name.lower()
    values: dict[str, Any] = {"family": family, "vocab_size": V, "max_length": 16, "norm_eps": 1e-7}
    values |= {"hidden_size": 24, "num_layers": 2, "num_heads": 3, "intermediate_size": 48, "initializer_range": 0.25}
    if family == "albert":
        values |= {"embedding_size": 12, "shared_layers": True, "activation": "gelu_new"}
    return ModelConfig.parse(values)


@pytest.mark.parametrize(("name", "suffix"), [(n, s) for n, suffixes in SUFFIXES.items() for s in suffixes])
@torch.no_grad()
def test_pluri_to_published(name: str, suffix: str, tmp_path: Path, tokenizer: Tokenizer):
    ours = Model(pluri_config(name), HEADS.get(suffix, {"pool": 24}), seed=3).eval()
    labels = ["a", "b", "c"] if "Classification" in suffix else None
    save_model(tmp_path, ours, tokenizer, labels=labels)
    auto = {"ForPreTraining": "AutoModelForPreTraining", "Model": "AutoModel"}
    opener = getattr(transformers, auto.get(suffix, f"Auto{'Model' if 'For' in suffix else ''}{suffix}"))
    theirs, report = opener.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == name + suffix
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    if labels:
        assert theirs.config.id2label == dict(enumerate(labels))
    padded = pack(make_examples(2), 16, packed=False)
    assert_same(sequence_states(ours, padded), published_states(theirs.eval(), padded))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).mask_token_id == tokenizer.mask_id


@pytest.mark.parametrize("name", SUFFIXES)
@torch.no_grad()
def test_losses_are_the_published_losses(name: str, tmp_path: Path, tokenizer: Tokenizer):
    suffix = "ForMaskedLM" if name == "Roberta" else "ForPreTraining"
    theirs = published(name, suffix, 0)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, _ = load_model(tmp_path)
    ours.eval()
    examples = make_examples(theirs.config.type_vocab_size)
    padded, packed = pack(examples, 16, packed=False), pack(examples, 16)
    assert padded.labels is not None
    assert padded.sequence_labels is not None
    given: dict[str, Tensor] = {"labels": padded.labels}
    if name != "Roberta":
        given["next_sentence_label" if name == "Bert" else "sentence_order_label"] = padded.sequence_labels
    mask = (padded.sequence_ids > 0).long()
    types = padded.token_type_ids
    expected = theirs(input_ids=padded.input_ids, attention_mask=mask, token_type_ids=types, **given).loss
    for batch in (padded, packed):
        assert batch.labels is not None
        assert batch.sequence_labels is not None
        hidden = ours.hidden(batch)
        loss = F.cross_entropy(ours.outputs("masked", hidden, batch), batch.labels.flatten()[batch.predicted])
        if "pair" in ours.num_classes:
            loss = loss + F.cross_entropy(ours.outputs("pair", hidden, batch), batch.sequence_labels)
        assert abs(loss - expected) <= 1e-5


@torch.no_grad()
def test_gradients_are_the_published_gradients(tmp_path: Path, tokenizer: Tokenizer):
    theirs = published("Bert", "ForMaskedLM", 0)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, _ = load_model(tmp_path)
    ours.eval()
    batch = pack(make_examples(2), 16, packed=False)
    assert batch.labels is not None
    with torch.enable_grad():
        mask = (batch.sequence_ids > 0).long()
        theirs(batch.input_ids, mask, batch.token_type_ids, labels=batch.labels).loss.backward()
        packed = pack(replace(make_examples(2)), 16)
        assert packed.labels is not None
        F.cross_entropy(ours(packed, "masked"), packed.labels.flatten()[packed.predicted]).backward()
    pairs = [
        (ours.body.embeddings.tokens.weight, theirs.bert.embeddings.word_embeddings.weight),
        (ours.body.get_parameter("blocks.0.ffn.up.weight"), theirs.bert.encoder.layer[0].intermediate.dense.weight),
        (ours.heads["masked"].get_parameter("dense.weight"), theirs.cls.predictions.transform.dense.weight),
    ]
    for mine, other in pairs:
        # the published embedding has no gradient at the padding id, which no packed row reads
        assert torch.allclose(mine.grad[1:], other.grad[1:], atol=1e-5)
