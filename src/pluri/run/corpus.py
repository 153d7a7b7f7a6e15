"""Sentences of files and the words in them: what contextual and static vectors are both taken of."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from pluri.errors import DataError
from pluri.runtime import mix, uniform
from pluri.sequences import expand, read_records
from pluri.sequences.sentences import split_sentences
from pluri.tokens.words import split_words

Words = list[tuple[str, tuple[int, int]]]
"""The words of a sentence, each with its first character and the one after its last."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The sentences of some files, read anew each time that they are asked for.

    language: of the rules by which texts fall into sentences (ISO 639-1); None: every line is a sentence.
    segmented: words are what stands between blanks, instead of words and signs, in scripts without spaces characters.
    """

    files: list[str]
    language: str | None = None
    segmented: bool = False

    @classmethod
    def of(cls, sources: Iterable[str | Path] | str | Path, **settings: Any) -> "Corpus":
        return cls(expand(sources), **settings)

    def __iter__(self) -> Iterator[str]:
        for file in self.files:
            for record in read_records(file):
                for line in record.text.split("\n"):
                    parts = [line] if self.language is None else split_sentences(line, self.language)
                    yield from (part.strip() for part in parts if part.strip())

    def words(self, sentence: str) -> Words:
        if not self.segmented:
            return split_words(sentence)
        return [(found[0], found.span()) for found in re.finditer(r"\S+", sentence)]

    def tokens(self, sentence: str, word: str | None = None) -> list[str]:
        """Its words in lower case, each occurrence of `word` as one of them: what static vectors learn from."""
        words = self.words(sentence)
        names = [name.lower() for name, _ in words]
        for first, last in reversed(occurrences(word, sentence, words) if word else []):
            names[first:last] = [str(word).lower()]
        return names

    def read(self, sentence: str) -> str | Sequence[str]:
        """A sentence as `word_vectors` is to read it, so that its words are the same."""
        return sentence.split() if self.segmented else sentence


def occurrences(word: str, sentence: str, words: Words) -> list[tuple[int, int]]:
    """The runs of words, [first, last), that spell a word, in upper or lower case."""
    starts = {span[0]: i for i, (_, span) in enumerate(words)}
    ends = {span[1]: i + 1 for i, (_, span) in enumerate(words)}
    found = (match.span() for match in re.finditer(re.escape(word), sentence, re.IGNORECASE))
    return [(starts[begin], ends[end]) for begin, end in found if begin in starts and end in ends]


class Reservoir(Generic[T]):
    """At most so many of the items that are added, each as likely as any other; memory does not grow with the rest."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.key, self.count = most, mix(mix(np.uint64(0), seed), 0x5A11), 0
        self._kept: list[tuple[float, int, T]] = []

    def add(self, item: T) -> None:
        self._kept.append((float(uniform(self.key, self.count)), self.count, item))
        self.count += 1
        if len(self._kept) >= 2 * self.most + 1000:
            self._kept = sorted(self._kept)[: self.most]

    def items(self) -> list[T]:
        """In the order in which they were added."""
        return [item for _, _, item in sorted(sorted(self._kept)[: self.most], key=lambda kept: kept[1])]


def sampled(items: Iterable[T], most: int, seed: int) -> list[T]:
    """See Reservoir."""
    kept = Reservoir[T](most, seed)
    for item in items:
        kept.add(item)
    return kept.items()


def never_occurs(word: str, vocabulary: Counter[str], where: str) -> DataError:
    """What to say of a word that is not there, with the words that are spelled nearly so."""
    near = difflib.get_close_matches(word.lower(), {name.lower() for name in vocabulary}, n=5, cutoff=0.7)
    do = f"near it are {', '.join(near)}" if near else "nothing there is spelled nearly so: check the word and the file"
    return DataError(f"the word {word!r} never occurs", where=where, do=do)


def is_word(name: str) -> bool:
    """Whether it has a letter or a digit, as signs have not."""
    return any(character.isalnum() for character in name)
