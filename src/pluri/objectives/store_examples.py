"""Training sequences made of a token store: the source of batches in pretraining."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.errors import UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.denoise import Denoising
from pluri.objectives.masked import MaskedTokens
from pluri.objectives.pairs import Tails, nsp, sop
from pluri.objectives.pieces import Cut, InShards, Pieces, cut_at_sentences
from pluri.runtime import Keys, mix, sequence_keys
from pluri.tokens.ragged import Ragged, offsets_of, slices
from pluri.tokens.store import TokenStore
from pluri.tokens.strands import complement_ids, strands_of

_MASKING, _PAIRING, _DENOISING, _TURNING = range(4)
"""What a sequence's key is for."""

_SOME = 1000
"""Sequences that a mean length is measured on."""


class StoreExamples(InShards):
    """[CLS] x [SEP], or [CLS] a [SEP] b [SEP] for pairs, with every document of the store cut into such sequences.

    For denoising, x is a source and a target, as `Denoising` says.

    length: tokens a sequence at most, special tokens included.
    documents: only these, ascending: a training or a validation part. None = all.
    UsageError if the tokenizer lacks a special token, or the length leaves no room.
    """

    def __init__(
        self,
        store: TokenStore,
        config: ObjectiveConfig,
        *,
        length: int,
        seed: int,
        documents: NDArray[np.int64] | None = None,
    ) -> None:
        cls_id, sep_id = store.tokenizer.cls_id, store.tokenizer.sep_id
        if cls_id is None or sep_id is None:
            raise UsageError("the tokenizer has no [CLS] or [SEP] token", do="train one: pluri tokenizer FILES -o DIR")
        self._cls_id, self._sep_id = cls_id, sep_id
        kinds = config.denoise.kinds if config.denoise else ()
        self._specials = 3 if config.pair or "sentinel" in kinds else 2
        room = length - self._specials
        if room < 1:
            raise UsageError(f"a length of {length} leaves no room beside {self._specials} special tokens")
        documents = np.arange(store.num_documents) if documents is None else np.sort(documents)
        self._by_sentence = config.pair is not None or "permute" in kinds
        at_sentences = cut_at_sentences(store, documents, room) if self._by_sentence else None
        self._pieces = Cut(store, documents, room) if at_sentences is None else at_sentences
        self._masked = MaskedTokens(config, store.tokenizer) if config.masked else None
        self._denoising = Denoising(config.denoise, store.tokenizer) if config.denoise else None
        self._tails = Tails.of(store, at_sentences) if config.pair == "nsp" and at_sentences is not None else None
        self._complement = complement_ids(store.tokenizer) if config.reverse_complement else None
        self._store, self._pair, self._seed = store, config.pair, seed
        self.mean_length = self._mean_length()

    def __len__(self) -> int:
        return len(self._pieces)

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The sequences at `index` (n,), corrupted as in `epoch` (n,); each a pure function of its own two numbers."""
        keys = sequence_keys(self._seed, epoch, index)
        parts, sequence_labels = self._pieces.take(index), None
        if self._denoising is not None:
            return self._denoised(self._denoising, parts, mix(keys, _DENOISING))
        if self._pair == "sop":
            parts, sequence_labels = sop(self._store, parts, mix(keys, _PAIRING))
        elif self._tails is not None:
            parts, sequence_labels = nsp(self._store, parts, mix(keys, _PAIRING), self._tails)
        tokens = self._store.gather(parts.documents, parts.starts, parts.lengths)
        if self._complement is not None:
            ids, _ = strands_of(tokens.ids, tokens.offsets, mix(keys, _TURNING), self._complement)
            tokens = replace(tokens, ids=ids)
        examples = assemble(tokens, 1 if self._pair is None else 2, cls_id=self._cls_id, sep_id=self._sep_id)
        examples = replace(examples, sequence_labels=sequence_labels)
        return self._masked(examples, mix(keys, _MASKING)) if self._masked else examples

    def _denoised(self, denoising: Denoising, parts: Pieces, keys: Keys) -> Examples:
        sentences = Ragged(np.empty(0, np.int32), np.zeros(len(parts) + 1, np.int64))
        if self._by_sentence:
            sentences = self._store.sentence_starts(parts.documents, parts.starts, parts.lengths)
        return denoising(self._store.gather(parts.documents, parts.starts, parts.lengths), sentences, keys)

    def _mean_length(self) -> float:
        """Tokens an example; source and target together, of some spread evenly over all, since chance decides them."""
        if not len(self):
            return 0.0
        if self._denoising is None:
            return self._pieces.mean_length + self._specials
        some = np.unique(np.linspace(0, len(self) - 1, _SOME).astype(np.int64))
        made = self.examples(some, np.zeros_like(some))
        assert made.source is not None
        return float((made.lengths + made.source.lengths).mean())


def assemble(tokens: Ragged, parts: int, *, cls_id: int, sep_id: int) -> Examples:
    """Puts the special tokens in.

    tokens: `parts` (1 or 2) for each of n sequences, one after the other; an empty second part gets no [SEP].
    """
    sizes = tokens.lengths.reshape(-1, parts)  # (n, parts)
    taken = sizes + (sizes > 0)  # with the [SEP] that ends a part
    offsets = offsets_of(1 + taken.sum(1))
    seps = offsets[:-1, None] + np.cumsum(taken, 1)  # (n, parts); for an empty part that of the part before
    input_ids = np.empty(offsets[-1], np.int32)
    inner = np.ones(len(input_ids), bool)
    for places, special in ((offsets[:-1], cls_id), (seps, sep_id)):
        inner[places] = False
        input_ids[places] = special
    input_ids[inner] = tokens.ids
    types = None
    if parts == 2:
        types = np.zeros(len(input_ids), np.uint8)
        types[slices(seps[:, 0] + 1, taken[:, 1])] = 1
    return Examples(input_ids, offsets, token_type_ids=types)
