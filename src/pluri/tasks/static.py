"""Static word vectors (word2vec, GloVe): a word's one vector wherever it stands, from a text file.

Legend: W words that have a vector, D width, U units, N sequences.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError
from pluri.sequences.lines import lines
from pluri.tasks.pair import compared
from pluri.tasks.task import Labelled, Task
from pluri.tokens.words import split_words

_AT_ONCE = 512  # sequences whose features are held at once
_HEADER = re.compile(r"(\d+) (\d+)")
_NUMBER = re.compile(r"-?\d+\.\d*(e-?\d+)?")


@dataclass(frozen=True, slots=True, eq=False)
class StaticVectors:
    """rows: of each word. vectors: float32 (W + 1, D), row 0 all 0, for words that have none."""

    rows: dict[str, int]
    vectors: NDArray[np.float32]

    def of(self, words: Sequence[str]) -> NDArray[np.int64]:
        """The rows of words, as they are written or else in lower case."""
        return np.array([self.rows.get(word) or self.rows.get(word.lower(), 0) for word in words], np.int64)

    def coverage(self, task: Task, records: Sequence[Labelled]) -> float:
        """The share of the words that have a vector."""
        found = np.concatenate([self.of(words_of(task, record)) > 0 for record in records])
        return float(found.mean()) if len(found) else 0.0

    def features(self, task: Task, records: Sequence[Labelled]) -> Iterator[NDArray[np.float32]]:
        """Some sequences at a time: the mean over the words of each, (N, D), of pairs `compared`, (N, 4D); of tags each
        word's vector and those of the words before and after it, (U, 3D)."""
        for start in range(0, len(records), _AT_ONCE):
            some = records[start : start + _AT_ONCE]
            if task.kind == "tag":
                yield np.concatenate([self._tokens(self.of(record.units)) for record in some])
            else:
                sides = zip(*(record.units for record in some), strict=True)
                means = [np.concatenate([self.mean(_words(text)) for text in side]) for side in sides]
                yield compared(*means) if task.kind == "pair" else means[0]

    def mean(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(1, D): the mean over the words that have a vector; 0 where none has."""
        rows = self.of(words)
        known = rows[rows > 0]
        return self.vectors[known if len(known) else [0]].mean(0, keepdims=True)

    def _tokens(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        around = self.vectors[np.pad(rows, 1)]
        return np.concatenate([around[1:-1], around[:-2], around[2:]], axis=1)


def words_of(task: Task, record: Labelled) -> Sequence[str]:
    """The tokens of a tagged sentence; of texts their words, signs, and in scripts without spaces characters."""
    if task.kind == "tag":
        return record.units
    return [word for text in record.units for word in _words(text)]


def _words(text: str) -> list[str]:
    return [word for word, _ in split_words(text)]


def read_vectors(file: str, words: Iterable[str]) -> StaticVectors:
    """The vectors of these words, as written and in lower case, from word2vec's or GloVe's text (also .gz, .zst).

    A line is a word and its D numbers, parted by single blanks; a first line "W D" may announce them. Words may hold
    blanks, as some of GloVe's do; of a word that comes twice the first vector counts. What is not wanted is not kept.
    DataError: a line with too few or too many numbers, or one that is none; more or fewer words than announced; not one
    of the words.
    """
    wanted = set(words)
    wanted |= {word.lower() for word in wanted}
    rows: dict[str, int] = {}
    vectors: list[NDArray[np.float32]] = []
    width, announced, count = 0, None, 0
    for number, line in lines(file):
        line = line.rstrip(" ")
        if number == 1 and (header := _HEADER.fullmatch(line)):
            announced, width = int(header[1]), int(header[2])
            continue
        width = width or line.count(" ")
        count += 1
        word = _word(line, width, f"{file}:{number}")
        if word in wanted and word not in rows:
            vectors.append(_vector(line.rsplit(" ", width)[1:], f"{file}:{number}"))
            rows[word] = len(vectors)
    if announced not in (None, count):
        do = "check that the file is whole"
        raise DataError(f"{count} words, where the first line announces {announced}", where=file, do=do)
    if not rows:
        raise DataError("has a vector for no word of the data", where=file, do="take vectors of the data's language")
    return StaticVectors(rows, np.stack([np.zeros(width, np.float32), *vectors]))


def _word(line: str, width: int, where: str) -> str:
    """What stands before the `width` numbers of a line."""
    blanks = line.count(" ")
    if blanks == width > 0:
        return line[: line.index(" ")]
    word = line.rsplit(" ", width)[0]
    if width == 0 or blanks < width or _NUMBER.fullmatch(word[word.rfind(" ") + 1 :]):
        raise DataError(f"{blanks} numbers, where {width or 'some'} are expected", where=where, do="mend the line")
    return word


def _vector(numbers: Sequence[str], where: str) -> NDArray[np.float32]:
    try:
        vector = np.array(numbers, np.float32)
    except ValueError as error:
        raise DataError(f"not a vector: {error}", where=where, do="mend the line") from None
    if not np.isfinite(vector).all():
        raise DataError("not a vector: a number is not finite", where=where, do="mend or remove the line")
    return vector
