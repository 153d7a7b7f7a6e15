"""Reading records of every format, streamed: memory never grows with the file."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pluri.errors import DataError, UsageError
from pluri.sequences.fasta import read_fasta, read_fastq
from pluri.sequences.files import checked_format, opened, seekable
from pluri.sequences.lines import PIECE, lines, pieces
from pluri.sequences.music import read_music
from pluri.sequences.record import Record

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n\s*\S")


def read_records(file: str, *, text_column: str = "text") -> Iterator[Record]:
    """The records of one file, by its suffix (see FORMATS in sequences/files.py), also .gz .zst.

    .txt: if its first 16 MiB have a blank line between lines, documents are the blocks between blank lines; otherwise
    each line is a document. FASTA and FASTQ: a record is a document; of music a score, see
    `read_music`. The others: a row is a document, its text in `text_column`.
    A document of .txt or a FASTA record beyond 16 MiB comes in several records, the later ones `continued`, so that
    memory stays bounded.
    DataError, with file:line: an empty, binary or damaged file, broken UTF-8 or JSON, a missing column, FASTA without
    a header.
    """
    kind = checked_format(file)
    if kind == "text":
        yield from _read_text(file)
    elif kind in SEQUENCES:
        yield from SEQUENCES[kind](file)
    else:
        for row, where in read_rows(file):
            yield _record(row, where, text_column)


def read_rows(file: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, "file:line") of a table: .jsonl, .csv, .tsv or .parquet. Values of CSV and TSV are strings.

    CSV may quote fields, also over several lines; in TSV a quote is an ordinary character.
    DataError, with file:line, as for read_records; UsageError if the file is no table.
    """
    kind = checked_format(file)
    if kind not in _TABLES:
        raise UsageError("not a table", where=file, do="name a .jsonl, .csv, .tsv or .parquet file")
    empty = True
    for row in _TABLES[kind](file):
        empty = False
        yield row
    if empty:
        raise DataError("the file has no rows", where=file, do="fill it or leave it out")


def _record(row: dict[str, Any], where: str, column: str) -> Record:
    text = row.get(column)
    if not isinstance(text, str):
        if column not in row:
            have = ", ".join(map(repr, row)) or "none"
            raise DataError(
                f"no column {column!r} (columns: {have})", where=where, do="say which it is with --text-column"
            )
        shown = "empty (null)" if text is None else f"not text: {text!r:.40}"
        raise DataError(f"column {column!r} is {shown}", where=where, do="every row needs its text")
    return Record(text, where, row_id(row), meta={key: value for key, value in row.items() if key != column})


def row_id(row: dict[str, Any]) -> str | None:
    """What a row calls itself in its column `id`; None if it does not."""
    return None if row.get("id") in (None, "") else str(row["id"])


def _read_text(file: str) -> Iterator[Record]:
    with opened(file) as stream:
        in_blocks = _BLANK_LINE.search(stream.read(PIECE).lstrip()) is not None
    parts: list[str] = []
    first, size, empty = 1, 0, True
    continued = inside = False  # a document, or a line, of which a part was read already
    for number, text, ends in pieces(file):
        blank = ends and not inside and not text.strip()
        if not blank:
            first = first if parts else number
            parts.append(text + "\n" * ends)
            size += len(text)
        over = blank if in_blocks else ends
        if parts and (over or not in_blocks or size >= PIECE):
            yield Record("".join(parts).removesuffix("\n"), f"{file}:{first}", continued=continued)
            parts, size, empty, continued = [], 0, False, True
        continued, inside = continued and not over, not ends
    if parts:
        yield Record("".join(parts).removesuffix("\n"), f"{file}:{first}", continued=continued)
    elif empty:
        raise DataError("the file has only blank lines", where=file, do="fill it or leave it out")


def _json_rows(file: str) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in lines(file):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            row = json.loads(line)
            if "\\ud" in line.lower():  # half a surrogate pair is valid JSON, but no text
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            whole = number == 1 and line.lstrip().startswith(("[", "{"))
            do = "write one JSON object a line (for a JSON array: jq -c '.[]')" if whole else "mend or remove the line"
            raise DataError(f"not valid JSON: {error}", where=where, do=do) from None
        if not isinstance(row, dict):
            raise DataError(
                f"a JSON {type(row).__name__}, not an object", where=where, do="write one JSON object a line"
            )
        yield row, where


def _delimited_rows(file: str) -> Iterator[tuple[dict[str, Any], str]]:
    tabs = file.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
    csv.field_size_limit(sys.maxsize)  # the module's limit of 128 KiB is shorter than many documents
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader((line + "\n" for _, line in lines(file)), **style)
    header: list[str] | None = None
    where = file
    try:
        where = f"{file}:1"
        for row in reader:
            if not row or (tabs and row == [""]):
                pass
            elif header is None:
                header = _header(row, where, tabs=tabs)
            elif len(row) != len(header):
                raise DataError(f"{len(row)} fields, but the header has {len(header)}", where=where, do="mend the row")
            else:
                yield dict(zip(header, row, strict=True)), where
            where = f"{file}:{reader.line_num + 1}"
    except csv.Error as error:
        raise DataError(
            f"not valid {'TSV' if tabs else 'CSV'}: {error}", where=where, do="mend the quotes or line ends"
        ) from None


def _header(row: list[str], where: str, *, tabs: bool) -> list[str]:
    if not tabs and len(row) == 1 and "\t" in row[0]:
        raise DataError("columns are separated by tabs", where=where, do="name the file .tsv")
    if not tabs and len(row) == 1 and ";" in row[0]:
        do = "save it with commas instead, or with tabs as .tsv"
        raise DataError("columns are separated by semicolons", where=where, do=do)
    twice = {name for name in row if row.count(name) > 1}
    if twice:
        raise DataError(f"columns named twice: {', '.join(sorted(twice))}", where=where, do="name each column once")
    return row


def _parquet_rows(file: str) -> Iterator[tuple[dict[str, Any], str]]:
    number = 0
    with seekable(file) as stream:
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{file}:{number}"
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"not valid Parquet: {error}", where=file, do="check that the file is whole") from None


SEQUENCES: dict[str, Callable[[str], Iterator[Record]]] = {
    "fasta": read_fasta,
    "fastq": read_fastq,
    "abc": partial(read_music, kind="abc"),
    "midi": partial(read_music, kind="midi"),
    "kern": partial(read_music, kind="kern"),
}
_TABLES = {"jsonl": _json_rows, "csv": _delimited_rows, "tsv": _delimited_rows, "parquet": _parquet_rows}
