"""From one text to another: sources and their targets as training examples, and targets written by beam search.

Legend: n texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pluri.batches.example import Examples, answered
from pluri.batches.packing import pack
from pluri.config import Config
from pluri.errors import UsageError
from pluri.inference.search import Generation, LengthPenalty, Stopped, beam_search, sample
from pluri.inference.steps import CausalSteps
from pluri.models.heads import Model
from pluri.runtime import each_once
from pluri.tasks.encode import encoded_texts
from pluri.tasks.task import Labelled
from pluri.tokens.ragged import Ragged, offsets_of, slices
from pluri.tokens.tokenizer import Tokenizer

_CACHED_TOKENS = 16384  # of the rows that are written at the same time
_LONGER, _MORE = 2, 20  # a target has at most twice the tokens of its source, and 20 more


class Writing(Config):
    """How targets are written.

    beams: sequences that are followed at a time; 1 takes the likeliest token each time.
    length_penalty: the log-likelihood of a text is divided by its length to this power.
    max_new_tokens: of a target; by default twice as many as its source has, and 20 more.
    """

    beams: int = Field(default=4, ge=1)
    length_penalty: LengthPenalty = 1.0
    max_new_tokens: int | None = Field(default=None, ge=1)


class TextExamples:
    """Sources, and their targets where they are known, encoded once and held in memory: a Source for `Batches`.

    Both are [CLS] x [SEP]; the decoder begins with [SEP] (`answered`).
    length: the longest, special tokens included. truncate: cut longer texts at the end, and count those that lost
        something in `truncated`. False makes them a DataError.
    """

    def __init__(
        self, records: Sequence[Labelled], tokenizer: Tokenizer, *, length: int, truncate: bool = False
    ) -> None:
        if tokenizer.cls_id is None or tokenizer.sep_id is None:
            raise UsageError("the tokenizer has no [CLS] or [SEP] token", where="tokenizer", do="take another model")
        if length < 3:
            raise UsageError(f"no token fits into a model of length {length}", where="max_length")
        self.tokenizer, self.frame = tokenizer, (tokenizer.cls_id, tokenizer.sep_id)
        self.sources, self.truncated = self._framed(records, length, truncate)
        self.targets = None
        if all(record.labels for record in records):
            known = [replace(record, units=record.labels) for record in records]
            self.targets, cut = self._framed(known, length, truncate)
            self.truncated += cut

    def _framed(self, records: Sequence[Labelled], length: int, truncate: bool) -> tuple[Ragged, int]:
        pieces, cut = encoded_texts(records, self.tokenizer, length - 2, truncate)
        framed = [np.array([self.frame[0], *piece, self.frame[1]], np.int32) for piece in pieces]
        return Ragged(np.concatenate(framed), offsets_of(np.array([len(ids) for ids in framed], np.int64))), cut

    @property
    def mean_length(self) -> float:
        return sum(len(side.ids) for side in (self.sources, self.targets) if side is not None) / len(self)

    @property
    def longest(self) -> int:
        return max(int(side.lengths.max(initial=0)) for side in (self.sources, self.targets) if side is not None)

    def __len__(self) -> int:
        return len(self.sources)

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The examples at `index`; labelled data look the same in every epoch."""
        del epoch
        assert self.targets is not None
        sides = _taken(self.targets, index), _taken(self.sources, index)
        return answered(*sides, start=self.frame[1], unknown=self.tokenizer.unk_id)


def write_targets(model: Model, examples: TextExamples, settings: Writing) -> list[str]:
    """What the model makes of each source, in order; what a text becomes does not depend on the others."""
    device, start, end = next(model.parameters()).device, examples.frame[1], examples.frame[1]
    reads = model.config.max_length

    def written(group: NDArray[np.int64]) -> list[str]:
        sources = _taken(examples.sources, group)
        batch = pack(Examples(sources.ids, sources.offsets), reads, packed=False).to(device)
        most = [settings.max_new_tokens or _LONGER * int(n) + _MORE for n in sources.lengths]
        limits = [min(limit, reads - 1) for limit in most]
        steps = CausalSteps(model, [[start]] * len(group), max(limits), source=batch)
        how = Generation.parse(
            {"max_new_tokens": reads, "temperature": 0}
            | {"beams": settings.beams, "length_penalty": settings.length_penalty}
        )

        def ended(ids: list[int]) -> Stopped | None:
            return "end" if ids[-1] == end else None

        given = ([[start]] * len(group), limits, [ended] * len(group))
        if settings.beams > 1:
            found = [ids for ids, _ in beam_search(steps, *given, how)]
        else:
            found = [list[int]() for _ in group]
            for place, token, _ in sample(steps, *given, np.zeros(len(group), np.uint64), how):
                found[place].append(token)
        return [examples.tokenizer.decode(ids).strip() for ids in found]

    texts = [""] * len(examples)
    groups = list(_groups(examples.sources.lengths, settings.beams))
    for group, said in zip(groups, each_once(written, groups), strict=True):
        for place, text in zip(group.tolist(), said, strict=True):
            texts[place] = text
    return texts


def _groups(lengths: NDArray[np.int64], beams: int) -> Iterator[NDArray[np.int64]]:
    """Texts of like length, the longest first, as many at a time as there is room for."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        each = beams * ((1 + _LONGER) * int(lengths[order[0]]) + _MORE)
        count = max(1, _CACHED_TOKENS // each)
        yield order[:count]
        order = order[count:]


def _taken(texts: Ragged, index: NDArray[np.int64]) -> Ragged:
    lengths = texts.lengths[index]
    return Ragged(texts.ids[slices(texts.offsets[index], lengths)], offsets_of(lengths))
