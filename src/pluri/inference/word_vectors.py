"""Vectors of whole words, from any layers of any encoder or decoder.

Legend: N words, L layers asked for, D width, T pieces of the texts of a chunk.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.errors import UsageError
from pluri.inference.embeddings import CHUNK, batches_of, checked_length, frame, on_device
from pluri.models.heads import Model
from pluri.runtime import Precision
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.words import spaced, split_words

_VALUES = 1 << 25  # numbers of a chunk's vectors: 128 MiB

Text = str | Sequence[str]
Words = tuple[str, list[str], list[tuple[int, int]]]  # a text, its words, and where each begins and ends in it


@dataclass(frozen=True, slots=True)
class WordVectors:
    """The words of a chunk of consecutive texts, in their order.

    text: int64 (N,), which text each is of, counted over the whole stream; place: int64 (N,), which word of it.
    vectors: float32 (L, N, D), the mean over a word's pieces (a piece that two words share counts for both).
    cut: how many words are left out: beyond the model's length, or spelled with characters that the tokenizer drops.
    """

    words: list[str]
    text: NDArray[np.int64]
    place: NDArray[np.int64]
    vectors: NDArray[np.float32]
    cut: int


def word_vectors(
    model: Model,
    tokenizer: Tokenizer,
    texts: Iterable[Text],
    *,
    layers: Sequence[int] | None = None,
    characters: bool = False,
    max_length: int | None = None,
    precision: Precision = "auto",
) -> Iterator[WordVectors]:
    """The vector of each word of some texts, a chunk of texts at a time: memory does not grow with their number.

    texts: running text, which is split into words and signs, and in scripts without spaces into characters; or texts as
        lists of words, which stay as they are.
    layers: 0 is the embedding, n what the n-th layer puts out; None takes all. Of an encoder with a decoder they are
        the encoder's.
    characters: split running text into characters, whatever its script.
    max_length: pieces of a text that are read, special ones included; by default as many as the model can.
    The model is moved to the fastest device and precision, and stays there.
    UsageError: a layer that the model lacks, a length that it cannot read, or a tokenizer of overlapping k-mers.
    """
    if tokenizer.kmer:
        raise UsageError("overlapping k-mers belong to no one word", where="tokenizer", do="take a char tokenizer")
    depth = model.config.num_layers
    wanted = list(range(depth + 1)) if layers is None else list(layers)
    if not wanted or not all(0 <= layer <= depth for layer in wanted):
        do = f"0, the embedding, to {depth}, the last"
        raise UsageError(f"no layers {list(wanted)}", where="layers", do=do)
    length = checked_length(model, tokenizer, max_length)
    model = on_device(model, precision)
    most = max(1, _VALUES // (len(wanted) * model.config.hidden_size))
    first = 0
    for chunk in _chunks((_words(text, characters) for text in texts), most):
        yield _chunk(model, tokenizer, chunk, wanted, length, first)
        first += len(chunk)


def _words(text: Text, characters: bool) -> Words:
    if not isinstance(text, str):
        parts = list(spaced(text))
        ends = np.cumsum([len(part) for part in parts]).tolist()
        spans = [(end - len(word), end) for word, end in zip(text, ends, strict=True)]
        return "".join(parts), list(text), spans
    if characters:
        found = [(character, (i, i + 1)) for i, character in enumerate(text) if not character.isspace()]
    else:
        found = split_words(text)
    return text, [word for word, _ in found], [span for _, span in found]


def _chunks(texts: Iterable[Words], most: int) -> Iterator[list[Words]]:
    """Runs of texts of about `most` words and at most CHUNK texts, at least one text each."""
    chunk: list[Words] = []
    count = 0
    for text in texts:
        if chunk and (count + len(text[1]) > most or len(chunk) == CHUNK):
            yield chunk
            chunk, count = [], 0
        chunk.append(text)
        count += len(text[1])
    if chunk:
        yield chunk


def _chunk(
    model: Model, tokenizer: Tokenizer, chunk: Sequence[Words], layers: Sequence[int], length: int, first: int
) -> WordVectors:
    before, after = frame(tokenizer)
    room = length - len(before) - len(after)
    encodings = tokenizer.encode_batch([text for text, _, _ in chunk])
    counts = np.array([len(words) for _, words, _ in chunk], np.int64)
    starts, ends = _pieces(encodings, chunk)  # (N,) each, in the text
    kept = (starts < ends) & (ends <= room)
    text = np.repeat(np.arange(len(chunk)), counts)[kept]
    place = slices(np.zeros_like(counts), counts)[kept]
    sizes, starts = (ends - starts)[kept], starts[kept] + len(before)
    owned = np.bincount(text, minlength=len(chunk))
    offsets, used = offsets_of(owned), np.flatnonzero(owned)
    vectors = np.empty((len(layers), len(text), model.config.hidden_size), np.float32)
    if len(used):
        pieces = [np.array([*before, *encodings[i].ids[:room], *after], np.int64) for i in used]
        for index, batch in batches_of(pieces, model):
            bases = offsets_of(np.array([len(pieces[i]) for i in index], np.int64))[:-1]
            here = slices(offsets[used[index]], owned[used[index]])  # the words of this batch
            at = np.repeat(bases, owned[used[index]]) + starts[here]
            vectors[:, here] = _pooled(model, batch, layers, at, sizes[here])
    names = [word for _, words, _ in chunk for word in words]
    names = [names[i] for i in np.flatnonzero(kept)]
    return WordVectors(names, text + first, place, vectors, int((~kept).sum()))


def _pieces(
    encodings: Sequence[tokenizers.Encoding], chunk: Sequence[Words]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first piece of each word and the one after its last, counted in its text; the same for a word without any.

    A piece is of every word that it shares a character with.
    """
    counts = np.array([len(encoding.ids) for encoding in encodings], np.int64)
    words = np.array([len(spans) for _, _, spans in chunk], np.int64)
    bases = offsets_of(np.array([len(text) + 1 for text, _, _ in chunk], np.int64))[:-1]  # characters before each text
    flat = [offset for encoding in encodings for offset in encoding.offsets]
    pieces = np.array(flat, np.int64).reshape(-1, 2) + np.repeat(bases, counts)[:, None]  # (T, 2)
    spans = np.array([span for _, _, found in chunk for span in found], np.int64).reshape(-1, 2)
    spans += np.repeat(bases, words)[:, None]  # (N, 2)
    # A piece without characters of its own stands where it is; running maxima keep the order that a search needs.
    starts = np.searchsorted(np.maximum.accumulate(pieces[:, 1]), spans[:, 0], side="right")
    ends = np.searchsorted(np.maximum.accumulate(pieces[:, 0]), spans[:, 1], side="left")
    before = np.repeat(offsets_of(counts)[:-1], words)
    return starts - before, np.maximum(starts, ends) - before


@torch.inference_mode()
def _pooled(
    model: Model, batch: Batch, layers: Sequence[int], at: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(L, N, D): of each layer the means over runs of `sizes` pieces that begin `at` one of the batch's."""
    states = model.body(batch, layers=True)
    places = batch.places[torch.from_numpy(slices(at, sizes)).to(batch.places.device)]
    lengths = torch.from_numpy(sizes).to(places.device)
    read = (states[layer].flatten(0, 1)[places].float() for layer in layers)
    return torch.stack([torch.segment_reduce(each, "mean", lengths=lengths, axis=0) for each in read]).cpu().numpy()
