"""LoRA adapters on disk: `peft` opens them to the same logits, and its own are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, save_adapter
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import CheckpointError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.models.lora import attach
from pluri.tokens.tokenizer import Tokenizer

V, LENGTH = 61, 9
SIZES: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}
SPECIAL: dict[str, dict[str, Any]] = {"electra": {"embedding_size": 16}, "esm": {"token_dropout": 4}}
FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert", "albert", "distilbert", "electra", "esm", "modernbert"]
AUTO = {
    "classify": "AutoModelForSequenceClassification",
    "tag": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
}


def tiny(family: str, heads: dict[str, int]) -> Model:
    config = preset(family, "tiny", vocab_size=V, max_length=16, **SIZES, **SPECIAL.get(family, {}))
    model = Model(config, heads, seed=3)
    stir(list(model.parameters()), 0.1)
    return model.eval()


@torch.no_grad()
def stir(parameters: list[Any], size: float) -> None:
    """Moves each parameter, as training would."""
    generator = torch.Generator().manual_seed(5)
    for parameter in parameters:
        parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def sequences() -> np.ndarray:
    return np.random.default_rng(0).integers(5, V, (3, LENGTH)).astype(np.int32)


@torch.no_grad()
def ours(model: Model, head: str) -> torch.Tensor:
    """Logits, before the adapters are merged."""
    batch = pack(Examples(sequences().reshape(-1), np.arange(4) * LENGTH), 16, packed=False)
    return model(batch, head)[:, :LENGTH] if head != "classify" else model(batch, head)


@torch.no_grad()
def theirs(model: Any) -> torch.Tensor:
    ids = torch.from_numpy(sequences()).long()
    out = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return out["logits"] if "logits" in out else torch.stack([out["start_logits"], out["end_logits"]], -1)


def adapted(tmp_path: Path, tokenizer: Tokenizer, family: str, head: str, targets: Any) -> tuple[Model, torch.Tensor]:
    """Writes tmp_path/base, a pretrained model, and tmp_path/adapter and tmp_path/merged, made of it."""
    base = tiny(family, {"masked": V})
    save_model(tmp_path / "base", base, tokenizer)
    model, _ = load_model(tmp_path / "base", heads={head: {"classify": 3, "tag": 4, "answer": 2}[head]})
    lora = attach(model.eval(), 4, 8, targets, seed=1)
    stir([parameter for parameter in model.parameters() if parameter.requires_grad], 0.2)
    said = ours(model, head)
    lora.merge(model)
    save_model(tmp_path / "merged", model, tokenizer)
    save_adapter(tmp_path / "adapter", model, lora, base=tmp_path / "base")
    return model, said


@pytest.mark.parametrize(
    ("family", "targets", "head"),
    [
        *((family, "query_value", "classify") for family in FAMILIES),
        *((family, "all_linear", "classify") for family in ("bert", "albert", "esm", "modernbert")),
        *((family, "all_linear", head) for family in ("roberta", "modernbert") for head in ("tag", "answer")),
    ],
)
def test_peft_opens_the_adapter_to_the_same_logits(
    family: str, targets: str, head: str, tmp_path: Path, tokenizer: Tokenizer
):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    model, said = adapted(tmp_path, tokenizer, family, head, targets)
    labels = {} if head == "answer" else {"num_labels": model.num_classes[head]}
    base = getattr(transformers, AUTO[head]).from_pretrained(tmp_path / "base", **labels)
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(theirs(opened), said, atol=1e-5, rtol=0)
    wanted = {name for name, _ in opened.named_parameters() if ".lora_" in name}
    assert len(wanted) == len([n for n in opened.state_dict() if ".lora_" in n]) > 0
    merged = getattr(transformers, AUTO[head]).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(theirs(merged), said, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["bert", "esm", "modernbert"])
def test_an_adapter_folder_is_read_as_the_merged_model(family: str, tmp_path: Path, tokenizer: Tokenizer):
    model, _ = adapted(tmp_path, tokenizer, family, "tag", "all_linear")
    again, _ = load_model(tmp_path / "adapter", heads={"tag": 4})
    for name, value in model.body.state_dict().items():
        torch.testing.assert_close(again.body.state_dict()[name], value, atol=1e-6, rtol=1e-6)
    assert again.new_heads == ("tag",)


def test_an_adapter_that_peft_wrote_is_read(tmp_path: Path, tokenizer: Tokenizer):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    save_model(tmp_path / "base", tiny("bert", {"classify": 3}), tokenizer)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=5, target_modules=["query", "dense"])
    trained = peft.get_peft_model(base, config)
    stir([parameter for parameter in trained.parameters() if parameter.requires_grad], 0.2)
    expected = theirs(trained)
    trained.save_pretrained(tmp_path / "adapter")
    model, _ = load_model(tmp_path / "adapter")
    torch.testing.assert_close(ours(model.eval(), "classify"), expected, atol=1e-5, rtol=0)


def test_an_earlier_adapter_does_not_stay_beside_another_model(tmp_path: Path, tokenizer: Tokenizer):
    model, _ = adapted(tmp_path, tokenizer, "bert", "tag", "query_value")
    save_adapter(tmp_path / "adapter", model, None, base="base")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, r"adapter_config\.json: use_dora = True is not supported"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3' is not supported"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern"),
        ({"r": 0}, "is damaged"),
        ({"base_model_name_or_path": None}, "is damaged"),
    ],
)
def test_other_adapters_are_refused(change: dict[str, Any], message: str, tmp_path: Path, tokenizer: Tokenizer):
    adapted(tmp_path, tokenizer, "bert", "tag", "query_value")
    file = tmp_path / "adapter" / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "adapter")


def test_a_part_that_is_not_read_is_not_passed_over(tmp_path: Path, tokenizer: Tokenizer):
    adapted(tmp_path, tokenizer, "bert", "tag", "query_value")
    file = tmp_path / "adapter" / ADAPTER_WEIGHTS
    name = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.bias"
    save_file(load_file(file) | {name: torch.ones(32)}, file)
    with pytest.raises(CheckpointError, match="not a product of two matrices"):
        load_model(tmp_path / "adapter")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path, tokenizer: Tokenizer):
    adapted(tmp_path, tokenizer, "bert", "tag", "query_value")
    save_model(tmp_path / "base", tiny("roberta", {"masked": V}), tokenizer)
    with pytest.raises(CheckpointError, match=rf"{ADAPTER_WEIGHTS}: does not fit the model .*base"):
        load_model(tmp_path / "adapter")
