"""How likely a model finds each of several answers: what follows a prompt, or what fills the blank in a text.

A causal model gives the sum of the log-probabilities of an answer's tokens, each in view of all before it (Brown et al.
2020, section 2.4). A masked model reads as many masks as the answer has tokens, and fills them from left to right: each
token in view of the text, of those before it, and of the masks after it (the within-word rule of Kauf and Ivanova 2023,
over the whole answer). So one token is what `fill` would give it.

Legend: n passes, P read positions, C choices, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import Examples
from pluri.batches.packing import MULTIPLE, pack
from pluri.errors import CheckpointError, DataError, UsageError
from pluri.models.cache import Cache
from pluri.models.heads import Model
from pluri.runtime import keep_freed_memory, pick_device
from pluri.tokens.ragged import offsets_of
from pluri.tokens.template import before_text
from pluri.tokens.tokenizer import Tokenizer

Ids = NDArray[np.int64]

_BATCH_TOKENS = 4096
_LOGITS = 16_000_000  # held at once: 64 MB in fp32
_CACHED = 100_000_000  # keys and values held at once: 400 MB in fp32
_SHORTEST_PREFIX, _SAVED = 32, 1024  # tokens of a beginning that is worth computing once, and tokens saved by it


class Query(NamedTuple):
    """A prompt and the answers to choose from, or none of these. before, after: the text around an answer."""

    before: str
    choices: Sequence[str]
    after: str = ""


class Pass(NamedTuple):
    """One sequence to read. targets: the tokens (P,) whose log-probabilities are read at its positions `at` (P,)."""

    ids: Ids
    at: Ids
    targets: Ids


class Read(NamedTuple):
    """Of each read position (P,): its pass, the log-probability of its target, and whether that is the likeliest."""

    owner: Ids
    values: NDArray[np.float64]
    best: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query in tokens: the passes of each of its choices."""

    passes: list[list[Pass]]

    @property
    def longest(self) -> int:
        return max(len(each.ids) for choice in self.passes for each in choice)


