"""What the keys of each published family's config.json are called, and what they may leave out."""

from typing import Any

from pluri.errors import UsageError
from pluri.models.config import ModelConfig

_BERT = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "classifier_dropout": "classifier_dropout",
    "token_types": "type_vocab_size",
    "initializer_range": "initializer_range",
    "norm_eps": "layer_norm_eps",
    "pad_id": "pad_token_id",
}
# Field here: key there.
KEYS: dict[str, dict[str, str]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "albert": _BERT | {"classifier_dropout": "classifier_dropout_prob", "embedding_size": "embedding_size"},
    "electra": _BERT | {"embedding_size": "embedding_size"},
    "distilbert": {
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "activation": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "initializer_range": "initializer_range",
        "pad_id": "pad_token_id",
    },
    "esm": {ours: theirs for ours, theirs in _BERT.items() if ours not in ("activation", "token_types")}
    | {"rotary_base": "rope_theta", "embedding_norm": "emb_layer_norm_before"},
    "modernbert": {
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "activation": "hidden_activation",
        "dropout": "mlp_dropout",
        "attention_dropout": "attention_dropout",
        "classifier_dropout": "classifier_dropout",
        "initializer_range": "initializer_range",
        "norm_eps": "norm_eps",
        "pad_id": "pad_token_id",
        "window": "local_attention",
        "global_every": "global_attn_every_n_layers",
        "rotary_base": "global_rope_theta",
        "local_rotary_base": "local_rope_theta",
    },
    "gpt2": {
        "vocab_size": "vocab_size",
        "hidden_size": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "intermediate_size": "n_inner",
        "activation": "activation_function",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "initializer_range": "initializer_range",
        "norm_eps": "layer_norm_epsilon",
        "pad_id": "pad_token_id",
    },
}
LENGTH = dict.fromkeys(KEYS, "max_position_embeddings") | {"gpt2": "n_positions"}  # how many positions there are
_BERT_DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
# What a published config.json may leave out, being the default of its family.
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BERT_DEFAULTS,
    "roberta": _BERT_DEFAULTS | {"pad_token_id": 1},
    "xlm-roberta": _BERT_DEFAULTS | {"pad_token_id": 1},
    "camembert": _BERT_DEFAULTS | {"pad_token_id": 1},
    "albert": _BERT_DEFAULTS
    | {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    | {"classifier_dropout_prob": 0.1, "embedding_size": 128},
    "electra": _BERT_DEFAULTS | {"embedding_size": 128},
    "distilbert": {
        "max_position_embeddings": 512,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "initializer_range": 0.02,
        "pad_token_id": 0,
    },
    "esm": _BERT_DEFAULTS
    | {"max_position_embeddings": 1026, "pad_token_id": 1, "mask_token_id": None, "token_dropout": False}
    | {"position_embedding_type": "absolute", "rope_theta": 10_000.0, "emb_layer_norm_before": None},
    "modernbert": {
        "max_position_embeddings": 8192,
        "hidden_activation": "gelu",
        "mlp_dropout": 0.0,
        "attention_dropout": 0.0,
        "classifier_dropout": 0.0,
        "classifier_pooling": "cls",
        "initializer_range": 0.02,
        "norm_eps": 1e-5,
        "pad_token_id": 50283,
        "local_attention": 128,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    },
    "gpt2": {
        "n_positions": 1024,
        "n_inner": None,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "pad_token_id": None,
    },
}
_ENCODER: dict[str, Any] = {"tie_word_embeddings": True, "is_decoder": False, "add_cross_attention": False}
_LEARNED = _ENCODER | {"position_embedding_type": "absolute"}
# Variants that are refused rather than read as something else: key there, the one value that fits.
ONLY: dict[str, dict[str, Any]] = dict.fromkeys(KEYS, _LEARNED) | {
    "albert": _LEARNED | {"num_hidden_groups": 1, "inner_group_num": 1},
    "distilbert": _ENCODER,
    "esm": _ENCODER | {"is_folding_model": False},
    "modernbert": _ENCODER
    | {"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False, "decoder_bias": True}
    | {"classifier_activation": "gelu", "rope_scaling": None},
    "gpt2": {
        "tie_word_embeddings": True,
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
}
_REQUIRED_DROPOUT = {"albert": "classifier_dropout_prob", "distilbert": "seq_classif_dropout"}  # null is refused there
_REQUIRED_DROPOUT |= {"modernbert": "classifier_dropout"}
_POSITIONS = {"absolute": "learned", "rotary": "rotary"}
_POOLING = {"cls": "first", "mean": "mean"}


def special_fields(family: str, values: dict[str, Any]) -> dict[str, Any]:
    """Fields that are no plain key of a published config.json. UsageError: a variant that there is none of here."""
    if family == "esm":
        if values["token_dropout"] and values["mask_token_id"] is None:
            raise UsageError("token_dropout needs mask_token_id")
        return {
            "positions": _one_of(_POSITIONS, "position_embedding_type", values),
            "embedding_norm": bool(values["emb_layer_norm_before"]),
            "token_dropout": values["mask_token_id"] if values["token_dropout"] else None,
        }
    if family == "modernbert":
        return {"pooling": _one_of(_POOLING, "classifier_pooling", values)} | _alternation(values)
    if family == "gpt2":
        return {"intermediate_size": values["n_inner"] or 4 * values["n_embd"], "pad_id": values["pad_token_id"] or 0}
    return {}


def special_keys(config: ModelConfig) -> dict[str, Any]:
    """The keys of a published config.json that are no plain field: the inverse of `special_fields`."""
    values: dict[str, Any] = {}
    if config.family in _REQUIRED_DROPOUT:
        values[_REQUIRED_DROPOUT[config.family]] = config.head_dropout
    if config.family in ("albert", "electra"):
        values["embedding_size"] = config.embedding_width
    if config.family == "albert":
        values |= {"num_hidden_groups": 1, "inner_group_num": 1}
    if config.family == "esm":
        values["position_embedding_type"] = "rotary" if config.positions == "rotary" else "absolute"
        values |= {"token_dropout": config.token_dropout is not None, "mask_token_id": config.token_dropout}
    if config.family == "modernbert":
        kinds = ["sliding_attention" if i % config.global_every else "full_attention" for i in range(config.num_layers)]
        bases = {"full_attention": config.rotary_base, "sliding_attention": config.local_rotary_base}
        values |= {"layer_types": kinds, "embedding_dropout": config.dropout}
        values["rope_parameters"] = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()}
        values["classifier_pooling"] = "mean" if config.pooling == "mean" else "cls"
    if config.family == "gpt2":
        values["embd_pdrop"] = config.dropout
    return values


def _one_of(meanings: dict[str, str], key: str, values: dict[str, Any]) -> str:
    if values[key] not in meanings:
        raise UsageError(f"{key} = {values[key]!r} is not supported, only {' or '.join(map(repr, meanings))}")
    return meanings[values[key]]


def _alternation(values: dict[str, Any]) -> dict[str, Any]:
    """Which layers see all positions, and the bases of their rotary positions, as newer folders write them too."""
    kinds = values.get("layer_types")
    every = values.get("global_attn_every_n_layers", 3)
    if kinds is not None:
        if "global_attn_every_n_layers" not in values:
            every = next((i for i, kind in enumerate(kinds) if i and kind == "full_attention"), len(kinds))
        if kinds != ["sliding_attention" if i % every else "full_attention" for i in range(len(kinds))]:
            raise UsageError(
                "layer_types is not supported where global layers do not come at equal steps from the first"
            )
    fields: dict[str, Any] = {"global_every": every}
    ropes = values.get("rope_parameters") or {}
    for kind, field in (("full_attention", "rotary_base"), ("sliding_attention", "local_rotary_base")):
        rope = ropes.get(kind) or {}
        if rope.get("rope_type", "default") != "default":
            raise UsageError(f"rope_type = {rope['rope_type']!r} is not supported, only 'default'")
        fields[field] = rope.get("rope_theta", values[KEYS["modernbert"][field]])
    return fields
