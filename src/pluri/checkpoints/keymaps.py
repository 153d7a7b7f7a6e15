"""One table a family: what each module of a model is called in a published folder. Read both ways.

A row is a module here and the modules there: where there are several, their rows lie one after the other here.
`*` is the number of the layer. `weight` and `bias` keep their names.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pluri.models.config import ModelConfig

_BERT_BODY: dict[str, tuple[str, ...]] = {
    "body.embeddings.tokens": ("bert.embeddings.word_embeddings",),
    "body.embeddings.types": ("bert.embeddings.token_type_embeddings",),
    "body.embeddings.positions": ("bert.embeddings.position_embeddings",),
    "body.embeddings.norm": ("bert.embeddings.LayerNorm",),
    "body.blocks.*.attention.qkv": (
        "bert.encoder.layer.*.attention.self.query",
        "bert.encoder.layer.*.attention.self.key",
        "bert.encoder.layer.*.attention.self.value",
    ),
    "body.blocks.*.attention.out": ("bert.encoder.layer.*.attention.output.dense",),
    "body.blocks.*.attention_norm": ("bert.encoder.layer.*.attention.output.LayerNorm",),
    "body.blocks.*.ffn.up": ("bert.encoder.layer.*.intermediate.dense",),
    "body.blocks.*.ffn.down": ("bert.encoder.layer.*.output.dense",),
    "body.blocks.*.ffn_norm": ("bert.encoder.layer.*.output.LayerNorm",),
    "heads.pool.dense": ("bert.pooler.dense",),
}

_ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.*"

TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "bert": _BERT_BODY
    | {
        "heads.masked": ("cls.predictions",),
        "heads.masked.dense": ("cls.predictions.transform.dense",),
        "heads.masked.norm": ("cls.predictions.transform.LayerNorm",),
        "heads.pair.pooler.dense": ("bert.pooler.dense",),
        "heads.pair.out": ("cls.seq_relationship",),
        "heads.classify.pooler.dense": ("bert.pooler.dense",),
        "heads.classify.out": ("classifier",),
        "heads.tag.out": ("classifier",),
        "heads.answer.out": ("qa_outputs",),
    },
    "roberta": {ours: tuple(t.replace("bert.", "roberta.", 1) for t in theirs) for ours, theirs in _BERT_BODY.items()}
    | {
        "heads.masked": ("lm_head",),
        "heads.masked.dense": ("lm_head.dense",),
        "heads.masked.norm": ("lm_head.layer_norm",),
        "heads.classify.pooler.dense": ("classifier.dense",),
        "heads.classify.out": ("classifier.out_proj",),
        "heads.tag.out": ("classifier",),
        "heads.answer.out": ("qa_outputs",),
    },
    "albert": {
        "body.embeddings.tokens": ("albert.embeddings.word_embeddings",),
        "body.embeddings.types": ("albert.embeddings.token_type_embeddings",),
        "body.embeddings.positions": ("albert.embeddings.position_embeddings",),
        "body.embeddings.norm": ("albert.embeddings.LayerNorm",),
        "body.embeddings.projection": ("albert.encoder.embedding_hidden_mapping_in",),
        "body.blocks.*.attention.qkv": (
            f"{_ALBERT_LAYER}.attention.query",
            f"{_ALBERT_LAYER}.attention.key",
            f"{_ALBERT_LAYER}.attention.value",
        ),
        "body.blocks.*.attention.out": (f"{_ALBERT_LAYER}.attention.dense",),
        "body.blocks.*.attention_norm": (f"{_ALBERT_LAYER}.attention.LayerNorm",),
        "body.blocks.*.ffn.up": (f"{_ALBERT_LAYER}.ffn",),
        "body.blocks.*.ffn.down": (f"{_ALBERT_LAYER}.ffn_output",),
        "body.blocks.*.ffn_norm": (f"{_ALBERT_LAYER}.full_layer_layer_norm",),
        "heads.pool.dense": ("albert.pooler",),
        "heads.masked": ("predictions",),
        "heads.masked.dense": ("predictions.dense",),
        "heads.masked.norm": ("predictions.LayerNorm",),
        "heads.pair.pooler.dense": ("albert.pooler",),
        "heads.pair.out": ("sop_classifier.classifier",),
        "heads.classify.pooler.dense": ("albert.pooler",),
        "heads.classify.out": ("classifier",),
        "heads.tag.out": ("classifier",),
        "heads.answer.out": ("qa_outputs",),
    },
}


def published_names(config: ModelConfig, name: str) -> tuple[str, ...]:
    """The names that one parameter of a model has in a folder. `modern` has no published folder: its own name."""
    if config.family not in TABLES:
        return (name,)
    module, _, kind = name.rpartition(".")
    parts = module.split(".")
    layer = parts[2] if module.startswith("body.blocks.") else ""
    pattern = ".".join("*" if i == 2 and layer else part for i, part in enumerate(parts))
    return tuple(f"{theirs.replace('*', layer)}.{kind}" for theirs in TABLES[config.family][pattern])


def to_published(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors under their published names: what is fused here is cut."""
    published: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = published_names(config, name)
        published |= zip(names, tensor.chunk(len(names)), strict=True)
    return published


def from_published(config: ModelConfig, names: Iterable[str], published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters `names` of a model out of published tensors, which must all be there: the inverse of the above."""
    return {name: torch.cat([published[theirs] for theirs in published_names(config, name)]) for name in names}


def head_names(config: ModelConfig) -> set[str]:
    """Every published name that some head of this family has: a folder may hold heads that nobody asks for."""
    rows = TABLES.get(config.family, {}).items()
    modules = {module for ours, theirs in rows if ours.startswith("heads.") for module in theirs}
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


def canonical(config: ModelConfig, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under one spelling.

    Old folders say gamma and beta for weight and bias of a norm, and carry the buffer `position_ids`; base models leave
    out the family's prefix; some repeat the tied output layer. A copy that differs from what it is tied to stays, under
    its own name.
    """
    if config.family not in TABLES:
        return dict(published)
    prefix = f"{config.family}."
    bare = not any(name.startswith(prefix) for name in published)
    tensors: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if name.endswith("position_ids"):
            continue
        if bare and name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = prefix + name
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            name = name.replace(old, new)
        tensors[name] = tensor
    (head,), (embedding,) = (TABLES[config.family][module] for module in ("heads.masked", "body.embeddings.tokens"))
    for copy, tied in ((f"{head}.decoder.weight", f"{embedding}.weight"), (f"{head}.decoder.bias", f"{head}.bias")):
        if copy in tensors and torch.equal(tensors[copy], tensors.setdefault(tied, tensors[copy])):
            del tensors[copy]
    return tensors


def without_prefix(config: ModelConfig, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a base model's folder spells it: no family prefix."""
    return {name.removeprefix(f"{config.family}."): tensor for name, tensor in published.items()}
