"""The body of every model: embeddings and a stack of blocks.

Legend: B rows, L positions a row, N sequences, E embedding width, D width.
"""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pluri.batches.batch import Batch
from pluri.models.attention import Reading, Source, crossing, layouts
from pluri.models.blocks import Block
from pluri.models.cache import Cache
from pluri.models.config import ModelConfig
from pluri.models.dropout import dropout
from pluri.models.norms import build_norm
from pluri.models.positions import StoredFrequencies


class ContextEmbedding(nn.Module):
    """A vector for each neighbour of a token, by its identity and its distance: the log-bilinear model of a blank's
    surroundings (Mnih and Kavukcuoglu 2013, section 3), which a Transformer otherwise has to learn through attention.

    The table has V rows for each distance -reach, ..., -1, 1, ..., reach, and a last one, always 0, for no neighbour.
    """

    def __init__(self, vocab_size: int, reach: int, width: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.distances = [d for d in range(-reach, reach + 1) if d]
        self.table = nn.Parameter(torch.empty(len(self.distances) * vocab_size + 1, width))

    def forward(self, batch: Batch) -> Tensor:
        """(B, L, E): the sum over the neighbours within the same sequence."""
        ids, sequences = batch.input_ids, batch.sequence_ids
        none = len(self.distances) * self.vocab_size
        rows = torch.full((*ids.shape, len(self.distances)), none, device=ids.device)  # (B, L, distances)
        for i, distance in enumerate(self.distances):
            here = slice(max(0, -distance), -distance if distance > 0 else None)
            there = slice(max(0, distance), distance if distance < 0 else None)
            same = sequences[:, here] == sequences[:, there]
            rows[:, here, i] = torch.where(same, ids[:, there] + i * self.vocab_size, none)
        summed = F.embedding_bag(rows.flatten(0, 1), self.table, mode="sum", padding_idx=none)
        return summed.view(*ids.shape, -1)


_DROPPED_IN_TRAINING = 0.15 * 0.8  # ESM-2 chose 15% of the tokens and masked 80% of these


def token_dropout_scale(batch: Batch, mask_id: int) -> Tensor:
    """What multiplies the token embeddings of ESM-2: fp32 (B, L, 1) (Lin et al. 2023).

    A masked token counts as dropped, 0; the others are scaled as dropout would, from the share of masks in their
    sequence to that in training.
    """
    masked = (batch.input_ids == mask_id).flatten()  # (B * L,)
    counts = masked.long().cumsum(0)
    last = batch.starts + batch.lengths - 1
    dropped = counts[last] - counts[batch.starts] + masked[batch.starts].long()  # (N,)
    kept = (batch.lengths - dropped).clamp_min(1)
    tokens = None if batch.spans is None else batch.spans.tokens  # known: the device is not asked
    each = (1 - _DROPPED_IN_TRAINING) * batch.lengths / kept
    scale = torch.repeat_interleave(each, batch.lengths, output_size=tokens)
    spread = torch.zeros(masked.shape, device=masked.device).index_copy(0, batch.places, scale)
    return spread.masked_fill(masked, 0.0).view(*batch.input_ids.shape, 1)


class Embeddings(nn.Module):
    """Token, segment and position embeddings, summed and normalized; projected where E is not D (Lan et al. 2020).

    decodes: of a decoder beside an encoder, whose token embedding it reads: it has none.
    """

    tokens: nn.Embedding

    def __init__(self, config: ModelConfig, *, decodes: bool = False) -> None:
        super().__init__()
        width = config.embedding_width
        self.position_offset = config.position_offset
        self.token_dropout = config.token_dropout
        self.dropout = config.dropout
        if not decodes:
            self.tokens = nn.Embedding(config.vocab_size, width)
        self.types = nn.Embedding(config.token_types, width) if config.token_types else None
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.max_length + config.position_offset, width) if learned else None
        self.context = ContextEmbedding(config.vocab_size, config.context, width) if config.context else None
        self.norm = build_norm(config, width) if config.embedding_norm else nn.Identity()
        factorized = width != config.hidden_size or config.family == "albert"
        self.projection = nn.Linear(width, config.hidden_size, bias=config.biases) if factorized else None

    def forward(self, batch: Batch, shared: nn.Embedding | None = None) -> Tensor:
        """(B, L, D). shared: the token embedding of the encoder, where there is none of its own."""
        x = (self.tokens if shared is None else shared)(batch.input_ids)
        if self.token_dropout is not None:
            x = (x * token_dropout_scale(batch, self.token_dropout)).to(x.dtype)
        if self.types is not None:
            x = x + self.types(batch.token_type_ids)
        if self.positions is not None:
            x = x + self.positions(batch.position_ids + self.position_offset)
        if self.context is not None:
            x = x + self.context(batch)
        x = self.norm(x)
        if self.training:
            x = dropout(x, self.dropout)
        return x if self.projection is None else self.projection(x)


