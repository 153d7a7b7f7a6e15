"""Model folders: what is written is read again; what is damaged, missing or foreign is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.exchange import convert_model
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import CheckpointError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer

SIZES: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}


def tiny(family: str, heads: dict[str, int], seed: int = 0) -> Model:
    special: dict[str, dict[str, Any]] = {"electra": {"embedding_size": 16}, "esm": {"token_dropout": 4}}
    special["modern"] = {"context": 1, "token_types": 2, "embedding_norm": True}  # without these the preset is EuroBERT
    config = preset(family, "tiny", vocab_size=61, max_length=16, **SIZES, **special.get(family, {}))
    model = Model(config, heads, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():  # so that nothing is 0, and a tensor that is lost shows
            parameter.add_(0.01)
    return model


def altered(folder: Path, change: dict[str, Tensor], remove: tuple[str, ...] = ()) -> None:
    """Rewrites the weights as another program would: without the hash."""
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in (tensors | change).items() if k not in remove}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("family", "heads"),
    [
        ("bert", {"masked": 61, "pair": 2}),
        ("roberta", {"classify": 3}),
        ("albert", {"tag": 5}),
        ("bert", {"pool": 32}),
        ("bert", {}),
        ("modern", {"masked": 61, "pair": 2, "classify": 4}),
        ("modern", {"tag": 4}),
        ("eurobert", {"masked": 61}),
        ("eurobert", {"masked": 61, "pair": 2}),
        ("eurobert", {"answer": 2}),
        ("eurobert", {"classify": 3}),
        ("xlm-roberta", {"masked": 61}),
        ("camembert", {"tag": 5}),
        ("distilbert", {"classify": 3}),
        ("electra", {"masked": 61}),
        ("esm", {"classify": 3}),
        ("modernbert", {"tag": 3}),
    ],
)
def test_a_folder_gives_back_the_model(family: str, heads: dict[str, int], tmp_path: Path, tokenizer: Tokenizer):
    model = tiny(family, heads)
    save_model(tmp_path / "deep" / "model", model, tokenizer)
    again, words = load_model(tmp_path / "deep" / "model")
    assert again.config == model.config
    assert again.num_classes == heads
    assert again.new_heads == ()
    assert words.hash == tokenizer.hash
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "reads"), [("bert", True), ("roberta", False), ("eurobert", False), ("modern", True)]
)
def test_the_tokenizer_gives_segments_to_models_that_have_them(
    family: str, reads: bool, tmp_path: Path, tokenizer: Tokenizer
):
    model = tiny(family, {"masked": 61})
    save_model(tmp_path / "model", model, tokenizer)
    names = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())["model_input_names"]
    assert ("token_type_ids" in names) == (model.config.token_types > 1) == reads
    assert load_model(tmp_path / "model")[1].hash == tokenizer.hash


def test_labels_and_problem(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path / "a", tiny("bert", {"classify": 2}), tokenizer, labels=["no", "yes"])
    described = read_config(tmp_path / "a")
    assert (described.labels, described.problem) == (["no", "yes"], "single_label_classification")
    save_model(tmp_path / "b", tiny("modern", {"classify": 1}), tokenizer, problem="regression")
    assert read_config(tmp_path / "b").problem == "regression"
    with pytest.raises(UsageError, match="1 labels for 2 classes"):
        save_model(tmp_path / "c", tiny("bert", {"classify": 2}), tokenizer, labels=["no"])
    assert not (tmp_path / "c").exists()


def test_a_head_that_is_absent_starts_new_and_is_named(tmp_path: Path, tokenizer: Tokenizer):
    pretrained = tiny("bert", {"masked": 61, "pair": 2})
    save_model(tmp_path, pretrained, tokenizer)
    model, _ = load_model(tmp_path, heads={"classify": 3, "masked": 61})
    assert model.new_heads == ("classify",)
    assert torch.equal(model.decoder[0], pretrained.decoder[0])
    pooler = "heads.{}.pooler.dense.weight".format
    assert torch.equal(model.state_dict()[pooler("classify")], pretrained.state_dict()[pooler("pair")])
    assert load_model(tmp_path, heads={"pair": 2})[0].new_heads == ()


@pytest.mark.parametrize("family", ["bert", "modern"])
def test_a_classifier_is_not_taken_for_another(family: str, tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny(family, {"tag": 3}), tokenizer)
    assert load_model(tmp_path, heads={"classify": 3})[0].new_heads == ("classify",)
    assert load_model(tmp_path, heads={"tag": 4})[0].new_heads == ("tag",)
    assert load_model(tmp_path, heads={"tag": 3})[0].new_heads == ()


def test_low_precision_is_read_as_fp32(tmp_path: Path, tokenizer: Tokenizer):
    model = tiny("modern", {"masked": 61})
    save_model(tmp_path, model.to(torch.bfloat16), tokenizer)
    assert load_file(tmp_path / "model.safetensors").popitem()[1].dtype == torch.float32
    altered(tmp_path, {k: v.bfloat16() for k, v in load_file(tmp_path / "model.safetensors").items()})
    again, _ = load_model(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.decoder[0], model.decoder[0].float())


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path, tokenizer: Tokenizer):
    name = "bert.encoder.layer.1.attention.self.key.weight"
    for change, remove, message in [
        ({}, (name,), f"lacks {name}"),
        ({}, ("cls.seq_relationship.bias",), "lacks cls.seq_relationship.bias"),
        ({"bert.encoder.layer.2.output.dense.bias": torch.ones(2)}, (), "has bert.encoder.layer.2.output.dense.bias"),
        ({name: torch.ones(32, 31)}, (), rf"{name} has the shape \(32, 31\)"),
        ({name: torch.tensor(1.0)}, (), rf"{name} has the shape \(\)"),
        ({name: torch.ones(32, 32, dtype=torch.int64)}, (), f"{name} is not of a floating dtype"),
        ({"cls.predictions.decoder.weight": torch.ones(61, 32)}, (), "has cls.predictions.decoder.weight"),
    ]:
        save_model(tmp_path, tiny("bert", {"masked": 61, "pair": 2}), tokenizer)
        altered(tmp_path, change, remove)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_model(tmp_path)
        assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))
        assert "\n" not in str(caught.value)


def test_every_kind_of_damage_is_one_line(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("modern", {"masked": 61}), tokenizer)
    whole = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    flipped = bytearray(whole)
    flipped[header + 1001] ^= 1
    for content in (bytes(flipped), whole[: len(whole) // 2], whole[:4], b"", b"no weights" * 100):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged") as caught:
            load_model(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="pickled weights are not read; convert them"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gptj"}, "model_type 'gptj' is unknown"),
        ({"hidden_size": 33}, "hidden_size 33 is not divisible by num_heads 2"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_act": "swish9"}, "activation"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False is not supported"),
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"vocab_size": None}, "vocab_size"),
        ({"problem_type": "multi_label_classification"}, "multi_label_classification"),
        ({"id2label": {"1": "a", "2": "b"}}, "not whole"),
        ({"id2label": 7}, "not whole"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(change: dict, message: str, tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("bert", {"classify": 2}), tokenizer)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_cannot_be_read(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("modern", {"masked": 61}), tokenizer)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    for content in ("{", "[]", "\x00\xff", json.dumps({k: v for k, v in values.items() if k != "num_heads"})):
        path.write_text(content)
        with pytest.raises(CheckpointError):
            load_model(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(tmp_path)


def test_other_files_of_the_folder_stay_and_nothing_else_is_left(tmp_path: Path, tokenizer: Tokenizer):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "results.json").write_text("{}")
    save_model(folder, tiny("modern", {"masked": 61}, seed=1), tokenizer)
    save_model(folder, tiny("modern", {"masked": 61}, seed=2), tokenizer)
    assert (folder / "results.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(load_model(folder)[0].decoder[0], tiny("modern", {"masked": 61}, seed=2).decoder[0])


def test_a_folder_that_cannot_be_written_keeps_what_it_had(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    first = tiny("modern", {"masked": 61}, seed=1)
    save_model(tmp_path / "model", first, tokenizer)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pluri.checkpoints.checkpoint.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_model(tmp_path / "model", tiny("modern", {"masked": 61}, seed=2), tokenizer)
    assert torch.equal(load_model(tmp_path / "model")[0].decoder[0], first.decoder[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_heads_without_a_published_class_are_refused(tmp_path: Path, tokenizer: Tokenizer):
    with pytest.raises(UsageError, match="no published bert has the heads masked, tag"):
        save_model(tmp_path / "model", tiny("bert", {"masked": 61, "tag": 3}), tokenizer)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("family", ["bert", "esm", "eurobert", "modern"])
def test_a_converted_folder_has_the_same_tensors_and_dtype(
    family: str, dtype: torch.dtype, tmp_path: Path, tokenizer: Tokenizer
):
    save_model(tmp_path / "a", tiny(family, {"classify": 1}), tokenizer, problem="regression", dtype=dtype)
    before = load_file(tmp_path / "a" / "model.safetensors")
    converted = convert_model(tmp_path / "a", tmp_path / "b")
    after = load_file(tmp_path / "b" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].dtype == dtype and torch.equal(after[name], before[name]) for name in before)
    assert (tmp_path / "b" / "config.json").read_text() == (tmp_path / "a" / "config.json").read_text()
    assert converted.dtype == str(dtype).removeprefix("torch.")
    alone = "opens with Pluri alone: no architecture in transformers has token_types = 2, context = 1"
    assert (alone in str(converted)) == (family == "modern")


def test_what_nobody_asks_for_is_left_out_by_name(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path / "a", tiny("electra", {}), tokenizer)
    head = {f"discriminator_predictions.{layer}.bias": torch.ones(1) for layer in ("dense", "dense_prediction")}
    plain = {f"electra.{name}": t for name, t in load_file(tmp_path / "a" / "model.safetensors").items()}
    save_file(
        plain | head | {"electra.embeddings.position_ids": torch.arange(16)}, tmp_path / "a" / "model.safetensors"
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"architectures": ["ElectraForPreTraining"]}))
    converted = convert_model(tmp_path / "a", tmp_path / "b")
    assert converted.left_out == [*head, "electra.embeddings.position_ids"]
    assert converted.architecture == "ElectraModel"
    assert len(load_file(tmp_path / "b" / "model.safetensors")) == len(plain)


def test_frequencies_that_each_layer_repeats_are_taken(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("esm", {"masked": 61}), tokenizer)
    rounded = load_file(tmp_path / "model.safetensors")["esm.rotary_embeddings.inv_freq"].half().float()
    old = {f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq": rounded.clone() for i in range(2)}
    altered(tmp_path, old, remove=("esm.rotary_embeddings.inv_freq",))
    model, _ = load_model(tmp_path)
    assert torch.equal(model.state_dict()["body.rotary.inv_freq"], rounded)
    assert model.to(torch.bfloat16).state_dict()["body.rotary.inv_freq"].dtype == torch.float32
    altered(tmp_path, {}, remove=tuple(old))
    assert load_model(tmp_path)[0].state_dict()["body.rotary.inv_freq"][0] == 1


def test_weights_in_several_files(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("bert", {"masked": 61}), tokenizer)
    expected = load_model(tmp_path)[0].state_dict()
    tensors = sorted(load_file(tmp_path / "model.safetensors").items())
    (tmp_path / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": tensors[:9], "model-00002-of-00002.safetensors": tensors[9:]}
    for name, part in parts.items():
        save_file(dict(part), tmp_path / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key, _ in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    state = load_model(tmp_path)[0].state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: no such file"):
        load_model(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path, tokenizer: Tokenizer):
    config = preset("bert", "tiny", vocab_size=60, max_length=16, **SIZES)
    save_model(tmp_path, Model(config, {"masked": 60}), tokenizer)
    with pytest.raises(CheckpointError, match="the tokenizer has 61 tokens, the model only 60"):
        load_model(tmp_path)
    padded = preset("bert", "tiny", vocab_size=64, max_length=16, **SIZES)
    save_model(tmp_path, Model(padded, {"masked": 64}), tokenizer)
    assert load_model(tmp_path)[0].config.vocab_size == 64


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("esm", {"is_folding_model": True}, "is_folding_model = True is not supported"),
        ("esm", {"position_embedding_type": "relative_key"}, "only 'absolute' or 'rotary'"),
        ("esm", {"token_dropout": True, "mask_token_id": None}, "token_dropout needs mask_token_id"),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types is not supported"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type = 'yarn'"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ("modernbert", {"norm_bias": True}, "norm_bias = True is not supported"),
        ("distilbert", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("eurobert", {"num_key_value_heads": 1}, "num_key_value_heads = 1 is not supported, only 2"),
        ("eurobert", {"head_dim": 32}, "head_dim = 32 is not supported, only 16"),
        ("eurobert", {"rope_parameters": {"rope_type": "llama3"}}, "rope_type = 'llama3'"),
        ("eurobert", {"mlp_bias": True}, "mlp_bias = True is not supported"),
        ("eurobert", {"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ("electra", {"embedding_size": 0}, "embedding_size"),
    ],
)
def test_variants_of_other_families_are_refused(
    family: str, change: dict, message: str, tmp_path: Path, tokenizer: Tokenizer
):
    save_model(tmp_path, tiny(family, {"classify": 2}), tokenizer)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_a_folder_written_before_a_field_was_added_opens(tmp_path: Path, tokenizer: Tokenizer):
    save_model(tmp_path, tiny("modern", {"masked": 61}), tokenizer)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    later = ("embedding_norm", "token_dropout", "window", "global_every", "local_rotary_base", "tied")
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in later}))
    assert load_model(tmp_path)[0].config == tiny("modern", {}).config
