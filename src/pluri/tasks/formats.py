"""Reading labelled files: tables for classes and numbers, of one sequence or two, CoNLL and JSON lines for tagging.

Every complaint is one line that names file:line.
"""

from collections.abc import Iterator
from typing import Any

from pluri.errors import DataError, UsageError
from pluri.sequences.files import COMPRESSIONS, format_of
from pluri.sequences.lines import lines
from pluri.sequences.readers import SEQUENCES, read_records, read_rows, row_id
from pluri.tasks.questions import read_questions
from pluri.tasks.task import Kind, Labelled

PAIR = ("sentence1", "sentence2")
"""What the two sequences of a pair are called, in tables and in predictions."""

TRANSLATION = ("source", "target")
"""What a text and its translation are called there."""

_CONLLU_COLUMNS = 10
_FORM, _UPOS = 1, 3


def read_labelled(
    file: str,
    kind: Kind,
    *,
    labels: bool = True,
    text_column: str = "text",
    pair_columns: tuple[str, str] = PAIR,
    label_column: str = "label",
) -> list[Labelled]:
    """All labelled sequences of a file, by its suffix (also .gz, .zst).

    classify: csv, tsv, jsonl or parquet with the columns `text_column` and `label_column`.
    pair: the same with `pair_columns` and `label_column`. translate: with the columns source and target.
    tag: .conllu (FORM and UPOS); jsonl with lists `tokens` and `tags`; else CoNLL columns: the first is the token, the
        last its tag, a blank line ends a sentence.
    answer: see `read_questions`, which also tells what became of the answers.
    labels: False reads what has no labels yet, and leaves out those that are there; classify and translate then
        also read .txt, a text a line, and files of sequences, such as FASTA.
    A row's column `id`, the name of a FASTA record: kept as its id.
    DataError: empty file, missing column or label, row of another width than the first, tokens without their tags.
    UsageError: a column is named that the task does not read.
    """
    if kind == "answer":
        return list(read_questions(file, answers=labels).records)
    if kind == "pair" and text_column != "text":
        do = "name both columns by pair_columns"
        raise UsageError(f"a pair has two texts, not one in {text_column!r}", where="text_column", do=do)
    if kind == "classify" and tuple(pair_columns) != PAIR:
        do = "give text_column, or the task pair"
        raise UsageError("the task classify reads one text a row", where="pair_columns", do=do)
    if kind == "translate":
        (text_column, label_column), kind = TRANSLATION, "classify"
    if kind in ("classify", "pair"):
        columns = pair_columns if kind == "pair" else (text_column,)
        records = list(_texts(file, columns, label_column if labels else None))
    else:
        records = list(_sentences(file, labels))
    if not records:
        raise DataError("holds no sequence", where=file, do="give a file with at least one labelled sequence")
    return records


def _plain(file: str) -> str:
    """The name without the suffix of its compression, in lower case."""
    name = file.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name


def _texts(file: str, columns: tuple[str, ...], label_column: str | None) -> Iterator[Labelled]:
    if label_column is None and len(columns) == 1 and format_of(file) == "text":
        yield from (Labelled((text,), (), f"{file}:{number}") for number, text in lines(file) if text.strip())
        return
    if label_column is None and len(columns) == 1 and format_of(file) in SEQUENCES:
        # what goes on with a record beyond 16 MiB would be cut off by every model
        records = (record for record in read_records(file) if not record.continued)
        yield from (Labelled((record.text,), (), record.where, record.id) for record in records)
        return
    for row, where in read_rows(file):
        wanted = columns if label_column is None else (*columns, label_column)
        cells = tuple(cell_text(row, column, where, do=_remedy(column, columns, label_column)) for column in wanted)
        for column, cell in zip(wanted, cells, strict=True):
            if not cell.strip():
                raise DataError(f"column {column!r} is empty", where=where, do="fill it or remove the row")
        yield Labelled(cells[: len(columns)], cells[len(columns) :], where, row_id(row))


