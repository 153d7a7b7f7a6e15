"""The published families give the outputs and losses of `transformers`, with weights moved both ways."""

import inspect
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
from pluri.errors import CheckpointError
from pluri.models.config import ModelConfig, preset
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
    "Albert": [
        "Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification",
        "ForQuestionAnswering",
    ],
}  # fmt: skip
OTHER_FAMILIES = ("Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra", "Esm", "ModernBert")
SUFFIXES |= {
    name: ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
    for name in OTHER_FAMILIES
}
SUFFIXES["Esm"].remove("ForQuestionAnswering")  # transformers has none
SUFFIXES["GPT2"] = ["Model", "LMHeadModel"]
WITHOUT_POOLER = ("DistilBert", "Electra", "ModernBert", "GPT2")
# What a family calls the options above; None where it has no such option.
NAMES: dict[str, dict[str, str | None]] = {
    "DistilBert": {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim", "hidden_act": "activation", "layer_norm_eps": None, "type_vocab_size": None,
    },
    "Esm": {"hidden_act": None, "type_vocab_size": None},
    "ModernBert": {"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps", "type_vocab_size": None},
    "GPT2": {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "intermediate_size": "n_inner", "hidden_act": "activation_function", "layer_norm_eps": "layer_norm_epsilon",
        "max_position_embeddings": "n_positions", "type_vocab_size": None,
    },
}  # fmt: skip
MORE: dict[str, list[dict[str, Any]]] = {
    "Albert": [{"embedding_size": 8}, {"embedding_size": 16}, {"embedding_size": 32}],
    "Electra": [{"embedding_size": 8}, {"embedding_size": 16}, {"embedding_size": 12}],
    # The masks of token dropout are among the random tokens. The last is as ESM-1b.
    "Esm": [
        {
            "pad_token_id": 1,
            "mask_token_id": 7,
            "token_dropout": True,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
        },
        {
            "pad_token_id": 1,
            "mask_token_id": 4,
            "token_dropout": False,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
        },
        {"pad_token_id": 1, "mask_token_id": 9, "token_dropout": True, "emb_layer_norm_before": True},
    ],
    # All sequences are longer than some window.
    "ModernBert": [
        {"pad_token_id": 0, "local_attention": 4},
        {"pad_token_id": 0, "local_attention": 6, "classifier_pooling": "mean", "global_attn_every_n_layers": 2},
        {"pad_token_id": 0, "local_attention": 2},
    ],
}
MORE["GPT2"] = [{"pad_token_id": 0}] * 3  # as the toy tokenizer says
TOKENS = ("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")  # the toy tokenizer has its own
# Keys of config.json that say nothing of what a model computes, or that only training reads.
UNTOLD = ("mask_token_id", "_name_or_path", "dtype", "architectures", "problem_type", "transformers_version", *TOKENS)
HEADS: dict[str, dict[str, int]] = {
    "ForPreTraining": {"masked": V, "pair": 2},
    "ForMaskedLM": {"masked": V},
    "LMHeadModel": {"next": V},
    "ForNextSentencePrediction": {"pair": 2},
    "ForSequenceClassification": {"classify": CLASSES},
    "ForTokenClassification": {"tag": CLASSES},
    "ForQuestionAnswering": {"answer": 2},
}
CASES = [(name, suffix, i) for name, suffixes in SUFFIXES.items() for suffix in suffixes for i in range(len(SHAPES))]


