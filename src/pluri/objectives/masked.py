"""Masked tokens: which are covered, and by what (Devlin et al., 2019, section 3.1).

Legend: n sequences of T tokens in all; M ordinary tokens, that is, not special; U units, made of ordinary tokens,
each a token or a word; C covered units; P covered tokens; V vocabulary.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import IGNORE, Examples
from pluri.errors import UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.spans import SpanLengths, spans
from pluri.runtime import Keys, mix
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.tokenizer import Tokenizer

_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


class MaskedTokens:
    """The objective: covers tokens of a group of examples. A pure function of each sequence and its key.

    A token or word is covered with probability `mlm_probability`, whatever the others; spans are laid as `spans` says.
    A sequence with ordinary tokens always has one covered, so that each sequence teaches something. What replaces a
    token is drawn for each token, and once for all of a span (SpanBERT: Joshi et al., 2020, section 3.1).
    Special tokens are never covered and never a random replacement.
    """

    def __init__(self, config: ObjectiveConfig, tokenizer: Tokenizer) -> None:
        if tokenizer.mask_id is None:
            raise UsageError("the tokenizer has no [MASK] token", do="train one that has: pluri tokenizer FILES -o DIR")
        self._ordinary = np.ones(tokenizer.vocab_size, bool)  # (V,)
        self._ordinary[tokenizer.special_ids] = False
        self._ordinary_ids = np.flatnonzero(self._ordinary).astype(np.int32)
        if len(self._ordinary_ids) == 0:
            raise UsageError("the tokenizer has special tokens only", do="train it on more text")
        self._continues_word = tokenizer.continues_word  # (V,)
        self._mask_id = tokenizer.mask_id
        self._config = config
        self._span_lengths = SpanLengths.of(config) if config.unit == "span" else None

    def __call__(self, examples: Examples, keys: Keys) -> Examples:
        """The examples with corrupted ids, and labels where the true ids are to be predicted. keys: (n,)."""
        ids, offsets = examples.input_ids, examples.offsets
        ordinary = np.flatnonzero(self._ordinary[ids])  # (M,) places in the flat ids
        if self._config.unit == "token":
            chosen, draws = bernoulli(keys, np.searchsorted(ordinary, offsets), self._config.mlm_probability)
            covered = ordinary[chosen]  # (P,)
        else:
            covered, draws = self._words(ids, offsets, ordinary, keys)
        labels = np.full(len(ids), IGNORE, np.int32)
        labels[covered] = ids[covered]
        corrupted = ids.copy()
        corrupted[covered] = replacements(
            ids[covered],
            draws,
            self._ordinary_ids,
            self._mask_id,
            mask=self._config.mask,
            random=self._config.random,
        )
        return replace(examples, input_ids=corrupted, labels=labels)

    def _words(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], ordinary: NDArray[np.int64], keys: Keys
    ) -> tuple[NDArray[np.int64], Keys]:
        """Places of the tokens of covered words, or of covered spans of words, and a draw for each: (P,), (P,)."""
        begins = ~self._continues_word[ids[ordinary]]  # (M,)
        begins |= np.diff(ordinary, prepend=-2) != 1  # a special token ends a word
        inner = np.searchsorted(ordinary, offsets)  # (n + 1,) places in `ordinary`
        begins[inner[inner < len(begins)]] = True
        first = np.flatnonzero(begins)  # (U,) places in `ordinary`
        sizes = np.diff(first, append=len(ordinary))  # (U,) tokens of each word
        unit_offsets = np.searchsorted(first, inner)  # (n + 1,)
        if self._span_lengths is None:
            chosen, draws = bernoulli(keys, unit_offsets, self._config.mlm_probability)
            draws = mix(np.repeat(draws, sizes[chosen]), slices(np.zeros_like(chosen), sizes[chosen]))
        else:
            chosen, draws = spans(keys, unit_offsets, self._span_lengths, self._config.mlm_probability)
            draws = np.repeat(draws, sizes[chosen])
        return ordinary[slices(first[chosen], sizes[chosen])], draws


def replacements(
    ids: NDArray[np.int32], draws: Keys, ordinary_ids: NDArray[np.int32], mask_id: int, *, mask: float, random: float
) -> NDArray[np.int32]:
    """[MASK], a random ordinary token, or the token itself: one half of the draw decides, the other picks. (P,)."""
    share = (draws >> _HALF) * 2.0**-32  # [0, 1)
    nth = ((draws & _LOW) * np.uint64(len(ordinary_ids))) >> _HALF
    corrupted = np.where(share < mask, np.int32(mask_id), ids)
    at_random = (share >= mask) & (share < mask + random)
    corrupted[at_random] = ordinary_ids[nth[at_random]]
    return corrupted


def bernoulli(keys: Keys, unit_offsets: NDArray[np.int64], rate: float) -> tuple[NDArray[np.int64], Keys]:
    """Chooses units by their own draws, and the lowest draw of a sequence that would have none.

    keys: (n,). unit_offsets: (n + 1,), sequence i has the units unit_offsets[i] to unit_offsets[i + 1].
    Returns the chosen units (C,), ascending, and a fresh draw for each (C,).
    """
    counts = np.diff(unit_offsets)
    ordinal = np.arange(unit_offsets[-1]) - np.repeat(unit_offsets[:-1], counts)  # (U,)
    draws = mix(np.repeat(keys, counts), ordinal)  # (U,)
    chosen = np.flatnonzero(draws <= np.uint64(int(rate * 2.0**64) - 1))
    bare = (np.diff(np.searchsorted(chosen, unit_offsets)) == 0) & (counts > 0)  # (n,)
    if bare.any():
        units = slices(unit_offsets[:-1][bare], counts[bare])
        lowest = np.minimum.reduceat(draws[units], offsets_of(counts[bare])[:-1])
        chosen = np.sort(np.concatenate([chosen, units[draws[units] == np.repeat(lowest, counts[bare])]]))
    return chosen, mix(draws[chosen], 0)
