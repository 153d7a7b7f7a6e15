"""Heads, and the model: a body with the heads that a piece of work needs.

Legend: B rows, L positions a row, N sequences, P predicted positions, D width, E embedding width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.errors import UsageError
from pluri.models.blocks import ACTIVATIONS
from pluri.models.config import PLAIN_OUTPUT, ROBERTA_LIKE, ModelConfig
from pluri.models.norms import RMSNorm, build_norm
from pluri.models.positions import StoredFrequencies
from pluri.models.transformer import ContextEmbedding, Transformer

T = TypeVar("T")

# The heads of the published classes. What their layer before the classes ends in, where it is not tanh:
_POOLER_ACTIVATION = {"distilbert": "relu", "electra": "gelu", "modernbert": "gelu", "eurobert": "gelu"}
# families whose layer before the output layer has gelu whatever the body uses, and those with dropout on both sides of
# the layer before the classes:
_GELU_HEAD = (*ROBERTA_LIKE, "electra", "modernbert")
_DROPS_FIRST = (*ROBERTA_LIKE, "electra")
# and the heads that a family lacks.
LACKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ROBERTA_LIKE, ("pair",)),
    **dict.fromkeys(("distilbert", "electra", "modernbert"), ("pair", "pool")),
    **dict.fromkeys(("eurobert", "modern"), ("pool",)),
    "esm": ("pair", "answer"),
    **dict.fromkeys(("gpt2", "llama", "bart"), ("pair", "pool", "classify", "tag", "answer")),
}
_INSTEAD = {
    "pair": "pretrain with masked tokens alone, or bert",
    "pool": "use Model.pooled",
    "masked": "a causal model predicts the next token: objective.next = true; with an encoder, objective.denoise",
    "next": "only a decoder predicts the next token: gpt2, bart, or modern with causal = true or decoder_layers",
}


class MaskedHead(nn.Module):
    """What the output layer reads: (P, D) to (P, E). The layer itself is the token embedding, or `weight` where it is
    not tied, (V, E), and `bias` (V,).

    The published families transform first. A pre-norm body ends in a norm and needs no more: EuroBERT has neither layer
    nor bias; `modern`, whose norms have no gains, has a gain here.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        width, embedding = config.hidden_size, config.embedding_width
        plain = config.family in PLAIN_OUTPUT
        self.dense = None if plain and width == embedding else nn.Linear(width, embedding, bias=config.biases)
        self.activation = ACTIVATIONS["gelu" if config.family in _GELU_HEAD else config.activation]
        self.norm = None if plain else build_norm(config, embedding)
        self.gain = nn.Parameter(torch.ones(embedding)) if config.family == "modern" else None
        self.weight = None if config.tied else nn.Parameter(torch.empty(num_classes, embedding))
        self.bias = None if config.family == "eurobert" else nn.Parameter(torch.zeros(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        if self.dense is not None:
            x = self.dense(x)
        if self.gain is not None:
            x = x * self.gain
        return x if self.norm is None else self.norm(self.activation(x))


class NextHead(nn.Module):
    """What the output layer of a causal model reads: (P, D) to (P, E). The layer itself is the token embedding, or
    `weight` where it is not tied, (V, E).

    The published bodies end in a norm with gains, and there is nothing between; that of `modern` gets its gains here.
    """

    bias: Tensor | None

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        width, embedding = config.hidden_size, config.embedding_width
        self.dense = nn.Linear(width, embedding, bias=config.biases) if width != embedding else None
        self.gain = nn.Parameter(torch.ones(embedding)) if config.family == "modern" else None
        self.weight = None if config.tied else nn.Parameter(torch.empty(num_classes, embedding))
        # BART's is a constant, 0 as a rule
        self.register_buffer("bias", torch.zeros(1, num_classes) if config.family == "bart" else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.dense is not None:
            x = self.dense(x)
        return x if self.gain is None else x * self.gain


class PoolHead(nn.Module):
    """The first token's state through one tanh layer: what the published base models return beside hidden states.

    Other families put such a layer before the classes alone: ELECTRA and EuroBERT with gelu, ModernBERT with a norm
    besides.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        biases = config.biases or config.family == "eurobert"
        self.dense = nn.Linear(config.hidden_size, num_classes, bias=biases)
        self.activation = ACTIVATIONS[_POOLER_ACTIVATION.get(config.family, "tanh")]
        self.norm = build_norm(config, num_classes) if config.family == "modernbert" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.norm(self.activation(self.dense(x)))


class SequenceHead(nn.Module):
    """Classes (or one number) of a sequence: (N, D) to (N, classes).

    The published families have a layer before the classes, some with dropout before it too; `modern` has none.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        published = config.family != "modern"
        self.pooler = PoolHead(config, config.hidden_size) if published else None
        self.drop_first = config.family in _DROPS_FIRST
        self.dropout = nn.Dropout(config.head_dropout)
        self.out = nn.Linear(config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D): all but the classes."""
        if self.drop_first:
            x = self.dropout(x)
        return x if self.pooler is None else self.pooler(x)

    def classes(self, x: Tensor) -> Tensor:
        """(N, D) to (N, classes)."""
        return self.out(self.dropout(x))


class TagHead(nn.Module):
    """A label for each position: (..., D) to (..., labels)."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.pooler = PoolHead(config, config.hidden_size) if config.family == "modernbert" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout if config.family == "distilbert" else config.head_dropout)
        self.out = nn.Linear(config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.pooler(x)))


class AnswerHead(nn.Module):
    """How well each position begins and ends the answer: (..., D) to (..., 2). One learnt vector for each."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.pooler = PoolHead(config, config.hidden_size) if config.family == "modernbert" else nn.Identity()
        self.out = nn.Linear(config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.pooler(x))


HEADS: dict[str, type[nn.Module]] = {
    "masked": MaskedHead,
    "next": NextHead,
    "pair": SequenceHead,
    "pool": PoolHead,
    "classify": SequenceHead,
    "tag": TagHead,
    "answer": AnswerHead,
}


class Model(nn.Module):
    """A Transformer and its heads.

    heads: name to number of classes: {"masked": vocab_size, "pair": 2, "classify": n, "tag": n, "answer": 2}, of causal
        models "next" instead of "masked"; a number to predict (regression) is "classify" with 1.
    seed: of the initial values, which come from their own generator. All parameters are fp32 on the CPU; `.to()` moves.
    new_heads: the heads whose output starts from initial values: all of them here; loading a folder removes its own.
    UsageError if a head is unknown or has an impossible size.
    """

    def __init__(self, config: ModelConfig, heads: Mapping[str, int] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        heads = dict(heads or {})
        _check_heads(config, heads)
        self.config = config
        self.num_classes = heads
        self.new_heads: tuple[str, ...] = tuple(heads)
        with torch.device("meta"):  # no memory and no draw from the global generator before the values are known
            self.body = Transformer(config)
            self.heads = nn.ModuleDict({name: HEADS[name](config, n) for name, n in heads.items()})
        self.to_empty(device="cpu")
        _initialize(self, config, seed)

    def hidden(self, batch: Batch, at: Tensor | None = None) -> Tensor:
        """The last hidden states (B, L, D), or only those at the flat positions `at` (P,): (P, D), for less work."""
        return self.body(batch, at=at)

    def pooled(self, hidden: Tensor, batch: Batch) -> Tensor:
        """One vector a sequence (N, D), in the order of `batch.starts`: its first token's state, or the mean of all."""
        flat = hidden.flatten(0, 1)  # (B * L, D)
        if self.config.pooling == "first":
            return flat.index_select(0, batch.starts)
        states = flat.index_select(0, batch.places)  # unsafe: the lengths are right, and a GPU need not be asked
        return torch.segment_reduce(states, "mean", lengths=batch.lengths, axis=0, unsafe=True)

    @property
    def decoder(self) -> tuple[Tensor, Tensor | None]:
        """The output layer: weight (V, E), as a rule the token embedding, and the bias (V,) of the head, if any."""
        head = self.heads["masked" if "masked" in self.heads else "next"]
        assert isinstance(head, MaskedHead | NextHead)
        assert self.body.embeddings.tokens is not None
        weight = self.body.embeddings.tokens.weight if head.weight is None else head.weight
        return weight, None if head.bias is None else head.bias.flatten().to(weight.dtype)

    def outputs(self, head: str, hidden: Tensor, batch: Batch, at: Tensor | None = None) -> Tensor:
        """What a head says of hidden states (B, L, D): logits, or numbers.

        masked, next: (P, V) at the flat positions `at`, by default those that have a label. pair, classify: (N,
        classes). tag: (B, L, labels). answer: (B, L, 2). pool: (N, D).
        """
        module = self.heads[head]
        if head in ("masked", "next"):
            features = module(hidden.flatten(0, 1).index_select(0, batch.predicted if at is None else at))
            return F.linear(features, *self.decoder)
        if self.config.pooling == "late" and isinstance(module, SequenceHead):
            return module.classes(self.pooled(module.features(hidden), batch))
        return module(hidden if head in ("tag", "answer") else self.pooled(hidden, batch))

    def learn(self, loss: Callable[..., T], batch: Batch, *counts: int) -> T:
        """What a loss makes of this model and a batch. Where weights are shared out, they are whole within it."""
        return loss(self, batch, *counts)

    def forward(self, batch: Batch, head: str) -> Tensor:
        """The outputs of one head for a batch."""
        if head == "masked":
            return F.linear(self.heads[head](self.hidden(batch, batch.predicted)), *self.decoder)
        if head in ("pair", "classify", "pool") and self.config.pooling == "first":
            return self.heads[head](self.hidden(batch, batch.starts))
        return self.outputs(head, self.hidden(batch), batch)


def positions_read(config: ModelConfig, batch: Batch) -> int:
    """How many positions' last states the heads read in training, by the labels that a batch has."""
    if config.generative:
        return batch.num_tokens
    labelled = len(batch.predicted)
    if batch.sequence_labels is None or batch.sequence_labels.ndim == 2:  # of an answer: which labelled positions
        return labelled
    return labelled + len(batch.starts) if config.pooling == "first" else batch.num_tokens


def _check_heads(config: ModelConfig, heads: dict[str, int]) -> None:
    fixed = {"masked": config.vocab_size, "next": config.vocab_size, "pair": 2, "pool": config.hidden_size, "answer": 2}
    lacks = (*LACKS.get(config.family, ()), "masked" if config.generative else "next")
    if config.decoder_layers:
        lacks = tuple(name for name in HEADS if name != "next")
    for name, size in heads.items():
        if name not in HEADS:
            raise UsageError(f"unknown head {name!r}", where="model", do=f"choose of {', '.join(HEADS)}")
        if size < 1 or size != fixed.get(name, size):
            rule = f"{fixed[name]}" if name in fixed else "at least 1"
            raise UsageError(f"the head {name!r} has {rule} outputs, not {size}", where="model")
        if name in lacks:
            family = config.family + (" with causal = true" if config.causal and config.family == "modern" else "")
            do = _INSTEAD.get(name, "take another family")
            raise UsageError(f"{family} has no {name} head", where="model", do=do)


@torch.no_grad()
def _initialize(model: Model, config: ModelConfig, seed: int) -> None:
    """Normal values as published; in pre-norm models each matrix by its fan-in, and 0 where a block ends.

    A block that starts as the identity: Zhang et al., "Fixup" (2019); Yang et al., "Tensor programs V" (2022), D.2.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            std = config.initializer_range
            if config.pre_norm and isinstance(module, nn.Linear) and name.startswith("body."):
                std = 0.0 if name.endswith((".out", ".down")) else 1 / math.sqrt(module.in_features)
            module.weight.normal_(0.0, std, generator=generator)
            if name == "body.embeddings.tokens" and config.norm == "rms" and not config.token_types:
                # To attend to a distance, whatever stands there, takes a part that all tokens share: elsewhere segments
                # or biases are that. A tied softmax does not see it. docs/log.md has what it is worth.
                module.weight += torch.empty(config.embedding_width).normal_(0.0, std, generator=generator)
        elif isinstance(module, nn.LayerNorm | RMSNorm) and module.weight is not None:
            module.weight.fill_(1.0)
        elif isinstance(module, StoredFrequencies):
            module.reset()
        elif isinstance(module, ContextEmbedding):
            module.table.zero_()
        elif isinstance(module, MaskedHead | NextHead):
            if module.gain is not None:
                module.gain.fill_(1.0)
            if module.weight is not None:
                module.weight.normal_(0.0, config.initializer_range, generator=generator)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.zero_()