class Prompter:
    """A model that is asked, and never changed: its weights take no gradient.

    UsageError: the model predicts no tokens, or only beside an encoder; or its tokenizer is one of overlapping k-mers.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self.head = next((head for head in ("next", "masked") if head in model.heads), "")
        if not self.head:
            do = "give a model as pretraining left it"
            raise UsageError("this model does not predict tokens", where="model", do=do)
        if self.head == "next" and not model.config.causal:
            do = "fine-tune it (--task translate), or give a causal or a masked model"
            raise UsageError("a decoder beside an encoder goes on with no prompt", where="model", do=do)
        if tokenizer.kmer:
            raise UsageError("prompts need text, not overlapping k-mers", where="tokenizer", do="take another model")
        if self.head == "masked" and tokenizer.mask_id is None:
            raise UsageError("this tokenizer has no mask token", where="tokenizer", do="use one made for masked tokens")
        keep_freed_memory()
        self.tokenizer, self.before = tokenizer, before_text(tokenizer)
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
        tokens = (encoding.ids for encoding in self.tokenizer.encode_batch(texts))
        found = []
        for query in queries:
            own = [next(tokens) for _ in range(1 + len(query.choices))]
            prompt, *wholes = (np.array([*self._start(own[0]), *ids], np.int64) for ids in own)
            begin = min((_shared(prompt, whole) for whole in wholes), default=0)
            for said, whole in zip(query.choices, wholes, strict=True):
                if len(whole) == begin:
                    raise _silent(said)
            passes = [[continuation(whole, begin)] for whole in wholes]
            found.append(Encoded(passes or [[Pass(prompt, prompt[:0], prompt[:0])]]))
        return found

    def _start(self, prompt: Sequence[int]) -> list[int]:
        """What stands before a prompt: what the tokenizer itself puts there; an empty one begins a document."""
        if prompt or self.tokenizer.cls_id is None:
            return self.before
        return self.before or [self.tokenizer.cls_id]

    def _blanks(self, queries: Sequence[Query]) -> list[Encoded]:
        tokenizer = self.tokenizer
        before = np.array(self.before, np.int64)
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
                    raise _silent(said)
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
        for owner, values, best in self._parts(groups, passes):
            np.add.at(sums, owner, values)
            np.logical_and.at(greedy, owner, best)
        if not np.isfinite(sums).all():
            what = "the model's log-probabilities are not finite"
            raise CheckpointError(what, where="model", do="its weights are damaged, or too large")
        return sums, greedy

    def _parts(self, groups: Sequence[list[int]], passes: Sequence[Pass]) -> Iterator[Read]:
        """All sequences, in batches. Where a causal model reads many with the same beginning, it reads that once."""
        alike: dict[bytes, list[list[int]]] = {}
        for group in groups:
            alike.setdefault(passes[group[0]].ids[:_SHORTEST_PREFIX].tobytes(), []).append(group)
        rest: list[list[int]] = []
        for family in alike.values():
            shared = _prefix([passes[i] for group in family for i in group]) if self.head == "next" else 0
            if shared >= _SHORTEST_PREFIX and shared * (len(family) - 1) >= _SAVED:
                yield from self._behind(family, passes, shared)
            else:
                rest += family
        for batch in _batches(rest, passes):
            packed = self._laid(batch, passes)
            yield self._read(packed, self.model.hidden(packed), batch, passes)

    def _behind(self, groups: Sequence[list[int]], passes: Sequence[Pass], shared: int) -> Iterator[Read]:
        """Batches that go on from the keys and values of a beginning that is computed once."""
        config, first = self.model.config, passes[groups[0][0]].ids
        longest = max(len(passes[group[0]].ids) for group in groups)
        cache = Cache(config, -(-longest // MULTIPLE) * MULTIPLE + MULTIPLE)
        self.model.body(self._laid([[0]], [Pass(first[:shared], first[:0], first[:0])], packed=False), cache=cache)
        rows = max(1, _CACHED // (2 * config.num_layers * config.hidden_size * longest))
        for batch in _batches(groups, passes, begin=shared, rows=rows):
            cache.cut(shared)
            cache.select(torch.zeros(len(batch), dtype=torch.int64, device=pick_device()))
            laid = self._laid(batch, passes, begin=shared, packed=False)
            yield self._read(laid, self.model.body(laid, cache=cache), batch, passes, begin=shared)

    def _laid(
        self, groups: Sequence[list[int]], passes: Sequence[Pass], *, begin: int = 0, packed: bool = True
    ) -> Batch:
        """The sequences of some groups, from their token `begin` on."""
        sequences = [passes[group[0]].ids[begin:] for group in groups]
        lengths = np.array([len(ids) for ids in sequences])
        examples = Examples(np.concatenate(sequences).astype(np.int32), offsets_of(lengths))
        batch = pack(examples, int(lengths.max()), packed=packed).to(pick_device())
        return replace(batch, position_ids=batch.position_ids + begin)

    def _read(
        self, batch: Batch, hidden: Tensor, groups: Sequence[list[int]], passes: Sequence[Pass], *, begin: int = 0
    ) -> Read:
        """begin: the token with which the sequences of the batch begin."""
        members = [(start, i) for start, group in zip(batch.starts.tolist(), groups, strict=True) for i in group]
        at = torch.from_numpy(np.concatenate([start - begin + passes[i].at for start, i in members]))
        targets = torch.from_numpy(np.concatenate([passes[i].targets for _, i in members]))
        owner = np.repeat([i for _, i in members], [len(passes[i].at) for _, i in members])
        device = hidden.device
        rows = max(1, _LOGITS // self.model.config.vocab_size)
        parts: list[tuple[Tensor, Tensor]] = []
        for here, wanted in zip(at.to(device).split(rows), targets.to(device).split(rows), strict=True):
            logits = self.model.outputs(self.head, hidden, batch, here).float()  # (rows, V)
            values = logits.log_softmax(-1).gather(1, wanted[:, None]).squeeze(1)
            parts.append((values, logits.argmax(-1) == wanted))
        values, best = (torch.cat(side).cpu().numpy() for side in zip(*parts, strict=True))
        return Read(owner, values.astype(np.float64), best)


def continuation(ids: Ids, begin: int) -> Pass:
    """What a causal model is asked for the tokens from `begin` on. UsageError if nothing stands before them."""
    if begin < 1:
        do = "begin the template with some words"
        raise UsageError("an empty prompt, and the tokenizer has no token to begin with", where="template", do=do)
    return Pass(ids[:-1], np.arange(begin - 1, len(ids) - 1), ids[begin:])


def _silent(said: str) -> DataError:
    return DataError(f"the choice {said!r} has no token of its own", where="choices", do="say it in other words")


def _shared(first: Ids, second: Ids) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = min(len(first), len(second))
    different = np.flatnonzero(first[:n] != second[:n])
    return int(different[0]) if len(different) else n


def _prefix(passes: Sequence[Pass]) -> int:
    """How many tokens all passes begin with alike, before any that they read."""
    first = passes[0].ids
    return min(min(_shared(first, each.ids), int(each.at[0])) for each in passes)


def _batches(
    groups: Sequence[list[int]], passes: Sequence[Pass], *, begin: int = 0, rows: int = _BATCH_TOKENS
) -> Iterator[list[list[int]]]:
    """Runs of groups, at most `rows` and of about _BATCH_TOKENS tokens from `begin` on, at least one group each."""
    batch: list[list[int]] = []
    size = 0
    for group in groups:
        length = len(passes[group[0]].ids) - begin
        if batch and (size + length > _BATCH_TOKENS or len(batch) == rows):
            yield batch
            batch, size = [], 0
        batch.append(group)
        size += length
    if batch:
        yield batch
