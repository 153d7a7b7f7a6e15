"""How likely a model finds each of several answers: what follows a prompt, or what fills the blank in a text.

A causal model gives the sum of the log-probabilities of an answer's tokens, each in view of all before it (Brown et al.
2020, section 2.4). A masked model reads as many masks as the answer has tokens, and fills them from left to right: each
token in view of the text, of those before it, and of the masks after it (the within-word rule of Kauf and Ivanova 2023,
over the whole answer). So one token is what `fill` would give it.

Legend: n passes, P read positions, C choices, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.errors import CheckpointError, DataError, UsageError
from pluri.models.heads import Model
from pluri.runtime import keep_freed_memory, pick_device
from pluri.tokens.ragged import offsets_of
from pluri.tokens.tokenizer import Tokenizer

Ids = NDArray[np.int64]

_BATCH_TOKENS = 4096
_LOGITS = 16_000_000  # held at once: 64 MB in fp32


class Query(NamedTuple):
    """A prompt and the answers to choose from. before, after: the text around an answer."""

    before: str
    choices: Sequence[str]
    after: str = ""


class Pass(NamedTuple):
    """One sequence to read. targets: the tokens (P,) whose log-probabilities are read at its positions `at` (P,)."""

    ids: Ids
    at: Ids
    targets: Ids


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query in tokens: the passes of each of its choices."""

    passes: list[list[Pass]]

    @property
    def longest(self) -> int:
        return max(len(each.ids) for choice in self.passes for each in choice)


