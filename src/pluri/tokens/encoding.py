"""Documents to ids, with the places where sentences begin, in bounded memory however long a document is."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tokenizers
from numpy.typing import NDArray

from pluri.sequences import split_sentences
from pluri.tokens.tokenizer import Tokenizer

_BATCH = 1 << 18
"""Characters encoded in one call."""

_WINDOW = 1 << 15
"""Characters of a longer document that are encoded at once."""

_CONTEXT = 512
"""Characters that neighbouring windows share on either side of their border."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """n documents, flat.

    ids: int64 [T]. lengths: int64 [n], 0 for a document with no token.
    sentences: int64, positions in ids where a sentence begins inside a document, ascending.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sentences: NDArray[np.int64]


def encode_documents(
    tokenizer: Tokenizer, texts: Iterable[str], language: str = "en"
) -> Iterator[tuple[list[str], Encoded]]:
    """Texts to ids and sentence starts, a group of consecutive texts at a time. Special tokens are not added.

    A document of more than 32,768 characters is encoded in windows that overlap by 1,024, joined at a token that both
    spell alike: the ids are those of the whole text wherever a token depends only on its surroundings, as it does with
    words and punctuation. Only a single unbroken word longer than that overlap may be cut differently.
    k-mers have no sentences.
    """
    for batch in _batches(texts):
        if tokenizer.kmer:
            yield batch, _encode_kmers(tokenizer, batch)
        elif len(batch[0]) <= _WINDOW:
            yield batch, _encode_short(tokenizer, batch, language)
        else:
            yield batch, _encode_long(tokenizer, batch[0], language)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Consecutive texts of about _BATCH characters together; a text longer than a window is alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(text) > _WINDOW or size + len(text) > _BATCH):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
        if len(text) > _WINDOW:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode_short(tokenizer: Tokenizer, texts: list[str], language: str) -> Encoded:
    ids, lengths, sentences = list[int](), list[int](), list[int]()
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        sentences += [len(ids) + start for start in _sentences(encoding, text, language)]
        tokens = encoding.ids
        ids += tokens
        lengths.append(len(tokens))
    return Encoded(np.array(ids, np.int64), np.array(lengths, np.int64), np.array(sentences, np.int64))


def _sentences(encoding: tokenizers.Encoding, text: str, language: str) -> list[int]:
    """The tokens, after the first, with which sentences begin."""
    starts: list[int] = []
    previous = begin = 0
    for sentence in split_sentences(text, language):
        end = begin + len(sentence)
        if begin:
            token = encoding.char_to_token(begin)
            if token is None:  # the first character is one that the tokenizer drops
                found = (encoding.char_to_token(position) for position in range(begin, end))
                token = next((index for index in found if index is not None), None)
            if token is not None and token > previous:
                starts.append(token)
                previous = token
        begin = end
    return starts


def _encode_long(tokenizer: Tokenizer, text: str, language: str) -> Encoded:
    ids, ends = _windowed(tokenizer, text)
    begins = np.cumsum([len(sentence) for sentence in split_sentences(text, language)])[:-1]
    starts = np.unique(np.searchsorted(ends, begins, side="right"))
    return Encoded(ids, np.array([len(ids)], np.int64), starts[(starts > 0) & (starts < len(ids))])


def _windowed(tokenizer: Tokenizer, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of a long text, and the character where each token ends."""
    cuts = _cuts(text)
    kept: list[NDArray[np.int64]] = []  # columns: id, start, end
    for left, right in itertools.pairwise(cuts):
        begin = max(0, left - _CONTEXT)
        encoding = tokenizer.encode_batch([text[begin : right + _CONTEXT]])[0]
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + begin
        window = np.column_stack([np.array(encoding.ids, np.int64), offsets])
        if kept:
            kept[-1], window = _joined(kept[-1], window, left)
        kept.append(window)
    tokens = np.concatenate(kept)
    return tokens[:, 0].copy(), tokens[:, 2].copy()


def _joined(
    before: NDArray[np.int64], after: NDArray[np.int64], border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both windows cut at the token nearest the border that both have; at the border if they agree on none."""
    same = np.intersect1d(_spelling(before, border), _spelling(after, border)) >> 32
    cut = same[np.argmin(np.abs(same - border))] if len(same) else border
    return before[before[:, 1] < cut], after[after[:, 1] >= cut]


def _spelling(window: NDArray[np.int64], border: int) -> NDArray[np.int64]:
    """(start, id) of the tokens near the border, each as one number."""
    near = window[np.abs(window[:, 1] - border) < _CONTEXT]
    return near[:, 1] << 32 | near[:, 0]


def _cuts(text: str) -> list[int]:
    """Borders of the windows, at a space where there is one in the last 1,024 characters."""
    cuts = [0]
    while len(text) - cuts[-1] > _WINDOW:
        border = cuts[-1] + _WINDOW
        space = text.rfind(" ", border - 2 * _CONTEXT, border)
        cuts.append(space if space > 0 else border)
    return [*cuts, len(text)]


def _encode_kmers(tokenizer: Tokenizer, texts: list[str]) -> Encoded:
    documents = [tokenizer.encode_kmers(text) for text in texts]
    lengths = np.array([len(ids) for ids in documents], np.int64)
    return Encoded(np.concatenate(documents), lengths, np.zeros(0, np.int64))
