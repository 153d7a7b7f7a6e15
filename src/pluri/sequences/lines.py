"""Lines of UTF-8 files, streamed in bounded memory, with their numbers."""

import codecs
from collections.abc import Iterator

from pluri.errors import DataError
from pluri.sequences.files import opened

PIECE = 1 << 24
"""Bytes of the longest piece of a line that is held at once."""

MAX_LINE = 1 << 28
"""Bytes of the longest line that a format made of whole lines (JSON, CSV) may have."""


def pieces(file: str) -> Iterator[tuple[int, str, bool]]:
    """(line number, text without the line end, whether the line ends here); long lines come in pieces of PIECE bytes.

    A byte-order mark and CRLF are taken off.
    DataError: the file is empty, binary (NUL bytes), or not UTF-8; `where` is file:line.
    """
    number, kept, empty = 1, b"", True
    with opened(file) as stream:
        while chunk := stream.readline(PIECE):
            empty = False
            ends = chunk.endswith(b"\n")
            line = kept + chunk
            cut = len(line) if ends or len(chunk) < PIECE else _last_character(line)
            line, kept = line[:cut], line[cut:]
            if number == 1:
                line = _without_mark(line, file)
            yield number, _decoded(line.rstrip(b"\r\n") if ends else line, f"{file}:{number}"), ends
            number += ends
        if kept:
            yield number, _decoded(kept, f"{file}:{number}"), True
    if empty:
        raise DataError("the file is empty", where=file, do="fill it or leave it out")


def lines(file: str) -> Iterator[tuple[int, str]]:
    """(line number, line without its end). DataError as for pieces, or a line is longer than MAX_LINE."""
    parts: list[str] = []
    number = 0
    for number, text, ends in pieces(file):
        if ends and not parts:
            yield number, text
            continue
        parts.append(text)
        if len(parts) * PIECE > MAX_LINE:
            raise DataError(f"a line longer than {MAX_LINE >> 20} MiB", where=f"{file}:{number}", do="check the format")
        if ends:
            yield number, "".join(parts)
            parts = []
    if parts:
        yield number, "".join(parts)


def _last_character(line: bytes) -> int:
    """Where the last UTF-8 character of a cut line begins, so that no character is split."""
    cut = len(line) - 1
    while cut > 1 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _without_mark(line: bytes, file: str) -> bytes:
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("UTF-16 text", where=f"{file}:1", do="convert it: iconv -f UTF-16 -t UTF-8")
    return line.removeprefix(codecs.BOM_UTF8)


def _decoded(line: bytes, where: str) -> str:
    if b"\0" in line:
        raise DataError("a binary file (it has NUL bytes)", where=where, do="only text can be read here")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = f"byte 0x{line[error.start]:02x} at position {error.start} of the line is not UTF-8"
        raise DataError(shown, where=where, do="convert it, for example: iconv -f LATIN1 -t UTF-8") from None
