"""Folders of Llama and of EuroBERT, whose code grew out of Llama's: keys of config.json and names of tensors."""

from typing import Any

from pluri.errors import UsageError
from pluri.models.config import ModelConfig

_BODY: dict[str, tuple[str, ...]] = {
    "body.embeddings.tokens": ("model.embed_tokens",),
    "body.blocks.*.attention.qkv": (
        "model.layers.*.self_attn.q_proj",
        "model.layers.*.self_attn.k_proj",
        "model.layers.*.self_attn.v_proj",
    ),
    "body.blocks.*.attention.out": ("model.layers.*.self_attn.o_proj",),
    "body.blocks.*.attention_norm": ("model.layers.*.input_layernorm",),
    "body.blocks.*.ffn.up": ("model.layers.*.mlp.gate_proj", "model.layers.*.mlp.up_proj"),
    "body.blocks.*.ffn.down": ("model.layers.*.mlp.down_proj",),
    "body.blocks.*.ffn_norm": ("model.layers.*.post_attention_layernorm",),
    "body.norm": ("model.norm",),
}
LLAMA = _BODY | {"heads.next": ("lm_head",)}
EUROBERT = _BODY | {
    "heads.masked": ("lm_head",),
    "heads.classify.pooler.dense": ("dense",),
    "heads.classify.out": ("classifier",),
    "heads.tag.out": ("classifier",),
    # transformers has no class with these heads: it opens the rest without them
    "heads.pair.pooler.dense": ("heads.pair.pooler.dense",),
    "heads.pair.out": ("heads.pair.out",),
    "heads.answer.out": ("heads.answer.out",),
}
KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "activation": "hidden_act",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
    "norm_eps": "rms_norm_eps",
    "pad_id": "pad_token_id",
    "tied": "tie_word_embeddings",
    # nothing else is dropped there, and these keys are left alone
    "dropout": "hidden_dropout",
    "classifier_dropout": "classifier_dropout",
}
_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "hidden_dropout": 0.0,
    "classifier_dropout": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "eurobert": _COMMON
    | {"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "pad_token_id": 128_001, "classifier_pooling": "late"},
    "llama": _COMMON | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": None},
}
ONLY = {"attention_bias": False, "mlp_bias": False, "rope_scaling": None}
_POOLING = {"bos": "first", "mean": "mean", "late": "late"}


def special_fields(family: str, values: dict[str, Any]) -> dict[str, Any]:
    """Fields that are no plain key of config.json. UsageError: a variant that there is none of here."""
    heads, width = values["num_attention_heads"], values["hidden_size"]
    for key, only in (("num_key_value_heads", heads), ("head_dim", width // heads)):
        if values.get(key) not in (None, only):
            raise UsageError(f"{key} = {values[key]!r} is not supported, only {only}")
    rope = values.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise UsageError(f"rope_type = {rope['rope_type']!r} is not supported, only 'default'")
    base = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
    fields = {"rotary_base": base, "pad_id": values["pad_token_id"] or 0}
    if family == "llama":
        return fields
    if values["classifier_pooling"] not in _POOLING:
        raise UsageError(f"classifier_pooling = {values['classifier_pooling']!r} is not supported")
    return fields | {"pooling": _POOLING[values["classifier_pooling"]]}


def special_keys(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json that are no plain field: the inverse of `special_fields`."""
    values = {
        "num_key_value_heads": config.num_heads,
        "head_dim": config.head_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        **ONLY,
    }
    if config.family == "eurobert":
        values["classifier_pooling"] = next(key for key, pooling in _POOLING.items() if pooling == config.pooling)
    return values
