"""FASTA: sequences of letters under `>` headers (Lipman and Pearson 1985)."""

import re
from collections.abc import Iterator

from pluri.errors import DataError
from pluri.sequences.lines import PIECE, pieces
from pluri.sequences.record import Record

_LETTERS = re.compile(r"[A-Za-z*.\-]*")


def read_fasta(file: str) -> Iterator[Record]:
    """One record a header: id = its first word, meta["description"] = the rest, text = its letters, case kept.

    A record longer than 16 MiB letters comes in consecutive records of the same id.
    DataError, with file:line: no header before the first letters, or a character that is no letter, `*`, `-` or `.`.
    """
    header: str | None = None
    where, letters, size = file, [], 0
    for number, line, _ in pieces(file):
        if line.startswith(">"):
            if header is not None:
                yield _record(header, letters, where)
            header, where, letters, size = line[1:], f"{file}:{number}", [], 0
            continue
        line = "".join(line.split())
        if header is None and line:
            raise DataError("no '>' header before the sequence", where=f"{file}:{number}", do="is this a FASTA file?")
        if not _LETTERS.fullmatch(line):
            bad = line[_LETTERS.match(line).end()]  # pyright: ignore[reportOptionalMemberAccess]
            raise DataError(f"{bad!r} is no sequence letter", where=f"{file}:{number}", do="remove it")
        letters.append(line)
        size += len(line)
        if size >= PIECE and header is not None:
            yield _record(header, letters, where)
            letters, size = [], 0
    if header is None:
        raise DataError("the file has only blank lines", where=file, do="fill it or leave it out")
    yield _record(header, letters, where)


def _record(header: str, letters: list[str], where: str) -> Record:
    name, _, description = header.strip().partition(" ")
    return Record("".join(letters), where, id=name or None, meta={"description": description})
