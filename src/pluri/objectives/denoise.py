"""Denoising: a sequence is broken, an encoder reads what is left, and a decoder writes what was there.

Legend: n sequences of T tokens in all; M ordinary tokens, that is, not special; V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import Examples, answered
from pluri.errors import UsageError
from pluri.objectives.config import Denoise
from pluri.objectives.corruptions import (
    infilled,
    one_span,
    partition_spans,
    permuted,
    poisson_spans,
    rotated,
    without,
)
from pluri.objectives.masked import bernoulli, replacements
from pluri.runtime import Keys, mix
from pluri.tokens.ragged import Ragged, offsets_of, slices
from pluri.tokens.tokenizer import Tokenizer

RATES = {"mask": 0.15, "delete": 0.15, "infill": 0.3, "mass": 0.5, "sentinel": 0.15}
"""Shares of tokens as published: BERT's, also for deletion, where BART's paper gives none; BART's section 4.1; MASS's
section 3.2; T5's section 3.1.4."""

_ORDER = ("permute", "rotate", "infill", "mask", "delete")
"""Sentences change places while their borders are known; tokens are covered before others are removed."""

_MASS_MASK, _MASS_RANDOM = 0.8, 0.1
"""What stands where MASS's span was: [MASK], a random token, or else the token itself (MASS, section 4.1)."""


class Denoising:
    """The objective: sequences to examples with a source. A pure function of each sequence and its key.

    The source is [CLS] x [SEP] with x broken, and the target the whole [CLS] x [SEP]. But MASS's target is the span
    alone, at the positions that it has in the whole; and T5's the sentinels, each with the tokens that it stands for,
    one more at the end, and [SEP].
    UsageError if the tokenizer lacks a token that this needs.
    """

    def __init__(self, config: Denoise, tokenizer: Tokenizer) -> None:
        if tokenizer.cls_id is None or tokenizer.sep_id is None or tokenizer.mask_id is None:
            do = "train one that has: pluri tokenizer FILES -o DIR"
            raise UsageError("the tokenizer has no [CLS], [SEP] or [MASK] token", do=do)
        self._cls_id, self._sep_id, self._mask_id = tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        self._unk_id = tokenizer.unk_id
        self._ordinary = np.ones(tokenizer.vocab_size, bool)  # (V,)
        self._ordinary[tokenizer.special_ids] = False
        self._ordinary_ids = np.flatnonzero(self._ordinary).astype(np.int32)
        self._sentinel_ids = tokenizer.sentinel_ids
        if "sentinel" in config.kinds and len(self._sentinel_ids) < 2:
            do = "train one that has: pluri tokenizer FILES --sentinels 100 -o DIR"
            raise UsageError("the tokenizer has no sentinel tokens (<extra_id_0>, <extra_id_1> ...)", do=do)
        self._config = config

    def __call__(self, tokens: Ragged, sentences: Ragged, keys: Keys) -> Examples:
        """The examples. keys: (n,).

        tokens: n sequences without special tokens around them. sentences: where theirs begin, positions > 0.
        """
        if "mass" in self._config.kinds:
            return self._mass(tokens, keys)
        if "sentinel" in self._config.kinds:
            return self._sentinels(tokens, keys)
        source = tokens
        for number, kind in enumerate(_ORDER):
            if kind in self._config.kinds:
                source = self._broken(kind, source, sentences, mix(keys, number))
        return self._answered(self._framed(tokens), source)

    def _broken(self, kind: str, tokens: Ragged, sentences: Ragged, keys: Keys) -> Ragged:
        if kind == "permute":
            return permuted(tokens, sentences, keys)
        if kind == "rotate":
            return rotated(tokens, keys)
        ordinary, inner = self._places(tokens)
        if kind == "infill":
            spans = poisson_spans(keys, np.diff(inner), self._rate(kind), self._config.span)
            return infilled(tokens, ordinary, spans, self._mask_id)
        chosen, _ = bernoulli(keys, inner, self._rate(kind))
        if kind == "delete":
            return without(tokens, ordinary[chosen])
        ids = tokens.ids.copy()
        ids[ordinary[chosen]] = self._mask_id
        return Ragged(ids, tokens.offsets)

    def _mass(self, tokens: Ragged, keys: Keys) -> Examples:
        ordinary, inner = self._places(tokens)
        span = one_span(keys, np.diff(inner), self._rate("mass"))  # one of each sequence, empty where it has no token
        covered = ordinary[span.covered]
        draws = mix(np.repeat(mix(keys, 1), span.sizes), slices(np.zeros_like(span.sizes), span.sizes))
        ids = tokens.ids.copy()
        ids[covered] = replacements(
            ids[covered], draws, self._ordinary_ids, self._mask_id, mask=_MASS_MASK, random=_MASS_RANDOM
        )
        first = np.zeros(len(tokens), np.int64)
        some = span.sizes > 0
        first[some] = 1 + ordinary[span.starts[some]] - tokens.offsets[:-1][some]  # behind [CLS]
        answer = Ragged(tokens.ids[covered], offsets_of(span.sizes))
        return self._answered(answer, Ragged(ids, tokens.offsets), first)

    def _sentinels(self, tokens: Ragged, keys: Keys) -> Examples:
        ordinary, inner = self._places(tokens)
        most = len(self._sentinel_ids) - 1  # one ends the target
        spans = partition_spans(keys, np.diff(inner), self._rate("sentinel"), self._config.span, most)
        blocks = spans.counts + 1  # of each sequence's target: a sentinel and its span, at last a sentinel and [SEP]
        ends = np.cumsum(blocks) - 1
        is_span = np.ones(blocks.sum(), bool)
        is_span[ends] = False
        sentinels = self._sentinel_ids[slices(np.zeros_like(blocks), blocks)]
        sizes = np.ones(len(is_span), np.int64)
        sizes[is_span] = spans.sizes
        begins = offsets_of(1 + sizes)
        answer = np.empty(begins[-1], np.int32)
        answer[begins[:-1]] = sentinels
        answer[slices(begins[:-1][is_span] + 1, spans.sizes)] = tokens.ids[ordinary[spans.covered]]
        answer[begins[ends] + 1] = self._sep_id

        ids = tokens.ids.copy()
        ids[ordinary[spans.starts]] = sentinels[is_span]
        removed = ordinary[slices(spans.starts + 1, spans.sizes - 1)]
        return self._answered(Ragged(answer, begins[offsets_of(blocks)]), without(Ragged(ids, tokens.offsets), removed))

    def _rate(self, kind: str) -> float:
        return RATES[kind] if self._config.rate is None else self._config.rate

    def _places(self, tokens: Ragged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the ordinary tokens (M,), and where those of each sequence begin among them (n + 1,)."""
        ordinary = np.flatnonzero(self._ordinary[tokens.ids])
        return ordinary, np.searchsorted(ordinary, tokens.offsets)

    def _framed(self, tokens: Ragged) -> Ragged:
        """[CLS] x [SEP]."""
        offsets = tokens.offsets + 2 * np.arange(len(tokens.offsets))
        ids = np.empty(offsets[-1], np.int32)
        ids[offsets[:-1]], ids[offsets[1:] - 1] = self._cls_id, self._sep_id
        ids[slices(offsets[:-1] + 1, tokens.lengths)] = tokens.ids
        return Ragged(ids, offsets)

    def _answered(self, answer: Ragged, source: Ragged, first: NDArray[np.int64] | None = None) -> Examples:
        return answered(answer, self._framed(source), start=self._sep_id, unknown=self._unk_id, first_positions=first)
