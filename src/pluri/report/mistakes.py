"""The worst mistakes in labels, tags and numbers: from predictions.jsonl, the ones the model was surest of first."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pluri.errors import DataError
from pluri.report.charts import Section
from pluri.report.confusion import cell
from pluri.sequences import read_rows

MOST = 200
"""Sequences on a page: more make it slow, and nobody reads them."""

_LETTERS = 500  # of a text
_AROUND = 40  # tokens on either side of the worst one


class _Wrong(NamedTuple):
    """A unit that got another label than the true one. badness: how sure the model was; of a number, how far off."""

    place: int
    true: str
    said: str
    badness: float


@dataclass(slots=True)
class _Counts:
    sequences: int = 0
    mistaken: int = 0  # sequences with something wrong
    units: int = 0
    wrong: int = 0
    numbers: bool = False
    tags: bool = False


def mistakes_section(file: Path, drawn: Sequence[str], most: int) -> Section | None:
    """At most `most` sequences; None if the file knows no true labels.

    drawn: the classes of the confusion matrix as it is drawn, by whose cells the mistakes can be chosen.
    DataError, with file:line: a line is not a prediction.
    """
    counts = _Counts()
    worst = heapq.nlargest(most, _mistaken(file, counts), key=lambda found: max(wrong.badness for wrong in found[1]))
    if not counts.units:
        return None
    items = [_item(row, wrong, drawn, counts) for row, wrong in worst]
    return {
        "summary": _summary(counts, len(items)),
        "labels": list(drawn),
        "chosen": any(item["cells"] for item in items),
        "cases": items,
    }


def _mistaken(file: Path, counts: _Counts) -> Iterator[tuple[Mapping[str, Any], list[_Wrong]]]:
    """The sequences with something wrong, one after the other."""
    for row, where in read_rows(str(file)):
        try:
            wrong = _wrong(row, counts)
        except (KeyError, TypeError, ValueError) as error:
            do = "remove the file, or fine-tune again"
            raise DataError(f"not a prediction: {error}", where=where, do=do) from None
        if wrong:
            yield row, wrong


def _wrong(row: Mapping[str, Any], counts: _Counts) -> list[_Wrong]:
    """What is wrong in a line, which is counted if its true labels are known."""
    if "tokens" in row:
        counts.tags = True
        parts = [row["gold_tags"], row["tags"], row["scores"]] if "gold_tags" in row else [[], [], []]
        units = [(str(true), str(said), float(score)) for true, said, score in zip(*parts, strict=True)]
        if units and len(units) != len(row["tokens"]):
            raise ValueError(f"{len(units)} tags of {len(row['tokens'])} tokens")
    elif "gold" not in row:
        units = []
    elif "score" in row:
        units = [(str(row["gold"]), str(row["label"]), float(row["score"]))]
    else:
        counts.numbers = True
        true, said = float(row["gold"]), float(row["label"])
        units = [(f"{true:g}", f"{said:.4g}", abs(true - said))]
    wrong = [
        _Wrong(i, *unit) for i, unit in enumerate(units) if (unit[2] > 0 if counts.numbers else unit[0] != unit[1])
    ]
    counts.sequences += bool(units)
    counts.units += len(units)
    counts.mistaken += bool(wrong)
    counts.wrong += len(wrong)
    return wrong


def _summary(counts: _Counts, shown: int) -> str:
    wrong, units = f"{counts.wrong:,}", f"{counts.units:,}"
    if counts.numbers:
        return f"Shown: {shown:,} of {counts.sequences:,} numbers, those that are farthest from the truth."
    if not counts.wrong:
        return f"All {units} answers are right."
    if counts.tags:
        found = f"{wrong} of {units} tokens are wrong, in {counts.mistaken:,} of {counts.sequences:,} sequences."
        return f"{found} Shown: {shown:,} of these, those with the most confident mistakes first."
    return f"{wrong} of {units} answers are wrong. Shown: {shown:,} of {wrong} mistakes, the most confident first."


def _item(row: Mapping[str, Any], wrong: Sequence[_Wrong], drawn: Sequence[str], counts: _Counts) -> Section:
    worst = max(wrong, key=lambda unit: unit.badness)
    if counts.tags:
        texts = [_tagged(list(map(str, row["tokens"])), wrong, worst.place)]
    else:
        names = [name for name in ("text", "sentence1", "sentence2") if name in row]
        texts = [[{"text": _cut(str(row[name]))}] for name in names]
    return {
        "texts": texts,
        "said": worst.said,
        "true": worst.true,
        "note": f"off by {worst.badness:.3g}" if counts.numbers else f"{100 * worst.badness:.0f}% sure",
        "cells": " ".join(sorted({cell(unit.true, unit.said, drawn) for unit in wrong})).strip(),
    }


def _tagged(tokens: Sequence[str], wrong: Sequence[_Wrong], worst: int) -> list[Section]:
    """The neighbourhood of the worst token, in pieces; the wrong tokens are a piece each."""
    marked = {unit.place: unit for unit in wrong}
    blank = "" if all(len(token) == 1 for token in tokens) else " "  # characters, or words
    first, last = max(0, worst - _AROUND), min(len(tokens), worst + _AROUND + 1)
    pieces: list[Section] = [{"text": "… "}] if first else []
    for place in range(first, last):
        unit, before = marked.get(place), blank if place > first else ""
        if unit is None:
            pieces.append({"text": before + tokens[place]})
        else:
            pieces += [{"text": before}, {"text": tokens[place], "true": unit.true, "said": unit.said}]
    return [*pieces, {"text": " …"}] if last < len(tokens) else pieces


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS].rstrip()} …"
