"""From labelled sequences to training examples: special tokens, a label on each word's first piece, windows.

Legend: n examples, T tokens in all, U units, W words, G sequences.
"""

import copy
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import IGNORE, Examples
from pluri.errors import DataError, UsageError
from pluri.runtime import sequence_keys
from pluri.tasks.long import check_overlap, token_windows, word_windows
from pluri.tasks.pair import FIRST, SECOND, encode_pairs
from pluri.tasks.task import Labelled, Task
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.strands import complement_ids, strands_of
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.words import spaced


class TaskExamples:
    """The examples of a task, encoded once and held in memory: a Source for `Batches`.

    length: the longest example, special tokens included. A tagged sentence beyond it becomes several examples, cut
        between words, so that every token gets its label; each window sees only itself.
    overlap: read what is longer in windows that share so many tokens; each learns, and gets its vote, by itself. Of
        tagged sentences None is 0.
    truncate: cut longer texts at the end, of a pair the longer one first, and count them in `truncated`. False makes
        them a DataError.
    token_types: segments that the model tells apart; of pairs.
    targets: the class or the number of each unit, (U,); None where nothing is known: all are 0 then.
    strands: a seed, by which half of the examples, other ones in each epoch, are those of the other strand of DNA.

    pair_sizes: int64 (n, 5), the tokens in each part of a pair (see `EncodedPairs`); None of other tasks.
    units: int64 (G,), how many labels each sequence takes.
    votes: int64, the unit that each example, or each labelled position, speaks of; None: each of its own, in order.
    """

    def __init__(
        self,
        records: Sequence[Labelled],
        task: Task,
        tokenizer: Tokenizer,
        *,
        length: int,
        truncate: bool = False,
        overlap: int | None = None,
        token_types: int = 2,
        targets: NDArray | None = None,
        strands: int | None = None,
    ) -> None:
        before = np.array([i for i in (tokenizer.cls_id,) if i is not None], np.int32)
        after = np.array([i for i in (tokenizer.sep_id,) if i is not None], np.int32)
        room = length - len(before) - len(after)
        if room < 1:
            raise UsageError(f"no token fits into a model of length {length}", where="max_length")
        self.truncated, self.token_type_ids, self.pair_sizes = 0, None, None
        labelled, votes = None, np.arange(len(records))
        self._strands, self._ends = strands, (len(before), len(after))
        self._complement = None if strands is None else complement_ids(tokenizer)
        shared = check_overlap(overlap, room)
        if task.kind == "tag" and (tokenizer.kmer or 1) > 1:
            do = "tag with the kinds dna, protein or char"
            raise UsageError("overlapping k-mers are not one to a token", do=do)
        if tokenizer.alphabet:
            for record in records:
                tokenizer.alphabet.check("".join(record.units), record.where)
        if task.kind == "tag":
            pieces, labelled, votes = _words(records, tokenizer, room, shared)
        elif task.kind == "pair":
            pairs = encode_pairs(records, tokenizer, length, truncate=truncate)
            pieces, self.truncated, self.pair_sizes = pairs.pieces, pairs.truncated, pairs.sizes
            before, after = before[:0], after[:0]  # a pair comes with its own special tokens
            if token_types > 1:
                self.token_type_ids = np.minimum(pairs.types, token_types - 1)
        elif overlap is None:
            pieces, self.truncated = encoded_texts(records, tokenizer, room, truncate)
        else:
            whole, _ = encoded_texts(records, tokenizer, sys.maxsize, False)
            windows = [token_windows(len(ids), room, shared) for ids in whole]
            pieces = [ids[start:end] for ids, cuts in zip(whole, windows, strict=True) for start, end in cuts]
            votes = np.repeat(votes, [len(cuts) for cuts in windows])
        lengths = np.array([len(p) for p in pieces], np.int64)
        self.offsets = offsets_of(lengths + len(before) + len(after))
        parts = [part for piece in pieces for part in (before, piece, after)]
        self.input_ids = np.concatenate(parts, dtype=np.int32)
        self.units = task.num_labels(records)
        wanted = (np.zeros(self.units.sum()) if targets is None else targets)[votes]
        self.votes = None if np.array_equal(votes, np.arange(self.units.sum())) else votes
        self.labels, self.sequence_labels = None, None
        if labelled is not None:
            self.labels = np.full(len(self.input_ids), IGNORE, np.int32)
            starts = np.repeat(self.offsets[:-1] + len(before), [len(at) for at in labelled])
            self.labels[starts + np.concatenate(labelled)] = wanted
        elif task.regression:
            self.sequence_labels = wanted.astype(np.float32)
        else:
            self.sequence_labels = wanted.astype(np.int64)

    @property
    def mean_length(self) -> float:
        return len(self.input_ids) / len(self)

    @property
    def longest(self) -> int:
        return int(np.diff(self.offsets).max(initial=0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def with_numbers(self, numbers: NDArray) -> "TaskExamples":
        """The same sequences with other numbers to predict, (U,)."""
        other = copy.copy(self)
        other.sequence_labels = (numbers if self.votes is None else numbers[self.votes]).astype(np.float32)
        return other

    def alone(self) -> "TaskExamples":
        """The sequences of n pairs, each by itself, without labels: [CLS] first [SEP], [CLS] second [SEP], ... (2n)."""
        assert self.pair_sizes is not None
        other, sizes = copy.copy(self), self.pair_sizes.reshape(-1)  # (5n,)
        starts = offsets_of(sizes)[:-1]
        parts = (5 * np.arange(len(self))[:, None] + (0, FIRST, 4, 0, SECOND, 4)).reshape(-1)
        other.input_ids = self.input_ids[slices(starts[parts], sizes[parts])]
        other.offsets = offsets_of(sizes[parts].reshape(-1, 3).sum(1))
        other.token_type_ids = other.sequence_labels = other.pair_sizes = None
        return other

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The examples at `index`; labelled data look the same in every epoch, but for their strand."""
        lengths = np.diff(self.offsets)[index]
        offsets, flat = offsets_of(lengths), slices(self.offsets[index], lengths)
        ids = self.input_ids[flat]
        if self._complement is not None and self._strands is not None:
            before, after = self._ends
            keys = sequence_keys(self._strands, epoch, index)
            ids, source = strands_of(ids, offsets, keys, self._complement, before=before, after=after)
            flat = flat[source]  # a letter takes its label along
        return Examples(
            ids,
            offsets,
            labels=None if self.labels is None else self.labels[flat],
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[flat],
            sequence_labels=None if self.sequence_labels is None else self.sequence_labels[index],
        )


def encoded_texts(
    records: Sequence[Labelled], tokenizer: Tokenizer, room: int, truncate: bool
) -> tuple[list[NDArray[np.int32]], int]:
    """The ids of each text, and how many texts were cut."""
    pieces, cut = [], 0
    for record, encoding in zip(records, tokenizer.encode_batch([r.units[0] for r in records]), strict=True):
        if len(encoding.ids) > room:
            cut += 1
            if not truncate:
                raise DataError(
                    f"a text of {len(encoding.ids)} tokens, the model reads {room}",
                    where=record.where,
                    do="shorten it, or cut such texts at the end: --truncate (pluri finetune: --set truncate=true); "
                    "for labels and numbers also --set window_overlap=32, which reads windows",
                )
        pieces.append(np.array(encoding.ids[:room], np.int32))
    return pieces, cut


def _words(
    records: Sequence[Labelled], tokenizer: Tokenizer, room: int, overlap: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int64]], NDArray[np.int64]]:
    """The ids of each window, the places in it where its words' first pieces stand, and which units these are."""
    flat = [text for record in records for text in spaced(record.units)]
    words = zip(tokenizer.encode_batch(flat), flat, strict=True)
    pieces, labelled, units, done = [], [], [], 0
    for record in records:
        known: list[list[int]] = []
        firsts: list[int] = []
        for _ in record.units:
            encoding, text = next(words)
            word = encoding.ids[:room] or [_unknown(tokenizer, text, record.where)]
            first = 0
            if text.startswith(" "):  # the label stands on the word's own first piece, not on the space before it
                first = next((i for i, (_, end) in enumerate(encoding.offsets[:room]) if end > 1), 0)
            known.append(word)
            firsts.append(first)
        sizes = [len(word) for word in known]
        for start, end in word_windows(sizes, room, overlap):
            pieces.append(np.array([index for word in known[start:end] for index in word], np.int32))
            begins = offsets_of(np.array(sizes[start:end], np.int64))[:-1]
            labelled.append(begins + np.array(firsts[start:end], np.int64))
            units.append(np.arange(done + start, done + end))
        done += len(known)
    return pieces, labelled, np.concatenate(units)


def _unknown(tokenizer: Tokenizer, text: str, where: str) -> int:
    if tokenizer.unk_id is None:
        raise DataError(f"the token {text!r} has no piece in this tokenizer", where=where, do="remove or replace it")
    return tokenizer.unk_id
