"""One table a family: what each module of a model is called in a published folder. Read both ways.

A row is a module here and the modules there: where there are several, their rows lie one after the other here.
`*` is the number of the layer. `weight`, `bias` and `inv_freq` keep their names.
"""

import itertools
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pluri.models.config import ModelConfig

Table = dict[str, tuple[str, ...]]


def _renamed(table: Table, old: str, new: str) -> Table:
    """The table of a family that differs in its prefix."""
    return {ours: tuple(name.replace(old, new, 1) for name in theirs) for ours, theirs in table.items()}


_BERT_BODY: Table = {
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
}
_BERT_POOL: Table = {"heads.pool.dense": ("bert.pooler.dense",)}
_CLASSIFIER: Table = {
    "heads.classify.pooler.dense": ("classifier.dense",),
    "heads.classify.out": ("classifier.out_proj",),
    "heads.tag.out": ("classifier",),
}
_ANSWER: Table = {"heads.answer.out": ("qa_outputs",)}
_ROBERTA_HEADS: Table = _CLASSIFIER | {
    "heads.masked": ("lm_head",),
    "heads.masked.dense": ("lm_head.dense",),
    "heads.masked.norm": ("lm_head.layer_norm",),
}
_ROBERTA = _renamed(_BERT_BODY | _BERT_POOL, "bert.", "roberta.") | _ROBERTA_HEADS | _ANSWER

_ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.*"
_DISTILBERT_LAYER = "distilbert.transformer.layer.*"
_ESM_LAYER = "esm.encoder.layer.*"

