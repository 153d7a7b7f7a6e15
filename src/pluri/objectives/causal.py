"""The next token: every document of a store, each token to be predicted from those before it.

Legend: n sequences.
"""

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.errors import UsageError
from pluri.objectives.pieces import Cut, InShards
from pluri.tokens.ragged import offsets_of
from pluri.tokens.store import TokenStore


class NextTokens(InShards):
    """A document between the token that begins a sequence and the one that ends it, as far as the tokenizer has them
    (in GPT-2 both are <|endoftext|>); a longer one in pieces. Each position's label is the token that follows there.

    A piece's last label is the first token of the next piece: nothing is read or predicted twice, and nothing is left
    out. No chance is in it: every epoch is alike but for the order.

    length: tokens a sequence at most. documents: only these, ascending; None = all.
    """

    def __init__(self, store: TokenStore, *, length: int, documents: NDArray[np.int64] | None = None) -> None:
        if length < 1:
            raise UsageError(f"a sequence of {length} tokens", where="max_length", do="at least 1")
        self._store, tokenizer = store, store.tokenizer
        self._begin, self._end = ([] if i is None else [i] for i in (tokenizer.cls_id, tokenizer.sep_id))
        documents = np.arange(store.num_documents) if documents is None else np.sort(documents)
        # the last token of all is only predicted, never read
        self._pieces = Cut(store, documents, length, added=len(self._begin) + len(self._end) - 1)
        self.mean_length = self._pieces.mean_length

    def __len__(self) -> int:
        return len(self._pieces)

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The sequences at `index` (n,), in every epoch the same."""
        pieces = self._pieces.take(index)
        inside = self._store.document_lengths[pieces.documents]
        first = pieces.starts - len(self._begin)  # in the document's own tokens; -1 stands for the one that begins it
        last = first + pieces.lengths  # the token that is only predicted; `inside` stands for the one that ends it
        begins, ends = first < 0, last >= inside
        taken = np.minimum(last + 1, inside) - np.maximum(first, 0)
        tokens = self._store.gather(pieces.documents, np.maximum(first, 0), taken)
        offsets = offsets_of(pieces.lengths + 1)  # each with the token that is only predicted
        ids = np.empty(offsets[-1], np.int32)
        own = np.ones(len(ids), bool)
        for places, special in ((offsets[:-1][begins], self._begin), (offsets[1:][ends] - 1, self._end)):
            own[places] = False
            ids[places] = special
        ids[own] = tokens.ids
        read, predicted = np.ones(len(ids), bool), np.ones(len(ids), bool)
        read[offsets[1:] - 1] = predicted[offsets[:-1]] = False
        return Examples(ids[read], offsets_of(pieces.lengths), labels=ids[predicted])

    def tokens_per_byte(self, count: int) -> float:
        """Predictions for each byte (UTF-8) of the text that the first `count` sequences predict, as it is decoded.

        Unknown tokens decode to nothing: with many of them bits per byte mean little.
        """
        pieces = self._pieces.take(np.arange(min(count, len(self))))
        documents, position = np.unique(pieces.documents, return_inverse=True)
        covered = np.bincount(position, pieces.lengths).astype(np.int64)  # of each document; all of it but for the last
        lengths = np.minimum(covered, self._store.document_lengths[documents])
        tokens = self._store.gather(documents, np.zeros_like(documents), lengths)
        texts = (tokens.ids[a:b] for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True))
        num_bytes = sum(len(self._store.tokenizer.decode(ids).encode()) for ids in texts)
        return float(pieces.lengths.sum()) / max(num_bytes, 1)
