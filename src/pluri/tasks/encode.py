"""From labelled sequences to training examples: special tokens, a label on each word's first piece, windows.

Legend: n examples, T tokens in all, U units, W words, G sequences.
"""

import copy
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pluri.batches.example import IGNORE, Examples
from pluri.errors import DataError, UsageError
from pluri.tasks.pair import FIRST, SECOND, encode_pairs
from pluri.tasks.task import Labelled, Task
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.tokenizer import Tokenizer

# Scripts that put no spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, and from the CJK radicals on
# everything but Hangul (Unicode 16, Blocks.txt).
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\ua95f\ua980-\uabff\uf900-\ufaff\ufe30-\uffef\U00020000-\U0003ffff]"
)


class TaskExamples:
    """The examples of a task, encoded once and held in memory: a Source for `Batches`.

    length: the longest example, special tokens included. A tagged sentence beyond it becomes several examples, cut
        between words, so that every token gets its label; each window sees only itself.
    truncate: cut longer texts at the end, of a pair the longer one first, and count them in `truncated`. False makes
        them a DataError.
    token_types: segments that the model tells apart; of pairs.
    targets: the class or the number of each unit, (U,); None where nothing is known: all are 0 then.

    pair_sizes: int64 (n, 5), the tokens in each part of a pair (see `EncodedPairs`); None of other tasks.
    units: int64 (G,), how many labels each sequence takes.
    """

    def __init__(
        self,
        records: Sequence[Labelled],
        task: Task,
        tokenizer: Tokenizer,
        *,
        length: int,
        truncate: bool = False,
        token_types: int = 2,
        targets: NDArray | None = None,
    ) -> None:
        before = np.array([i for i in (tokenizer.cls_id,) if i is not None], np.int32)
        after = np.array([i for i in (tokenizer.sep_id,) if i is not None], np.int32)
        room = length - len(before) - len(after)
        if room < 1:
            raise UsageError(f"no token fits into a model of length {length}", where="max_length")
        self.truncated, self.token_type_ids, self.pair_sizes = 0, None, None
        labelled = None
        if tokenizer.alphabet:
            for record in records:
                tokenizer.alphabet.check("".join(record.units), record.where)
        if task.kind == "tag":
            if (tokenizer.kmer or 1) > 1:
                do = "tag with the kinds dna, protein or char"
                raise UsageError("overlapping k-mers are not one to a token", do=do)
            pieces, labelled = _words(records, tokenizer, room)
        elif task.kind == "pair":
            pairs = encode_pairs(records, tokenizer, length, truncate=truncate)
            pieces, self.truncated, self.pair_sizes = pairs.pieces, pairs.truncated, pairs.sizes
            before, after = before[:0], after[:0]  # a pair comes with its own special tokens
            if token_types > 1:
                self.token_type_ids = np.minimum(pairs.types, token_types - 1)
        else:
            pieces, self.truncated = encoded_texts(records, tokenizer, room, truncate)
        lengths = np.array([len(p) for p in pieces], np.int64)
        self.offsets = offsets_of(lengths + len(before) + len(after))
        parts = [part for piece in pieces for part in (before, piece, after)]
        self.input_ids = np.concatenate(parts, dtype=np.int32)
        self.units = task.num_labels(records)
        wanted = np.zeros(self.units.sum()) if targets is None else targets
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
        """The same sequences with other numbers to predict, (n,)."""
        other = copy.copy(self)
        other.sequence_labels = numbers.astype(np.float32)
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
        """The examples at `index`; labelled data look the same in every epoch."""
        del epoch
        lengths = np.diff(self.offsets)[index]
        flat = slices(self.offsets[index], lengths)
        return Examples(
            self.input_ids[flat],
            offsets_of(lengths),
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
                    do="shorten it, or cut such texts at the end: --truncate (pluri finetune: --set truncate=true)",
                )
        pieces.append(np.array(encoding.ids[:room], np.int32))
    return pieces, cut


def _words(
    records: Sequence[Labelled], tokenizer: Tokenizer, room: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int64]]]:
    """The ids of each window, and the places in it where its words' first pieces stand."""
    flat = [text for record in records for text in spaced(record.units)]
    words = zip(tokenizer.encode_batch(flat), flat, strict=True)
    pieces, labelled = [], []
    for record in records:
        ids: list[int] = []
        at: list[int] = []
        for _ in record.units:
            encoding, text = next(words)
            word = encoding.ids[:room] or [_unknown(tokenizer, text, record.where)]
            first = 0
            if text.startswith(" "):  # the label stands on the word's own first piece, not on the space before it
                first = next((i for i, (_, end) in enumerate(encoding.offsets[:room]) if end > 1), 0)
            if len(ids) + len(word) > room:
                pieces.append(np.array(ids, np.int32))
                labelled.append(np.array(at, np.int64))
                ids, at = [], []
            at.append(len(ids) + first)
            ids += word
        pieces.append(np.array(ids, np.int32))
        labelled.append(np.array(at, np.int64))
    return pieces, labelled


def _unknown(tokenizer: Tokenizer, text: str, where: str) -> int:
    if tokenizer.unk_id is None:
        raise DataError(f"the token {text!r} has no piece in this tokenizer", where=where, do="remove or replace it")
    return tokenizer.unk_id


def spaced(words: Sequence[str]) -> Iterator[str]:
    """Each word as it stands in running text: a space before it, but not at the start or in scripts without spaces.

    Tokenizers that mark spaces (byte-level BPE) know a word by the space before it.
    """
    before = ""
    for word in words:
        apart = before and word and not UNSPACED.match(before[-1]) and not UNSPACED.match(word[0])
        yield f" {word}" if apart else word
        before = word
