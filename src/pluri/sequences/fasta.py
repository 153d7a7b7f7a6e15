"""FASTA: sequences of letters under `>` headers (Lipman and Pearson 1985); FASTQ: reads with their qualities."""

import re
from collections.abc import Iterator
from dataclasses import replace

from pluri.errors import DataError
from pluri.sequences.files import opened
from pluri.sequences.lines import PIECE, pieces
from pluri.sequences.record import Record

_LETTERS = re.compile(r"[A-Za-z*.\-]*")


def read_fasta(file: str) -> Iterator[Record]:
    """One record a header: id = its first word, meta["description"] = the rest, text = its letters, case kept.

    A record longer than 16 MiB letters comes in consecutive records of the same id, marked as `continued`.
    DataError, with file:line: no header before the first letters, or a character that is no letter, `*`, `-` or `.`.
    """
    header: str | None = None
    where, letters, size, continued = file, list[str](), 0, False
    for number, line, _ in pieces(file):
        if line.startswith(">"):
            if header is not None and (letters or not continued):
                yield _record(header, letters, where, continued)
            header, where, letters, size, continued = line[1:], f"{file}:{number}", [], 0, False
            continue
        line = "".join(line.split())
        if header is None and line:
            raise DataError("no '>' header before the sequence", where=f"{file}:{number}", do="is this a FASTA file?")
        if not _LETTERS.fullmatch(line):
            bad = line[_LETTERS.match(line).end()]  # pyright: ignore[reportOptionalMemberAccess]
            raise DataError(f"{bad!r} is no sequence letter", where=f"{file}:{number}", do="remove it")
        letters += [line] * bool(line)
        size += len(line)
        if size >= PIECE and header is not None:
            yield _record(header, letters, where, continued)
            letters, size, continued = [], 0, True
    if header is None:
        raise DataError("the file has only blank lines", where=file, do="fill it or leave it out")
    if letters or not continued:
        yield _record(header, letters, where, continued)


def _record(header: str, letters: list[str], where: str, continued: bool) -> Record:
    name, _, description = header.strip().partition(" ")
    return Record("".join(letters), where, id=name or None, meta={"description": description}, continued=continued)


def read_fastq(file: str) -> Iterator[Record]:
    """One record a read, four lines each: id and description as in FASTA, meta["qualities"] = as many characters.

    DataError, with file:line: an empty file, a record that is cut short or has other qualities than letters.
    """
    import dnaio

    count = 0
    with opened(file) as stream:
        try:
            for read in dnaio.open(stream, fileformat="fastq"):  # pyright: ignore[reportAttributeAccessIssue]
                header = _record(read.name, [read.sequence], f"{file}:{4 * count + 1}", continued=False)
                yield replace(header, meta={**header.meta, "qualities": read.qualities})
                count += 1
        except dnaio.FileFormatError as error:
            line = (error.line or 0) + 1
            raise DataError(f"not valid FASTQ: {error.message}", where=f"{file}:{line}", do="mend the record") from None
    if not count:
        raise DataError("the file is empty", where=file, do="fill it or leave it out")