def published(name: str, suffix: str, shape: int) -> Any:
    """A random model of `transformers` with weights large enough that any slip shows."""
    values = {"vocab_size": V, "max_position_embeddings": 20, "initializer_range": 0.25} | SHAPES[shape] | OTHERS[shape]
    names = NAMES.get(name, {})
    values = {new: value for key, value in values.items() if (new := names.get(key, key)) is not None}
    values |= MORE[name][shape] if name in MORE else {}
    if "For" in suffix and "Classification" in suffix:
        values["num_labels"] = CLASSES
    torch.manual_seed(shape)
    model = getattr(transformers, name + suffix)(getattr(transformers, f"{name}Config")(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("rotary_embeddings.inv_freq"):
                buffer.copy_(buffer.half())  # as in folders whose frequencies were rounded
    return model


def make_examples(num_types: int) -> Examples:
    chance = np.random.default_rng(1)
    offsets = offsets_of(np.array(LENGTHS))
    ids = chance.integers(5, V, offsets[-1]).astype(np.int32)
    labels = np.where(chance.random(len(ids)) < 0.4, chance.integers(5, V, len(ids)), IGNORE).astype(np.int32)
    types = chance.integers(0, num_types, len(ids)).astype(np.uint8)
    return Examples(ids, offsets, labels, types, chance.integers(0, 2, len(LENGTHS)))


def sequence_states(model: Model, batch: Batch) -> dict[str, list[Tensor]]:
    """Outputs by name, one tensor for each sequence in the order given; and the hidden states of every layer."""
    where = [slice(s, s + n) for s, n in zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)]
    states = model.body(batch, layers=True)
    found = {f"hidden {i}": [state.flatten(0, 1)[w] for w in where] for i, state in enumerate(states)}
    for head in model.num_classes:
        every = torch.arange(batch.input_ids.numel())
        out = model.outputs(head, states[-1], batch, at=every)
        if head in ("tag", "answer"):
            out = out.flatten(0, 1)
        found[head] = [out[w] for w in where] if head in ("masked", "next", "tag", "answer") else list(out)
    return found


def published_states(model: Any, batch: Batch) -> dict[str, list[Tensor]]:
    """The same of `transformers`, from a padded batch with an attention mask."""
    names = {"pooler_output": "pool", "prediction_logits": "masked"}
    names |= {"seq_relationship_logits": "pair", "sop_logits": "pair"}
    kind = type(model).__name__
    ends = {"MaskedLM": "masked", "LMHeadModel": "next", "SequenceClassification": "classify"}
    for end, head in (ends | {"TokenClassification": "tag"}).items():
        if kind.endswith(end):
            names["logits"] = head
    if kind.endswith("NextSentencePrediction"):
        names["logits"] = "pair"
    out = model(**inputs_of(model, batch), output_hidden_states=True)
    found = {names[key]: value for key, value in out.items() if key in names}
    found |= {f"hidden {i}": state for i, state in enumerate(out["hidden_states"])}
    if kind.endswith("QuestionAnswering"):
        found["answer"] = torch.stack([out["start_logits"], out["end_logits"]], dim=-1)
    return {
        key: [row[:n] if value.dim() == 3 else row for row, n in zip(value, batch.lengths.tolist(), strict=True)]
        for key, value in found.items()
    }


def inputs_of(model: Any, batch: Batch) -> dict[str, Tensor]:
    given = {"input_ids": batch.input_ids, "attention_mask": (batch.sequence_ids > 0).long()}
    typed = model.config.model_type != "gpt2"  # which would add embeddings of tokens
    if typed and "token_type_ids" in inspect.signature(model.forward).parameters:
        given["token_type_ids"] = batch.token_type_ids
    return given


def assert_opened(report: dict[str, Any]) -> None:
    assert not report["unexpected_keys"]
    assert all("contact_head" in key for key in report["missing_keys"])  # ESM's head for contacts, which Pluri lacks


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
    examples = make_examples(getattr(theirs.config, "type_vocab_size", 1))
    padded = pack(examples, 16, packed=False)
    expected = published_states(theirs, padded)
    assert_same(sequence_states(ours, padded), expected)
    assert_same(sequence_states(ours, pack(examples, 16)), expected)

    save_model(tmp_path / "ours", ours, tokenizer)
    again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert_opened(report)
    for key, tensor in theirs.state_dict().items():
        if "contact_head" not in key:
            assert torch.equal(again.state_dict()[key], tensor), key
    assert_same(published_states(again.eval(), padded), expected)
    told = again.config.to_dict()
    assert told["architectures"] == [name + suffix]
    for key, value in theirs.config.to_dict().items():
        if key not in UNTOLD:
            assert told[key] == value, key


def pluri_config(name: str) -> ModelConfig:
    family = getattr(transformers, f"{name}Config").model_type
    values: dict[str, Any] = {"hidden_size": 24, "num_layers": 2, "num_heads": 3, "intermediate_size": 48}
    values |= {"initializer_range": 0.25}
    if family in ("albert", "electra"):
        values["embedding_size"] = 12
    if family == "modernbert":
        values |= {"num_layers": 4, "window": 4}
    if family == "esm":
        values["token_dropout"] = 6
    if family != "distilbert":
        values["norm_eps"] = 1e-7
    return preset(family, "tiny", vocab_size=V, max_length=16, **values)


@pytest.mark.parametrize(("name", "suffix"), [(n, s) for n, suffixes in SUFFIXES.items() for s in suffixes])
@torch.no_grad()
def test_pluri_to_published(name: str, suffix: str, tmp_path: Path, tokenizer: Tokenizer):
    heads = HEADS.get(suffix, {} if name in WITHOUT_POOLER else {"pool": 24})
    ours = Model(pluri_config(name), heads, seed=3).eval()
    for parameter in ours.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    labels = ["a", "b", "c"] if "Classification" in suffix else None
    save_model(tmp_path, ours, tokenizer, labels=labels)
    auto = {"ForPreTraining": "AutoModelForPreTraining", "Model": "AutoModel", "LMHeadModel": "AutoModelForCausalLM"}
    opener = getattr(transformers, auto.get(suffix, f"Auto{'Model' if 'For' in suffix else ''}{suffix}"))
    theirs, report = opener.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == name + suffix
    assert_opened(report)
    if labels:
        assert theirs.config.id2label == dict(enumerate(labels))
    padded = pack(make_examples(ours.config.token_types or 1), 16, packed=False)
    assert_same(sequence_states(ours, padded), published_states(theirs.eval(), padded))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).mask_token_id == tokenizer.mask_id