TABLES: dict[str, Table] = {
    "bert": _BERT_BODY
    | _BERT_POOL
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
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
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
    "distilbert": {
        "body.embeddings.tokens": ("distilbert.embeddings.word_embeddings",),
        "body.embeddings.positions": ("distilbert.embeddings.position_embeddings",),
        "body.embeddings.norm": ("distilbert.embeddings.LayerNorm",),
        "body.blocks.*.attention.qkv": (
            f"{_DISTILBERT_LAYER}.attention.q_lin",
            f"{_DISTILBERT_LAYER}.attention.k_lin",
            f"{_DISTILBERT_LAYER}.attention.v_lin",
        ),
        "body.blocks.*.attention.out": (f"{_DISTILBERT_LAYER}.attention.out_lin",),
        "body.blocks.*.attention_norm": (f"{_DISTILBERT_LAYER}.sa_layer_norm",),
        "body.blocks.*.ffn.up": (f"{_DISTILBERT_LAYER}.ffn.lin1",),
        "body.blocks.*.ffn.down": (f"{_DISTILBERT_LAYER}.ffn.lin2",),
        "body.blocks.*.ffn_norm": (f"{_DISTILBERT_LAYER}.output_layer_norm",),
        "heads.masked": ("vocab_projector",),
        "heads.masked.dense": ("vocab_transform",),
        "heads.masked.norm": ("vocab_layer_norm",),
        "heads.classify.pooler.dense": ("pre_classifier",),
        "heads.classify.out": ("classifier",),
        "heads.tag.out": ("classifier",),
        "heads.answer.out": ("qa_outputs",),
    },
    "electra": _renamed(_BERT_BODY, "bert.", "electra.")
    | _CLASSIFIER
    | _ANSWER
    | {
        "body.embeddings.projection": ("electra.embeddings_project",),
        "heads.masked": ("generator_lm_head",),
        "heads.masked.dense": ("generator_predictions.dense",),
        "heads.masked.norm": ("generator_predictions.LayerNorm",),
    },
    "esm": _ROBERTA_HEADS
    | {
        "body.embeddings.tokens": ("esm.embeddings.word_embeddings",),
        "body.embeddings.positions": ("esm.embeddings.position_embeddings",),
        "body.embeddings.norm": ("esm.embeddings.layer_norm",),
        "body.rotary": ("esm.rotary_embeddings",),
        "body.blocks.*.attention.qkv": (
            f"{_ESM_LAYER}.attention.self.query",
            f"{_ESM_LAYER}.attention.self.key",
            f"{_ESM_LAYER}.attention.self.value",
        ),
        "body.blocks.*.attention.out": (f"{_ESM_LAYER}.attention.output.dense",),
        "body.blocks.*.attention_norm": (f"{_ESM_LAYER}.attention.LayerNorm",),
        "body.blocks.*.ffn.up": (f"{_ESM_LAYER}.intermediate.dense",),
        "body.blocks.*.ffn.down": (f"{_ESM_LAYER}.output.dense",),
        "body.blocks.*.ffn_norm": (f"{_ESM_LAYER}.LayerNorm",),
        "body.norm": ("esm.encoder.emb_layer_norm_after",),
        "heads.pool.dense": ("esm.pooler.dense",),
    },
    "modernbert": {
        "body.embeddings.tokens": ("model.embeddings.tok_embeddings",),
        "body.embeddings.norm": ("model.embeddings.norm",),
        "body.blocks.*.attention.qkv": ("model.layers.*.attn.Wqkv",),
        "body.blocks.*.attention.out": ("model.layers.*.attn.Wo",),
        "body.blocks.*.attention_norm": ("model.layers.*.attn_norm",),
        "body.blocks.*.ffn.up": ("model.layers.*.mlp.Wi",),
        "body.blocks.*.ffn.down": ("model.layers.*.mlp.Wo",),
        "body.blocks.*.ffn_norm": ("model.layers.*.mlp_norm",),
        "body.norm": ("model.final_norm",),
        "heads.masked": ("decoder",),
        "heads.masked.dense": ("head.dense",),
        "heads.masked.norm": ("head.norm",),
        "heads.classify.pooler.dense": ("head.dense",),
        "heads.classify.pooler.norm": ("head.norm",),
        "heads.classify.out": ("classifier",),
        "heads.tag.pooler.dense": ("head.dense",),
        "heads.tag.pooler.norm": ("head.norm",),
        "heads.tag.out": ("classifier",),
        "heads.answer.pooler.dense": ("head.dense",),
        "heads.answer.pooler.norm": ("head.norm",),
        "heads.answer.out": ("classifier",),
    },
    "gpt2": {
        "body.embeddings.tokens": ("transformer.wte",),
        "body.embeddings.positions": ("transformer.wpe",),
        "body.blocks.*.attention.qkv": ("transformer.h.*.attn.c_attn",),
        "body.blocks.*.attention.out": ("transformer.h.*.attn.c_proj",),
        "body.blocks.*.attention_norm": ("transformer.h.*.ln_1",),
        "body.blocks.*.ffn.up": ("transformer.h.*.mlp.c_fc",),
        "body.blocks.*.ffn.down": ("transformer.h.*.mlp.c_proj",),
        "body.blocks.*.ffn_norm": ("transformer.h.*.ln_2",),
        "body.norm": ("transformer.ln_f",),
        "heads.next": ("lm_head",),
    },
}
# Matrices that GPT-2's folders hold with inputs as rows and outputs as columns.
_TRANSPOSED = (".qkv.weight", ".out.weight", ".up.weight", ".down.weight")
# Tensors that published folders hold and no model here has.
_UNUSED: dict[str, tuple[str, ...]] = {
    family: (TABLES[family]["body.embeddings.tokens"][0].rpartition(".")[0] + ".position_ids",) for family in TABLES
}
_UNUSED["electra"] += tuple(
    f"discriminator_predictions.{layer}.{kind}"
    for layer in ("dense", "dense_prediction")
    for kind in ("weight", "bias")
)
_UNUSED["esm"] += tuple(f"esm.contact_head.regression.{kind}" for kind in ("weight", "bias"))
_UNUSED["esm"] += ("esm.embeddings.position_embeddings.weight",)  # also where positions are rotary

# Older folders: each layer with its own copy of the frequencies (transformers 5 writes a literal * for its number), and
# norms with TensorFlow's names.
_SPELLINGS = (
    (re.compile(r"(?<=^esm\.)encoder\.layer\.(?:\d+|\*)\.attention\.self\.(?=rotary_embeddings\.inv_freq$)"), ""),
    (re.compile(r"(?<=LayerNorm\.)gamma$"), "weight"),
    (re.compile(r"(?<=LayerNorm\.)beta$"), "bias"),
)


