"""The shape of a model: one frozen configuration for every family, and presets in the published sizes."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from pluri.config import Config
from pluri.errors import UsageError

Family = Literal[
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "albert",
    "distilbert",
    "electra",
    "esm",
    "modernbert",
    "gpt2",
    "modern",
]
Size = Literal["tiny", "mini", "small", "medium", "base"]
Activation = Literal["gelu", "gelu_new", "relu", "silu", "relu2"]

# (layers, width): Turc et al., "Well-read students learn better" (2019), table 1. Heads are always 64 wide.
_SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
_HEAD_SIZE = 64

# RoBERTa, and those whose code grew out of it: their heads are alike, and positions count from pad_id + 1.
ROBERTA_LIKE = ("roberta", "xlm-roberta", "camembert", "esm")

_COMMON: dict[str, Any] = {"norm": "layer", "qk_norm": False, "context": 0, "shared_layers": False, "causal": False}
_POST_NORM: dict[str, Any] = _COMMON | {
    "pre_norm": False,
    "positions": "learned",
    "gated": False,
    "biases": True,
    "pooling": "first",
    "embedding_norm": True,
    "token_dropout": None,
    "window": None,
}
# What makes a family: these fields cannot be overridden, or its folders would not open elsewhere.
FIXED: dict[str, dict[str, Any]] = {
    "bert": _POST_NORM,
    "roberta": _POST_NORM,
    "xlm-roberta": _POST_NORM,
    "camembert": _POST_NORM,
    "albert": _POST_NORM | {"shared_layers": True},
    "distilbert": _POST_NORM | {"token_types": 0, "norm_eps": 1e-12},
    "electra": _POST_NORM,
    "esm": _COMMON
    | {"pre_norm": True, "gated": False, "activation": "gelu", "biases": True, "pooling": "first"}
    | {"token_types": 0, "window": None},
    "modernbert": _COMMON
    | {"pre_norm": True, "positions": "rotary", "gated": True, "biases": False, "token_types": 0}
    | {"embedding_norm": True, "token_dropout": None},
    "gpt2": _COMMON
    | {"causal": True, "pre_norm": True, "positions": "learned", "gated": False, "biases": True, "token_types": 0}
    | {"embedding_norm": False, "token_dropout": None, "window": None},
    "modern": {},
}
_BERT_DROPOUT = {"dropout": 0.1, "attention_dropout": 0.1}
_ROBERTA = _BERT_DROPOUT | {"token_types": 1, "norm_eps": 1e-5}
# What a preset starts from, besides. Devlin et al. (2019); Liu et al. (2019), and after them Conneau et al. (2020) and
# Martin et al. (2020); Lan et al. (2020), version 2; Sanh et al. (2019); Clark et al. (2020); Lin et al. (2023), ESM-2;
# Warner et al. (2024), ModernBERT; Radford et al. (2019), GPT-2.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BERT_DROPOUT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "albert": {"activation": "gelu_new", "classifier_dropout": 0.1},
    "distilbert": _BERT_DROPOUT | {"classifier_dropout": 0.2},
    "electra": _BERT_DROPOUT,
    "esm": {"positions": "rotary", "embedding_norm": False, "norm_eps": 1e-5},
    "modernbert": {"norm_eps": 1e-5, "window": 128, "rotary_base": 160_000.0, "classifier_dropout": 0.0},
    "gpt2": _BERT_DROPOUT | {"activation": "gelu_new", "norm_eps": 1e-5},
    "modern": {
        "norm": "rms",
        "pre_norm": True,
        "positions": "rotary",
        "qk_norm": True,
        "gated": True,
        "activation": "silu",
        "biases": False,
        "pooling": "mean",
        "context": 2,
        "norm_eps": 1e-6,
    },
}


class ModelConfig(Config):
    """The shape of one Transformer, an encoder or a decoder. Token embedding and output layer are always tied."""

    family: Family
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    intermediate_size: PositiveInt = Field(description="width inside the feed-forward block")
    max_length: PositiveInt = Field(512, description="the longest sequence, special tokens included")
    embedding_size: PositiveInt | None = Field(None, description="width of the token embedding; default: hidden_size")
    causal: bool = Field(False, description="a position sees itself and those before it, none after: a decoder")
    shared_layers: bool = Field(False, description="one block, applied num_layers times")
    norm: Literal["layer", "rms"] = "layer"
    pre_norm: bool = False
    positions: Literal["learned", "rotary"] = "learned"
    qk_norm: bool = Field(False, description="queries and keys are scaled to unit root mean square")
    gated: bool = Field(False, description="feed-forward block with a gate (Shazeer 2020)")
    activation: Activation = "gelu"
    biases: bool = True
    pooling: Literal["first", "mean"] = Field("first", description="the vector of a sequence")
    token_types: int = Field(2, ge=0, description="segments told apart by an embedding; 0 = none")
    context: int = Field(0, ge=0, description="neighbours on each side that add a vector of their own to the embedding")
    embedding_norm: bool = Field(True, description="embeddings are normalized")
    token_dropout: int | None = Field(
        None, ge=0, description="a mask token whose embedding is 0, and the others scaled for it (ESM-2)"
    )
    window: PositiveInt | None = Field(None, description="positions that local attention sees, half on each side")
    global_every: PositiveInt = Field(3, description="with a window, one layer in so many, from the first, sees all")
    dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1, description="default: dropout")
    norm_eps: float = Field(1e-12, gt=0)
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of new embeddings and matrices")
    pad_id: int = Field(0, ge=0)
    rotary_base: float = Field(10_000.0, gt=1)
    local_rotary_base: float = Field(10_000.0, gt=1, description="rotary_base of the layers with a window")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.head_size} (hidden_size / num_heads)")
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is outside the vocabulary of {self.vocab_size}")
        if self.token_dropout is not None and self.token_dropout >= self.vocab_size:
            raise ValueError(f"token_dropout {self.token_dropout} is outside the vocabulary of {self.vocab_size}")
        if self.causal and self.context:
            raise ValueError(f"context = {self.context} looks at what comes after, causal = true does not")
        if self.family == "modernbert" and self.window is None:
            raise ValueError("modernbert has a window")
        if self.family not in ("albert", "electra", "modern") and self.embedding_width != self.hidden_size:
            raise ValueError(f"{self.family} has embedding_size equal to hidden_size {self.hidden_size}; use albert")
        for name, value in FIXED[self.family].items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.family} has {name} = {value!r}; change it in the family 'modern'")
        return self

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def position_offset(self) -> int:
        """Learned positions before the first one in use: RoBERTa counts from pad_id + 1."""
        return self.pad_id + 1 if self.family in ROBERTA_LIKE else 0

    @property
    def head_dropout(self) -> float:
        return self.dropout if self.classifier_dropout is None else self.classifier_dropout


def preset(
    name: str, size: str, *, vocab_size: int, max_length: int = 512, where: str = "model", **overrides: Any
) -> ModelConfig:
    """The configuration of a family in one of the published sizes.

    name: a family. size: tiny, mini, small, medium or base.
    overrides: any field of ModelConfig. Changing hidden_size or num_heads keeps the preset's proportions for what is
    not given: heads 64 wide, feed-forward width 4 times the hidden size (8/3, with a gate: the same parameters).
    UsageError if the name, the size or a field is unknown, or the sizes are impossible.
    """
    for what, value, known in (("preset", name, get_args(Family)), ("size", size, get_args(Size))):
        if value not in known:
            raise UsageError(f"unknown {what} {value!r}", where=where, do=f"choose one of {', '.join(known)}")
    layers, width = _SIZES[size]
    width = overrides.get("hidden_size", width)
    values = {"num_layers": layers, "hidden_size": width, "vocab_size": vocab_size, "max_length": max_length}
    values |= FIXED[name] | _DEFAULTS[name] | ({"context": 0} if overrides.get("causal") else {})
    values |= overrides | {"family": name}
    if isinstance(width, int) and width > 0:
        if name == "albert":
            values.setdefault("embedding_size", min(128, width // 2))
        values.setdefault("num_heads", max(1, width // _HEAD_SIZE))
        values.setdefault("intermediate_size", _gated_width(width) if values.get("gated") else 4 * width)
    return ModelConfig.parse(values, where=where)


def _gated_width(width: int) -> int:
    """8/3 of the width, to the nearest multiple of 64: three matrices hold what two of 4 times the width would."""
    return max(64, round(width * 8 / 3 / 64) * 64)


def train_flops(config: ModelConfig, num_tokens: float, num_predicted: float, sum_of_squared_lengths: float) -> float:
    """Floating-point operations of one training step, forward and backward; padding and recomputation not counted.

    Six for each matrix parameter that a token passes through (Kaplan et al. 2020, section 2.1), the output layer at the
    predicted positions only, and attention inside each sequence: 12 x layers x width x squared length.
    """
    width, inner, embedding = config.hidden_size, config.intermediate_size, config.embedding_width
    body = config.num_layers * (4 * width**2 + (3 if config.gated else 2) * width * inner)
    if embedding != width:
        body += embedding * width
    output = embedding * config.vocab_size
    if embedding != width or not (config.causal or config.family == "modern"):
        output += width * embedding
    attention = 12 * config.num_layers * width * sum_of_squared_lengths
    return 6.0 * (body * num_tokens + output * num_predicted) + attention