@pytest.mark.parametrize("name", [name for name in SUFFIXES if name != "GPT2"])
@torch.no_grad()
def test_losses_are_the_published_losses(name: str, tmp_path: Path, tokenizer: Tokenizer):
    suffix = "ForPreTraining" if name in ("Bert", "Albert") else "ForMaskedLM"
    theirs = published(name, suffix, 0)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, _ = load_model(tmp_path)
    ours.eval()
    examples = make_examples(getattr(theirs.config, "type_vocab_size", 1))
    padded, packed = pack(examples, 16, packed=False), pack(examples, 16)
    assert padded.labels is not None
    assert padded.sequence_labels is not None
    given: dict[str, Tensor] = {"labels": padded.labels}
    if name in ("Bert", "Albert"):
        given["next_sentence_label" if name == "Bert" else "sentence_order_label"] = padded.sequence_labels
    expected = theirs(**inputs_of(theirs, padded), **given).loss
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


def test_the_line_that_converts_pickled_weights_does(tmp_path: Path, tokenizer: Tokenizer):
    theirs = published("Bert", "ForMaskedLM", 0)
    theirs.config.architectures = ["BertForMaskedLM"]
    theirs.config.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are not read") as refused:
        load_model(tmp_path)
    _, line, _ = str(refused.value).split('"')
    exec(line)
    assert torch.equal(load_model(tmp_path)[0].decoder[0], theirs.bert.embeddings.word_embeddings.weight)


@pytest.mark.parametrize("text", ["MKTV LLAG", "mKT?V!!A<mask>-", "<cls>MK<eos>", ""])
def test_a_tokenizer_of_letters_is_that_of_transformers(text: str, tmp_path: Path):
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')
    theirs = transformers.EsmTokenizer(str(tmp_path / "vocab.txt"))
    ours = Tokenizer.load(tmp_path)
    assert ours.encode_batch([text])[0].ids == theirs.encode(text, add_special_tokens=False)
    roles = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert roles == (1, 3, 0, 2, 32)
    ours.save(tmp_path / "saved")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode(text) == theirs.encode(text)
    assert Tokenizer.load(tmp_path / "saved").hash == ours.hash