def prefix_of(config: ModelConfig) -> str:
    """What the published names of a body begin with; a base model's folder leaves it out. "" for `modern`."""
    if config.family not in TABLES:
        return ""
    return TABLES[config.family]["body.embeddings.tokens"][0].partition(".")[0] + "."


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
        if _turned(config, name):
            tensor = _reordered(config, tensor, config.head_size // 2, 2)
        parts = tensor.chunk(len(names))
        published |= zip(names, (_laid(config, name, part) for part in parts), strict=True)
    return published


def from_published(config: ModelConfig, names: Iterable[str], published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters `names` of a model out of published tensors, which must all be there: the inverse of the above."""
    state = {
        name: torch.cat([_laid(config, name, published[theirs]) for theirs in published_names(config, name)])
        for name in names
    }
    return {
        name: _reordered(config, tensor, 2, config.head_size // 2) if _turned(config, name) else tensor
        for name, tensor in state.items()
    }


def _laid(config: ModelConfig, name: str, part: Tensor) -> Tensor:
    """A part of a parameter with rows and columns as a published folder has them; the same on the way back."""
    transposed = config.family == "gpt2" and name.startswith("body.blocks.") and name.endswith(_TRANSPOSED)
    return part.t() if transposed else part


def _turned(config: ModelConfig, name: str) -> bool:
    """Whether rotary positions turn what a parameter makes, in the order of a published family."""
    return config.family in TABLES and config.positions == "rotary" and ".attention.qkv." in name


def _reordered(config: ModelConfig, qkv: Tensor, *order: int) -> Tensor:
    """Rows of queries and keys in the other order: pairs of channels lie side by side here, in two halves there.

    qkv: (3 * H * C, ...). order: (C / 2, 2) of what is ordered as here, (2, C / 2) as there.
    """
    heads = qkv.unflatten(0, (3, config.num_heads, *order))
    return torch.cat((heads[:2].transpose(2, 3).flatten(0, 3), heads[2:].flatten(0, 3)))


def unused_names(config: ModelConfig) -> set[str]:
    """Every published name that a folder may hold although nobody asks for it: some head's, or a buffer's."""
    table = TABLES.get(config.family, {})
    heads = {(ours, module) for ours, theirs in table.items() if ours.startswith("heads.") for module in theirs}
    # their weight is the token embedding; another one would be an untied layer
    kinds = {"heads.masked": ("bias",), "heads.next": ()}
    names = {f"{module}.{kind}" for ours, module in heads for kind in kinds.get(ours, ("weight", "bias"))}
    if config.family == "gpt2":  # older folders keep the causal mask, by layer
        masks = itertools.product(range(config.num_layers), ("bias", "masked_bias"))
        names |= {f"transformer.h.{layer}.attn.{kind}" for layer, kind in masks}
    return names.union(_UNUSED.get(config.family, ()))


def canonical(config: ModelConfig, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under one spelling.

    Base models leave out the family's prefix, old folders have names of their own, and some repeat the tied output
    layer. A copy that differs from what it is tied to stays, under its own name.
    """
    if config.family not in TABLES:
        return dict(published)
    prefix, table = prefix_of(config), TABLES[config.family]
    bare = not any(name.startswith(prefix) for name in published)
    known = [*(module for theirs in table.values() for module in theirs), *_UNUSED[config.family]]
    roots = {name.removeprefix(prefix).partition(".")[0] for name in known if name.startswith(prefix)}
    tensors: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if bare and name.partition(".")[0] in roots:
            name = prefix + name
        for pattern, spelling in _SPELLINGS:
            name = pattern.sub(spelling, name)
        tensors[name] = tensor
    (head,) = table["heads.next" if "heads.next" in table else "heads.masked"]
    (embedding,) = table["body.embeddings.tokens"]
    weight, bias = f"{embedding}.weight", f"{head}.bias"
    for copy, tied in ((f"{head}.decoder.weight", weight), (f"{head}.weight", weight), (f"{head}.decoder.bias", bias)):
        if copy in tensors and _same(tensors[copy], tensors.setdefault(tied, tensors[copy])):
            del tensors[copy]
    return tensors


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def without_prefix(config: ModelConfig, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a base model's folder spells it: no family prefix."""
    return {name.removeprefix(prefix_of(config)): tensor for name, tensor in published.items()}
