"""Vectors of texts, or of their tokens, from the last layer of any encoder.

Legend: N texts, T tokens of a text, D width.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.models.placing import placed, reads_flat
from pluri.runtime import Precision, each_once, keep_freed_memory, pick_device, pick_dtype
from pluri.tokens.ragged import offsets_of
from pluri.tokens.tokenizer import Tokenizer

Pooling = Literal["mean", "cls", "token"]

CHUNK = 2048  # texts that are sorted by length together
_BATCH_TOKENS, _BATCH_TOKENS_ON_GPU = 4096, 32_768
_SHORTEST_ROW = 32


@dataclass(frozen=True, slots=True)
class Embedded:
    """A chunk of consecutive texts.

    vectors: float32, (n, D), in the order of the texts; for pooling "token" all tokens one after the other, (T, D).
    ids: with "token", the tokens, special ones included, (T,), and offsets (n + 1,) where each text's begin.
    truncated: how many of the texts were cut.
    """

    texts: list[str]
    vectors: NDArray[np.float32]
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    truncated: int


def embed_texts(
    model: Model,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    max_length: int | None = None,
    precision: Precision = "auto",
) -> Iterator[Embedded]:
    """The vectors of texts, some thousands at a time: memory does not grow with their number.

    pooling: "mean" of the text's tokens, special ones included (Reimers and Gurevych 2019, section 3); "cls", the first
        token's; "token", one for each token.
    normalize: scale each vector to length 1.
    max_length: tokens of a text that are read, special ones included; by default as many as the model can.
    Texts of like length share rows, so that nothing is computed for padding and little for masked attention. The model
    is moved to the fastest device and precision, and stays there.
    UsageError: an unknown pooling, a length that the model cannot read, or a tokenizer of k-mers.
    """
    if pooling not in get_args(Pooling):
        raise UsageError(f"unknown pooling {pooling!r}", do=f"one of {', '.join(get_args(Pooling))}")
    length = checked_length(model, tokenizer, max_length)
    model = on_device(model, precision)
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, CHUNK)):
        yield _chunk(model, tokenizer, chunk, pooling, normalize, length)


def checked_length(model: Model, tokenizer: Tokenizer, max_length: int | None) -> int:
    """The tokens of a text that are read, special ones included: `max_length`, or as many as the model can.

    UsageError: it cannot read as many, or no token fits between the special ones.
    """
    length = model.config.max_length if max_length is None else max_length
    special = sum(map(len, frame(tokenizer)))
    if not special < length <= model.config.max_length:
        do = f"at least {special + 1} and at most {model.config.max_length}, what the model reads"
        raise UsageError(f"texts of {length} tokens", where="max_length", do=do)
    return length


def on_device(model: Model, precision: Precision) -> Model:
    """The model on the fastest device, in that precision, in evaluation mode."""
    keep_freed_memory()
    device = pick_device()
    return model.to(device, pick_dtype(precision, device)).eval()


def frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    before, after = ([] if i is None else [i] for i in (tokenizer.cls_id, tokenizer.sep_id))
    return before, after


def batches_of(pieces: Sequence[NDArray[np.int64]], model: Model) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Batches of sequences of like length, on the model's device, and which of them each holds, in its order.

    pieces: ids, none of them empty.
    """
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    tokens = _BATCH_TOKENS_ON_GPU if reads_flat(model) else _BATCH_TOKENS
    for index in _groups(np.argsort(-lengths, kind="stable"), lengths, tokens):
        examples = Examples(np.concatenate([pieces[i] for i in index]).astype(np.int32), offsets_of(lengths[index]))
        yield index, placed(model, pack(examples, max(int(lengths[index].max()), _SHORTEST_ROW)))


def _chunk(
    model: Model, tokenizer: Tokenizer, texts: list[str], pooling: Pooling, normalize: bool, length: int
) -> Embedded:
    pieces, truncated = _encoded(tokenizer, texts, length)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)

    def done(item: tuple[NDArray[np.int64], Batch]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        return item[0], _vectors(model, item[1], pooling, normalize)

    for index, each in each_once(done, batches_of(pieces, model)):
        for place, vectors in zip(index, each, strict=True):
            found[place] = vectors
    vectors = np.concatenate(found) if pooling == "token" else np.stack(found)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    return Embedded(texts, vectors, np.concatenate(pieces), offsets_of(lengths), truncated)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[list[NDArray[np.int64]], int]:
    """Ids with special tokens, cut to `length`, and how many texts were cut."""
    if tokenizer.kmer:
        ids = [tokenizer.encode_kmers(text) for text in texts]
    else:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    before, after = frame(tokenizer)
    room = length - len(before) - len(after)
    pieces = [np.array([*before, *each[:room], *after], np.int64) for each in ids]
    return pieces, sum(len(each) > room for each in ids)


def _groups(order: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Runs of `order` of about so many tokens, at least one text each."""
    totals = np.cumsum(lengths[order])
    first = 0
    while first < len(order):
        before = totals[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(totals, before + tokens, side="right")))
        yield order[first:last]
        first = last


@torch.inference_mode()
def _vectors(model: Model, batch: Batch, pooling: Pooling, normalize: bool) -> list[NDArray[np.float32]]:
    """(D,) for each sequence, or (T, D) for pooling "token"."""
    hidden = model.hidden(batch).flatten(0, 1).float()  # (B * L, D)
    if pooling == "cls":
        vectors = hidden[batch.starts]
    else:
        vectors = hidden[batch.places]  # (T, D), text after text
        if pooling == "mean":
            vectors = torch.segment_reduce(vectors, "mean", lengths=batch.lengths, axis=0)
    vectors = (F.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
    return np.split(vectors, batch.lengths.cumsum(0)[:-1].cpu()) if pooling == "token" else list(vectors)
