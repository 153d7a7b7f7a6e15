"""Language vectors: the mean hidden state of one language less that of another, added to sentences of the other.

If that turns masked predictions from one language to the other, languages differ by about a constant, and what is left
is common to both (Liu et al., "Looking for clues of language in multilingual BERT to improve cross-lingual
generalization", 2020).

Legend: S texts, P masked positions, D width, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.inference.embeddings import batches_of, frame, on_device
from pluri.models.heads import Model
from pluri.runtime import Precision, mix, uniform
from pluri.tokens.tokenizer import Tokenizer

_MASKED = 0.15
_CLEARLY = 10  # times as frequent in one language as in the other
_CHUNK = 2048  # texts


@dataclass(frozen=True, slots=True)
class Masked:
    """Texts of which some tokens are masked.

    pieces: ids of each text, special tokens included. at: int64 (P,), the masked positions, counted over all pieces
    laid end to end. text: int64 (P,), in [0, S), of which text each is. truth: int64 (P,), what stood there.
    """

    pieces: list[NDArray[np.int64]]
    at: NDArray[np.int64]
    text: NDArray[np.int64]
    truth: NDArray[np.int64]


def masked(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Masked:
    """A token in seven of each text masked, at least one: always the same ones. UsageError: there is no mask token."""
    if tokenizer.mask_id is None:
        raise UsageError("this tokenizer has no mask token", where="tokenizer", do="use one made for masked tokens")
    before, after = frame(tokenizer)
    pieces, at, text, truth, base = [], [], [], [], 0
    for i, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        ids = np.array(encoding.ids[: length - len(before) - len(after)], np.int64)
        chance = uniform(mix(np.uint64(0), i), np.arange(len(ids)))
        chosen = np.flatnonzero((chance < _MASKED) | (chance == chance.min(initial=2)))
        at.append(base + len(before) + chosen)
        text.append(np.full(len(chosen), i))
        truth.append(ids[chosen])
        ids[chosen] = tokenizer.mask_id
        pieces.append(np.array([*before, *ids, *after], np.int64))
        base += len(pieces[-1])
    return Masked(pieces, np.concatenate(at), np.concatenate(text), np.concatenate(truth))


@torch.inference_mode()
def predictions(
    model: Model, data: Masked, layer: int = 0, vector: NDArray[np.float32] | None = None, precision: Precision = "auto"
) -> NDArray[np.int64]:
    """(P,): the likeliest token at each masked position, where `vector` (D,) was added to what a layer puts out."""
    model = on_device(model, precision)
    lengths = np.array([len(piece) for piece in data.pieces])
    places = data.at - (np.cumsum(lengths) - lengths)[data.text]  # in their own texts
    owned = np.searchsorted(data.text, np.arange(len(data.pieces) + 1)).tolist()
    found = np.empty(len(data.at), np.int64)
    with shifted(model, layer, vector):
        for index, batch in batches_of(data.pieces, model):
            mine = [np.arange(owned[i], owned[i + 1]) for i in index]
            bases = np.cumsum(lengths[index]) - lengths[index]
            at = np.concatenate([base + places[these] for base, these in zip(bases, mine, strict=True)])
            flat = batch.places[torch.from_numpy(at).to(batch.places.device)]
            logits = model.outputs("masked", model.hidden(batch), batch, flat)  # (positions, V)
            found[np.concatenate(mine)] = logits.argmax(-1).cpu().numpy()
    return found


@contextmanager
def shifted(model: Model, layer: int, vector: NDArray[np.float32] | None) -> Iterator[None]:
    """The model, with `vector` (D,) added to all states that a layer puts out; 0 is the embedding."""
    body, depth = model.body, model.config.num_layers
    if vector is None:
        yield
        return
    calls = 0

    def add(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if model.config.shared_layers and layer > 0 and (calls - layer) % depth:
            return output  # the one block that all layers share is at another layer
        return output + torch.from_numpy(vector).to(output)

    module = body.embeddings if layer == 0 else body.blocks[0 if model.config.shared_layers else layer - 1]
    if layer == depth and body.norm is not None:  # the last states are those after the norm
        module = body.norm
    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def token_counts(tokenizer: Tokenizer, texts: Iterable[str]) -> NDArray[np.int64]:
    """(V,): how often each token stands in running text."""
    counts, texts = np.zeros(tokenizer.vocab_size, np.int64), iter(texts)
    while chunk := list(islice(texts, _CHUNK)):
        ids = [i for encoding in tokenizer.encode_batch(chunk) for i in encoding.ids]
        counts += np.bincount(np.array(ids, np.int64), minlength=len(counts))
    return counts


def languages_of(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """(V,): 0 or 1 for a token that is ten times as frequent in the one language as in the other, else 2: of both."""
    a, b = (counts / max(counts.sum(), 1) for counts in (first, second))
    return np.select([a > _CLEARLY * b, b > _CLEARLY * a], [0, 1], 2)
