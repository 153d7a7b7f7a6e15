"""Bilingual dictionaries: pairs of words or phrases, and where these stand in running text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pluri.errors import DataError
from pluri.sequences.lines import lines
from pluri.tokens.words import spaced, split_words

Entry = tuple[str, ...]
"""A word or phrase in the words, or in scripts without spaces the characters, that running text falls into."""


@dataclass(slots=True)
class Dictionary:
    """The distinct pairs of a file, in its order.

    read: lines with something in them. repeated: pairs that stood there before. left_out: a line for each that is not
    two words or phrases: file:line and what it says. read = pairs + repeated + left_out.
    """

    file: str
    pairs: list[tuple[Entry, Entry]] = field(default_factory=list)
    read: int = 0
    repeated: int = 0
    left_out: list[str] = field(default_factory=list)

    @property
    def phrases(self) -> int:
        """Pairs of which a side has a blank: several words where words have spaces between them."""
        return sum(any(" " in written(entry) for entry in pair) for pair in self.pairs)


def read_dictionary(file: str) -> Dictionary:
    """Two columns: parted by a tab, then each may be a phrase, or by a blank, then each is one word. Also .gz, .zst.

    DataError: not one line has two columns, or the file cannot be read.
    """
    found = Dictionary(file)
    seen: set[tuple[Entry, Entry]] = set()
    for number, line in lines(file):
        if not line.strip():
            continue
        found.read += 1
        cells = line.split("\t") if "\t" in line else line.split()
        first, second, *_ = [_entry(cell) for cell in cells] + [(), ()]
        if len(cells) != 2 or not (first and second):
            found.left_out.append(f"{file}:{number}: {line.strip()!r:.60} is not two columns")
        elif (first, second) in seen:
            found.repeated += 1
        else:
            seen.add((first, second))
            found.pairs.append((first, second))
    if not found.pairs:
        where, _, what = found.left_out[0].partition(": ") if found.left_out else (file, "", "has only blank lines")
        raise DataError(what, where=where, do="write a word, a tab and its translation a line")
    return found


def _entry(text: str) -> Entry:
    return tuple(word for word, _ in split_words(text))


def written(entry: Entry) -> str:
    """An entry as it is read: with spaces, but not between characters of scripts without spaces."""
    return "".join(spaced(entry))


class Entries:
    """Words and phrases of one language, each with its number, to be found in running text."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.numbers = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        self._longest: dict[str, int] = {}  # of the entries that begin with this word
        for entry in self.numbers:
            self._longest[entry[0]] = max(self._longest.get(entry[0], 0), len(entry))

    def __len__(self) -> int:
        return len(self.numbers)

    def find(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        """(first word, the one after the last, number) of each entry in a text, the longest first, from left to right.

        So 中国 is not also 中. A word counts as it is written if the dictionary has it so, else in lower case.
        """
        found = []
        at = 0
        while at < len(words):
            word = words[at]
            longest = max(self._longest.get(word, 0), self._longest.get(word.lower(), 0))
            for size in range(min(longest, len(words) - at), 0, -1):
                entry = tuple(words[at : at + size])
                number = self.numbers.get(entry)
                if number is None:
                    number = self.numbers.get(tuple(each.lower() for each in entry))
                if number is not None:
                    found.append((at, at + size, number))
                    at += size - 1
                    break
            at += 1
        return found