def _remedy(column: str, columns: tuple[str, ...], label_column: str | None) -> str:
    """How to name the column that a table has instead."""
    if column in TRANSLATION and columns == TRANSLATION[:1]:
        return f"name its columns {' and '.join(TRANSLATION)}"
    if len(columns) > 1 and column != label_column:
        return """name both: --pair-columns A B, when fine-tuning --set 'pair_columns=["A", "B"]'"""
    name = "label_column" if column == label_column else "text_column"
    return f"say which it is: --{name.replace('_', '-')} NAME, when fine-tuning --set {name}=NAME"


def cell_text(row: dict[str, Any], column: str, where: str, *, do: str = "rename one, or say which it is") -> str:
    """What a row has in a column, as its csv would spell it. DataError if there is no such column; do: the remedy."""
    if column not in row:
        found = ", ".join(str(name) for name in row)
        raise DataError(f"no column {column!r} among {found}", where=where, do=do)
    value = row[column]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a parquet or JSON number column reads as its csv would
    return "" if value is None else str(value)


def _sentences(file: str, labels: bool) -> Iterator[Labelled]:
    name = _plain(file)
    if format_of(file) in ("csv", "parquet", *SEQUENCES):
        do = "give CoNLL columns, .conllu, or .jsonl with lists tokens and tags"
        raise DataError("has no place for a tag a token", where=file, do=do)
    if name.endswith((".jsonl", ".json")):
        for row, where in read_rows(file):
            tokens = _strings(row, "tokens", where)
            tags = _strings(row, "tags", where) if labels else ()
            if labels and len(tags) != len(tokens):
                raise DataError(f"{len(tokens)} tokens but {len(tags)} tags", where=where, do="give each token one tag")
            if tokens:
                yield Labelled(tokens, tags, where, row_id(row))
        return
    for where, rows in _blocks(file, conllu=name.endswith(".conllu"), labels=labels):
        units = tuple(unit for unit, _ in rows)
        yield Labelled(units, tuple(tag for _, tag in rows) if labels else (), where)


def _strings(row: dict[str, Any], column: str, where: str) -> tuple[str, ...]:
    if column not in row:
        found = ", ".join(row)
        raise DataError(f"no column {column!r} among {found}", where=where, do="each line needs tokens and tags")
    values = row[column]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{column!r} is not a list of strings", where=where)
    return tuple(values)


def _blocks(file: str, *, conllu: bool, labels: bool) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The (token, tag) rows of each sentence, with file:line of its first row."""
    rows: list[tuple[str, str]] = []
    where, width, separator = "", 0, None
    for number, line in lines(file):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if rows:
                yield where, rows
            rows = []
            continue
        if conllu and line.startswith("#"):
            continue
        if not width:
            separator = "\t" if "\t" in line else None
        cells = line.rstrip("\t ").split(separator) if separator else line.split()
        width = width or len(cells)
        row = _row(cells, _CONLLU_COLUMNS if conllu else width, conllu, labels, f"{file}:{number}")
        if row is None:
            continue
        where = where if rows else f"{file}:{number}"
        rows.append(row)
    if rows:
        yield where, rows


def _row(cells: list[str], width: int, conllu: bool, labels: bool, where: str) -> tuple[str, str] | None:
    """(token, tag); None for the CoNLL-U rows that stand for no single word (1-2, 1.1)."""
    if len(cells) != width:
        raise DataError(
            f"{len(cells)} columns where {width} are expected",
            where=where,
            do=f"give a token{' and its tag' * labels} a line, and a blank line after each sentence",
        )
    if conllu:
        return None if "-" in cells[0] or "." in cells[0] else (cells[_FORM], cells[_UPOS])
    if labels and width < 2:
        raise DataError("a token without a tag", where=where, do="give the tag in the last column")
    return cells[0], cells[-1]