class Prompter:
    """A model that is asked, and never changed: its weights take no gradient.

    UsageError: the model predicts no tokens, or its tokenizer is one of overlapping k-mers.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self.head = next((head for head in ("next", "masked") if head in model.heads), "")
        if not self.head:
            do = "give a model as pretraining left it"
            raise UsageError("this model does not predict tokens", where="model", do=do)
        if tokenizer.kmer:
            raise UsageError("prompts need text, not overlapping k-mers", where="tokenizer", do="take another model")
        if self.head == "masked" and tokenizer.mask_id is None:
            raise UsageError("this tokenizer has no mask token", where="tokenizer", do="use one made for masked tokens")
        keep_freed_memory()
        self.tokenizer = tokenizer
        self.model = model.to(pick_device()).eval().requires_grad_(False)

    def encode(self, queries: Sequence[Query]) -> list[Encoded]:
        """Each query in tokens, however long. UsageError: an empty prompt, and no token that could begin it."""
        return (self._continuations if self.head == "next" else self._blanks)(queries)

    def scores(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float64]]:
        """The log-probability of each choice, (C,) for each query, in nats."""
        flat = [each for query in encoded for choice in query.passes for each in choice]
        found = iter(self.read(flat)[0].tolist())
        return [np.array([sum(next(found) for _ in choice) for choice in query.passes]) for query in encoded]

    def _continuations(self, queries: Sequence[Query]) -> list[Encoded]:
        """Scored is what the prompt's own tokens do not share with all of its continuations.

        A byte-level tokenizer may join the end of a prompt ("Answer: ") to the beginning of a choice; then these tokens
        are scored with it, of every choice alike.
        """
        texts = [text for q in queries for text in (q.before, *(q.before + said + q.after for said in q.choices))]
        tokens = iter(self._ids(texts))
        found = []
        for query in queries:
            prompt, *wholes = (next(tokens) for _ in range(1 + len(query.choices)))
            begin = min(_shared(prompt, whole) for whole in wholes)
            found.append(Encoded([[continuation(whole, begin)] for whole in wholes]))
        return found

    def _ids(self, texts: Sequence[str]) -> Iterator[Ids]:
        """As the model meets texts: after the token that begins one."""
        start = [] if self.tokenizer.cls_id is None else [self.tokenizer.cls_id]
        for encoding in self.tokenizer.encode_batch(texts):
            yield np.array(start + encoding.ids, np.int64)

    def _blanks(self, queries: Sequence[Query]) -> list[Encoded]:
        tokenizer = self.tokenizer
        before = np.array([i for i in (tokenizer.cls_id,) if i is not None], np.int64)
        after = np.array([i for i in (tokenizer.sep_id,) if i is not None], np.int64)
        texts = [q.before + said + q.after for q in queries for said in q.choices]
        encodings = iter(tokenizer.encode_batch(texts))
        found = []
        for query in queries:
            passes = []
            for said in query.choices:
                encoding = next(encodings)
                spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
                begin, end = len(query.before), len(query.before) + len(said)
                blank = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > begin)) + len(before)
                if not len(blank):
                    raise DataError(f"the choice {said!r} has no token", where="choices", do="say it in other words")
                ids = np.concatenate([before, np.array(encoding.ids, np.int64), after])
                passes.append(list(self._masked(ids, blank)))
            found.append(Encoded(passes))
        return found

    def _masked(self, ids: Ids, blank: Ids) -> Iterator[Pass]:
        assert self.tokenizer.mask_id is not None
        for i in range(len(blank)):
            covered = ids.copy()
            covered[blank[i:]] = self.tokenizer.mask_id
            yield Pass(covered, blank[i : i + 1], ids[blank[i : i + 1]])

    @torch.inference_mode()
    def read(self, passes: Sequence[Pass]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of each pass, the sum of the log-probabilities of its targets, and whether all are the likeliest: (n,), (n,).

        What several passes read in the same sequence is computed once.
        CheckpointError: the model gives no numbers.
        """
        sums, greedy = np.zeros(len(passes)), np.ones(len(passes), bool)
        same: dict[bytes, list[int]] = {}
        for i, each in enumerate(passes):
            same.setdefault(each.ids.tobytes(), []).append(i)
        groups = sorted(same.values(), key=lambda group: -len(passes[group[0]].ids))
        for batch in _batches(groups, passes):
            owner, values, best = self._read_batch(batch, passes)
            np.add.at(sums, owner, values)
            np.logical_and.at(greedy, owner, best)
        if not np.isfinite(sums).all():
            what = "the model's log-probabilities are not finite"
            raise CheckpointError(what, where="model", do="its weights are damaged, or too large")
        return sums, greedy

    def _read_batch(
        self, groups: Sequence[Sequence[int]], passes: Sequence[Pass]
    ) -> tuple[Ids, NDArray[np.float64], NDArray[np.bool_]]:
        """Of each read position: its pass, the log-probability of its target, and whether that is the likeliest."""
        sequences = [passes[group[0]].ids for group in groups]
        lengths = np.array([len(ids) for ids in sequences])
        batch = pack(Examples(np.concatenate(sequences).astype(np.int32), offsets_of(lengths)), int(lengths.max()))
        starts = batch.starts.tolist()
        members = [(start, i) for start, group in zip(starts, groups, strict=True) for i in group]
        at = torch.from_numpy(np.concatenate([start + passes[i].at for start, i in members]))
        targets = torch.from_numpy(np.concatenate([passes[i].targets for _, i in members]))
        owner = np.repeat([i for _, i in members], [len(passes[i].at) for _, i in members])
        batch, device = batch.to(pick_device()), pick_device()
        hidden = self.model.hidden(batch)
        rows = max(1, _LOGITS // self.model.config.vocab_size)
        parts: list[tuple[Tensor, Tensor]] = []
        for here, wanted in zip(at.to(device).split(rows), targets.to(device).split(rows), strict=True):
            logits = self.model.outputs(self.head, hidden, batch, here).float()  # (rows, V)
            values = logits.log_softmax(-1).gather(1, wanted[:, None]).squeeze(1)
            parts.append((values, logits.argmax(-1) == wanted))
        values, best = (torch.cat(side).cpu().numpy() for side in zip(*parts, strict=True))
        return owner, values.astype(np.float64), best


def continuation(ids: Ids, begin: int) -> Pass:
    """What a causal model is asked for the tokens from `begin` on. UsageError if nothing stands before them."""
    if begin < 1:
        do = "begin the template with some words"
        raise UsageError("an empty prompt, and the tokenizer has no token to begin with", where="template", do=do)
    return Pass(ids[:-1], np.arange(begin - 1, len(ids) - 1), ids[begin:])


def _shared(first: Ids, second: Ids) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = min(len(first), len(second))
    different = np.flatnonzero(first[:n] != second[:n])
    return int(different[0]) if len(different) else n


def _batches(groups: Sequence[list[int]], passes: Sequence[Pass]) -> Iterator[list[list[int]]]:
    """Runs of groups of about _BATCH_TOKENS tokens, at least one group each."""
    batch: list[list[int]] = []
    size = 0
    for group in groups:
        length = len(passes[group[0]].ids)
        if batch and size + length > _BATCH_TOKENS:
            yield batch
            batch, size = [], 0
        batch.append(group)
        size += length
    if batch:
        yield batch
