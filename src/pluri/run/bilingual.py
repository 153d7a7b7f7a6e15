"""What is aligned: the text of two languages, a dictionary of both, and lines that are translations of each other."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError
from pluri.run.corpus import Corpus
from pluri.sequences.lines import lines
from pluri.tokens.dictionary import Dictionary, Entries
from pluri.tokens.words import split_words

FEWEST = 20
"""Pairs of a dictionary that must occur: with fewer the intervals say nothing."""

_MOST_SENTENCES = 2000  # parallel pairs that are judged, evenly over the files
_ENTRY = "\ue000"  # a private character, then the number of an entry of the dictionary: no word of a text


@dataclass(slots=True)
class Language:
    """The text of one language, and what of a dictionary stands in it.

    sentences, words: how many it has. counts: int64 (W,), how often each entry occurs. All are there after `read`.
    """

    name: str
    source: str
    entries: Entries
    sentences: int = 0
    words: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def texts(self) -> Corpus:
        """Its sentences: what a model reads at a time."""
        return Corpus.of(self.source, language="en")  # signs that end a sentence are of all languages

    @staticmethod
    def spelled(number: int) -> str:
        """How `read` writes an entry."""
        return f"{_ENTRY}{number}"

    def read(self, output: TextIO) -> None:
        """Counts, and writes a sentence a line for static vectors, each entry of the dictionary as one word."""
        counts = np.zeros(len(self.entries), np.int64)
        for text in self.texts:
            words, found = self._found(text)
            counts += np.bincount([number for *_, number in found], minlength=len(counts))
            output.write(" ".join(self._names(words, found)) + "\n")
            self.sentences, self.words = self.sentences + 1, self.words + len(words)
        output.flush()
        self.counts = counts

    def names(self, text: str) -> list[str]:
        """The words of a text, as `read` writes them."""
        return self._names(*self._found(text))

    def _found(self, text: str) -> tuple[list[str], list[tuple[int, int, int]]]:
        words = [word for word, _ in split_words(text)]
        return words, self.entries.find(words)

    def _names(self, words: Sequence[str], found: Sequence[tuple[int, int, int]]) -> list[str]:
        names = [word.lower() for word in words]
        for first, last, number in reversed(found):
            names[first:last] = [self.spelled(number)]
        return names


class Segmented:
    """What `Language.read` wrote, each sentence as its words, read anew each time that it is asked for."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __iter__(self) -> Iterator[list[str]]:
        with open(self.file, encoding="utf-8") as lines:
            for line in lines:
                yield line.split()


@dataclass(frozen=True, slots=True)
class Parallel:
    """texts: of each language, line by line the same. read: lines. left_out: those that say nothing, or again."""

    texts: tuple[list[str], list[str]]
    read: int
    left_out: int


def read_parallel(first: str, second: str) -> Parallel:
    """DataError: the files have not as many lines."""
    both = [[text.strip() for _, text in lines(file)] for file in (first, second)]
    if len(both[0]) != len(both[1]):
        what = f"{len(both[1]):,} lines, where {first} has {len(both[0]):,}"
        raise DataError(what, where=second, do="give files of which each line is a translation of the other's")
    seen: list[set[str]] = [set(), set()]
    kept = []
    for pair in zip(*both, strict=True):
        if all(pair) and not any(text in known for text, known in zip(pair, seen, strict=True)):
            kept.append(pair)
            for text, known in zip(pair, seen, strict=True):
                known.add(text)
    if not kept:
        raise DataError("no line has a text in both files", where=first, do="check the files")
    some = np.unique(np.linspace(0, len(kept) - 1, _MOST_SENTENCES).astype(int))
    texts = ([kept[i][0] for i in some], [kept[i][1] for i in some])
    return Parallel(texts, len(both[0]), len(both[0]) - len(kept))


def corpus_names(corpora: Sequence[str]) -> tuple[str, str]:
    """The files' names without suffixes, if they tell the languages apart."""
    first, second = (Path(source).name.partition(".")[0] for source in corpora)
    return (first, second) if first and second and first != second else ("first", "second")


def check_dictionary(dictionary: Dictionary, first: Language, second: Language) -> None:
    """DataError: its first column is of the second corpus, or too little of it occurs.

    The order is looked into only where most pairs do not occur.
    """
    straight = _occurring(dictionary, first, second)
    if 2 * straight >= len(dictionary.pairs) >= FEWEST:
        return
    turned = [Language(c.name, c.source, other.entries) for c, other in ((second, first), (first, second))]
    for corpus in turned:
        with tempfile.TemporaryFile("w", encoding="utf-8") as file:
            corpus.read(file)
    swapped = _occurring(dictionary, *turned)
    if swapped > straight:
        what = f"its columns are in the other order: {swapped:,} of {len(dictionary.pairs):,} pairs occur in"
        what += f" {second.source} and {first.source}, {straight:,} the other way round"
        raise DataError(what, where=dictionary.file, do=f"give --corpus {second.source} {first.source}")
    if straight < FEWEST:
        sizes = " and the ".join(f"{c.sentences:,} sentences of {c.source}" for c in (first, second))
        what = f"{straight:,} of its {len(dictionary.pairs):,} pairs occur in both the {sizes}"
        raise DataError(what, where=dictionary.file, do=f"give more text: at least {FEWEST} pairs must occur")


def _occurring(dictionary: Dictionary, first: Language, second: Language) -> int:
    """How many pairs have both sides in their corpora."""
    a, b = first.entries.numbers, second.entries.numbers
    return sum(bool(first.counts[a[x]] and second.counts[b[y]]) for x, y in dictionary.pairs)
