"""From questions about documents to training examples: windows of a document, each behind its question.

Legend: n windows, G questions, Q distinct questions, M distinct documents, T tokens of the distinct documents.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pluri.batches.example import IGNORE, Examples
from pluri.config import Config
from pluri.errors import UsageError
from pluri.tasks.answer_metrics import Scoring
from pluri.tasks.task import Labelled, questions
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.template import PairTemplate, pair_template
from pluri.tokens.tokenizer import Tokenizer

_AT_ONCE = 1 << 20  # characters whose encodings are held at once


class Answering(Config):
    """How documents are cut into windows and answers are chosen. A model folder keeps it as answering.toml.

    The defaults are those of BERT's code for SQuAD, save that doc_stride is the step there.

    doc_stride: tokens of OVERLAP between neighbouring windows of a document (not the step from one to the next); at
        most half of what a window holds of the document.
    max_question_length: tokens; a longer question is cut, and counted; at most half a window.
    training_windows: "all" that a document is cut into; or "answer", one a question, with its answer in the middle: it
        teaches where to look (HW07's sample), and is here to be compared with.
    max_answer_length: tokens. n_best_size: how many answers to keep of each question.
    valid_spans: False takes the likeliest start and the likeliest end each by itself, and no answer where these cross.
    null_score_diff_threshold: how far "no answer" must score above the best span to be given; by default chosen on the
        validation data, or never given if none of their questions is unanswerable.
    scoring: "words" as SQuAD, "characters" as CMRC and DRCD; by default by the script of the answers.
    """

    doc_stride: int = Field(default=128, ge=0)
    max_question_length: int = Field(default=64, ge=1)
    training_windows: Literal["all", "answer"] = "all"
    max_answer_length: int = Field(default=30, ge=1)
    n_best_size: int = Field(default=20, ge=1)
    valid_spans: bool = True
    null_score_diff_threshold: float | None = None
    scoring: Scoring = "auto"


class AnswerExamples:
    """The windows of questions about documents: a Source for `Batches`. Every window is an example.

    Each document and each question is encoded once; windows are put together when they are asked for. The labelled
    positions of a window are its first, which stands for "no answer", and its part of the document.

    length: the longest window, special tokens included. token_types: segments that the model tells apart.
    targets: int64 (G, 2), the first and last + 1 character of each answer, -1 for none; None where nothing is known.
        A window that lacks a part of the answer points to its first position.
    learn: these are training data, for which settings.training_windows holds.

    owner: int64 (n,), the question of each window; windows of a question stand together, in order.
    first, size: int64 (n,), the part of the document in each window: tokens, counted over all documents.
    truncated: how many questions were cut.
    """

    def __init__(
        self,
        records: Sequence[Labelled],
        tokenizer: Tokenizer,
        *,
        length: int,
        settings: Answering | None = None,
        token_types: int = 2,
        targets: NDArray | None = None,
        learn: bool = False,
    ) -> None:
        if tokenizer.kmer:
            raise UsageError("overlapping k-mers are not one to a character", do="answer with a char tokenizer")
        self.settings, self.questions = settings or Answering(), questions(records)
        self.token_types = token_types
        template = pair_template(tokenizer)
        most = (length - template.num_special) // 2
        if most < 1:
            raise UsageError(f"no question and document fit into a model of length {length}", where="max_length")
        asked, question = _distinct([record.units[0] for record in self.questions])
        texts, self.document = _distinct([record.document for record in self.questions])
        question_ids, question_offsets, _ = _encoded(tokenizer, asked)
        ids, offsets, places = _encoded(tokenizer, texts, places=True)
        self.bases = offsets_of(np.array([len(text) for text in texts], np.int64))  # (M + 1,) characters
        self.begin, self.end = _owned(places, offsets, self.bases)

        long = np.diff(question_offsets)[question]  # (G,)
        kept = np.minimum(long, min(self.settings.max_question_length, most))
        self.truncated = int((kept < long).sum())
        room = length - template.num_special - kept
        if learn and targets is not None and self.settings.training_windows == "answer":
            self._cut_around(targets, offsets, room)
        else:
            self._cut(offsets, room)
        self._lay_out(template, question_ids, question_offsets[question], kept, ids)
        self.sequence_labels = self._labels(targets)

    @property
    def mean_length(self) -> float:
        return float(self.sizes.sum()) / len(self)

    @property
    def longest(self) -> int:
        return int(self.sizes.sum(1).max(initial=0))

    def __len__(self) -> int:
        return len(self.owner)

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The windows at `index`; labelled data look the same in every epoch."""
        del epoch
        flat = slices(self.starts[index].reshape(-1), self.sizes[index].reshape(-1))
        types = np.minimum(self.pool_types[flat], self.token_types - 1) if self.token_types > 1 else None
        return Examples(
            self.pool[flat],
            offsets_of(self.sizes[index].sum(1)),
            labels=self.pool_labels[flat],
            token_type_ids=types,
            sequence_labels=self.sequence_labels[index],
        )

    def tokens_of(self, targets: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last token that hold characters of the spans `targets` (G, 2) of the questions' documents.

        Both (G,), counted over all documents; meaningless where a span is empty or its document has no token.
        """
        base = self.bases[self.document]
        first = np.searchsorted(self.end, base + targets[:, 0], side="right")
        last = np.searchsorted(self.begin, base + targets[:, 1], side="left") - 1
        return first, last

    def characters_of(self, question: int, first: int, last: int) -> tuple[int, int]:
        """The characters of a document from token `first` to token `last`, without blanks and invisible ones around."""
        base = int(self.bases[self.document[question]])
        text = self.questions[question].document
        start, end = int(self.begin[first]) - base, int(self.end[last]) - base
        while start < end and _invisible(text[start]):
            start += 1
        while start < end and _invisible(text[end - 1]):
            end -= 1
        return start, end

    def _cut(self, offsets: NDArray[np.int64], room: NDArray[np.int64]) -> None:
        """Windows of `room` (G,) document tokens, the last one shorter; a document without tokens has an empty one."""
        tokens = np.diff(offsets)[self.document]  # (G,)
        step = room - np.minimum(self.settings.doc_stride, room // 2)
        counts = 1 + -(-np.maximum(tokens - room, 0) // step)
        self.owner = np.repeat(np.arange(len(counts)), counts)
        before = slices(np.zeros_like(counts), counts) * step[self.owner]
        self.first = offsets[self.document][self.owner] + before
        self.size = np.minimum(room[self.owner], tokens[self.owner] - before)

    def _cut_around(self, targets: NDArray, offsets: NDArray[np.int64], room: NDArray[np.int64]) -> None:
        """One window for each question, with the answer in the middle as far as the document reaches."""
        begins, tokens = offsets[:-1][self.document], np.diff(offsets)[self.document]  # (G,)
        first, last = self.tokens_of(targets)
        middle = np.where(targets[:, 0] >= 0, (first + last) // 2 - begins, 0)
        self.owner = np.arange(len(room))
        self.first = begins + np.clip(middle - room // 2, 0, np.maximum(tokens - room, 0))
        self.size = np.minimum(room, tokens)

    def _lay_out(
        self,
        template: PairTemplate,
        question_ids: NDArray[np.int32],
        question_starts: NDArray[np.int64],
        question_sizes: NDArray[np.int64],
        document_ids: NDArray[np.int32],
    ) -> None:
        """One pool of ids, of which every window is five slices. question_starts, question_sizes: (G,)."""
        specials = (template.before, template.between, template.after)
        marks = offsets_of(np.array([len(part) for part in specials])).tolist()
        documents = marks[3] + len(question_ids)  # where in the pool they begin
        self.pool = np.concatenate([*specials, question_ids, document_ids], dtype=np.int32)
        segments = [(template.first, question_ids), (template.second, document_ids)]
        of_texts = [np.full(len(part), segment, np.uint8) for segment, part in segments]
        self.pool_types = np.concatenate([template.types, *of_texts])
        self.pool_labels = np.full(len(self.pool), IGNORE, np.int32)
        self.pool_labels[0] = self.pool_labels[documents:] = 0
        starts, sizes = np.empty((2, len(self.owner), 5), np.int64)
        for part, slot in enumerate((0, 2, 4)):
            starts[:, slot], sizes[:, slot] = marks[part], marks[part + 1] - marks[part]
        starts[:, 1], sizes[:, 1] = (marks[3] + question_starts)[self.owner], question_sizes[self.owner]
        starts[:, 3], sizes[:, 3] = documents + self.first, self.size
        self.starts, self.sizes = starts, sizes  # (n, 5)

    def _labels(self, targets: NDArray | None) -> NDArray[np.int64]:
        """(n, 2): 0 for the first position, 1 + i for token i of the window's part of the document."""
        labels = np.zeros((len(self.owner), 2), np.int64)
        if targets is None:
            return labels
        first, last = (side[self.owner] for side in self.tokens_of(targets))
        answered = (targets[:, 0] >= 0)[self.owner]
        inside = answered & (first <= last) & (first >= self.first) & (last < self.first + self.size)
        labels[inside, 0] = (first - self.first)[inside] + 1
        labels[inside, 1] = (last - self.first)[inside] + 1
        return labels


def _distinct(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Each text once, and which of them stands at each place."""
    known: dict[str, int] = {}
    places = [known.setdefault(text, len(known)) for text in texts]
    return list(known), np.array(places, np.int64)


def _encoded(
    tokenizer: Tokenizer, texts: Sequence[str], *, places: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Flat ids, offsets of the texts in them, and, if asked for, the (start, end) characters of each token."""
    ids, characters, lengths = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.int64)], []
    for group in _groups(texts):
        for encoding in tokenizer.encode_batch(group):
            ids.append(np.array(encoding.ids, np.int32))
            lengths.append(len(ids[-1]))
            if places:
                characters.append(np.array(encoding.offsets, np.int64).reshape(-1, 2))
    return np.concatenate(ids), offsets_of(np.array(lengths, np.int64)), np.concatenate(characters)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size > _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _owned(
    places: NDArray[np.int64], offsets: NDArray[np.int64], bases: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The characters (begin, end) of each token (T,), counted over all documents; both ascend, and none is missing.

    What a tokenizer drops (a blank, an accent, a mark that cannot be seen) belongs to the token before it, or at the
    start of a document to its first: so an answer keeps its accents.
    """
    lengths = np.diff(offsets)
    base, limit = (np.repeat(side, lengths) for side in (bases[:-1], bases[1:]))
    begin = np.minimum.accumulate((places[:, 0] + base)[::-1])[::-1].copy()
    filled = lengths > 0
    begin[offsets[:-1][filled]] = bases[:-1][filled]
    following = np.append(begin[1:], 0)
    following[offsets[1:][filled] - 1] = limit[offsets[1:][filled] - 1]
    return begin, np.maximum(np.maximum.accumulate(places[:, 1] + base), following)


def _invisible(character: str) -> bool:
    """Blanks, controls and format characters: what an answer does not begin or end with."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