class Transformer(nn.Module):
    """Each position of a packed batch to its hidden state, in view of its own sequence alone: an encoder, or, if the
    configuration is causal, a decoder. With decoder_layers it is an encoder that holds a decoder, a Transformer too.

    decodes: it is such a decoder: its blocks look at a source as well.

    Dropout draws from torch's generator, which training sets from (seed, step) before each pass.
    checkpointing: in training keep only what each block reads, and compute the rest again for the gradient (Chen et
        al., "Training deep nets with sublinear memory cost", 2016).
    """

    checkpointing = False

    def __init__(self, config: ModelConfig, *, decodes: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config, decodes=decodes)
        stored = config.family == "esm" and config.positions == "rotary"
        self.rotary = StoredFrequencies(config.head_size, config.rotary_base) if stored else None
        self.blocks = nn.ModuleList(
            Block(config, attention_norm=i > 0 or config.family != "modernbert", crossed=decodes)
            for i in range(1 if config.shared_layers else config.num_layers)
        )
        self.norm = build_norm(config, config.hidden_size) if config.pre_norm else None
        self.decoder = Transformer(config.decoder, decodes=True) if config.decoder_layers else None

    @overload
    def forward(
        self, batch: Batch, *, at: Tensor | None = None, layers: Literal[False] = False, cache: Cache | None = None
    ) -> Tensor: ...
    @overload
    def forward(
        self, batch: Batch, *, at: Tensor | None = None, layers: Literal[True], cache: Cache | None = None
    ) -> list[Tensor]: ...

    def forward(
        self, batch: Batch, *, at: Tensor | None = None, layers: bool = False, cache: Cache | None = None
    ) -> Tensor | list[Tensor]:
        """The last hidden states (B, L, D); layers=True: a list, the embeddings and each layer, the last normed.

        With a decoder, they are those of the decoder where the batch has a source, else those of the encoder.
        at: int64 (P,), flat positions where alone the last states are wanted: they are then (P, D), and what is not
            wanted is not computed, save in a decoder with a source.
        cache: of a decoder; the batch goes on with the rows that are in it, one sequence a row, and joins them. Only
            the first batch needs the source.
        """
        if self.decoder is None or (batch.source is None and cache is None):
            assert batch.source is None, "a source is for a model with a decoder"
            return self._through(self.embeddings(batch), batch, at, layers, cache)
        if batch.source is not None:
            states, source_ids = self(batch.source), batch.source.sequence_ids
        else:
            assert cache is not None
            states, source_ids = None, cache.source_ids
        assert source_ids is not None, "the first batch of a cache has a source"
        if cache is not None:
            cache.source_ids = source_ids
        x = self.decoder.embeddings(batch, self.embeddings.tokens)
        if batch.spans is not None and batch.source is not None and batch.source.spans is not None:
            source = Source(states, None, (batch.spans, batch.source.spans))
        else:
            source = Source(states, crossing(batch, source_ids))
        found = self.decoder._through(x, batch, None, layers, cache, source)
        return found if at is None or isinstance(found, list) else found.flatten(0, 1)[at]

    def _through(
        self,
        x: Tensor,
        batch: Batch,
        at: Tensor | None,
        layers: bool,
        cache: Cache | None,
        source: Source | None = None,
    ) -> Tensor | list[Tensor]:
        """Embeddings (B, L, D) through the blocks and the last norm."""
        each = layouts(batch, self.config, None if self.rotary is None else self.rotary.inv_freq, cache)
        reading = None if at is None else Reading.of(at, *batch.input_ids.shape)
        states = [x]
        for i, layout in enumerate(each):
            block = self.blocks[0 if self.config.shared_layers else i]
            last, kept = i == len(each) - 1, None if cache is None else cache.layers[i]
            read = (x, layout, reading if last else None, kept, source)
            x = checkpoint(block, *read, use_reentrant=False) if self.checkpointing and self.training else block(*read)
            if layers:
                states.append(x)
        if self.norm is not None:
            states[-1] = x = self.norm(x)
        return states if layers else x
