"""The worst answers to questions: from mistakes.json, with what was said and what is true marked in the document."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pluri.errors import DataError
from pluri.report.charts import Section

AROUND = 250
"""Characters of a document that are shown on either side of an answer."""

Span = tuple[int, int]


def answers_section(file: Path, most: int) -> Section:
    """At most `most` wrong answers. DataError, with file:line, if the file is not what fine-tuning writes."""
    do = "remove the file, or fine-tune again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        asked, right = int(content["questions"]), int(content["right"])
        items = [_item(mistake) for mistake in content["mistakes"][:most]]
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg}", where=f"{file}:{error.lineno}", do=do) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no mistakes as fine-tuning writes them: {error}", where=str(file), do=do) from None
    return {
        "asked": f"{asked:,}",
        "right": f"{right:,}",
        "wrong": f"{asked - right:,}",
        "shown": f"{len(items):,}",
        "cases": items,
    }


def _item(mistake: Mapping[str, Any]) -> Section:
    text, said = str(mistake["context"]), mistake["said"]
    given = [] if said is None else [_span(said)]
    return {
        "question": shaded(str(mistake["question"]), mistake.get("attention", [])),
        "pieces": marked(text, given, [_span(span) for span in mistake["true"]]),
        "said": "" if said is None else text[slice(*given[0])],
        "answers": list(dict.fromkeys(map(str, mistake["answers"]))),
        "f1": f"{100 * float(mistake['f1']):.0f}%",
    }


def shaded(text: str, attention: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """The question in pieces (text, how dark): 1 where the weight is greatest, 0 between tokens."""
    most = max((float(weight) for *_, weight in attention), default=0.0) or 1.0
    pieces: list[tuple[str, float]] = []
    done = 0
    for start, end, weight in attention:
        pieces += [(text[done : int(start)], 0.0), (text[max(done, int(start)) : int(end)], float(weight) / most)]
        done = max(done, int(end))
    return [(piece, shade) for piece, shade in [*pieces, (text[done:], 0.0)] if piece]


def _span(value: Sequence[Any]) -> Span:
    start, end = value
    return int(start), int(end)


def marked(text: str, said: Sequence[Span], true: Sequence[Span]) -> list[tuple[str, str]]:
    """The text in pieces (text, mark), far from any answer cut. mark: "", "said", "truth", "said truth" or "cut"."""
    spans = [*said, *true]
    borders = sorted({0, len(text), *(min(max(border, 0), len(text)) for span in spans for border in span)})
    pieces: list[tuple[str, str]] = []
    for start, end in pairwise(borders):
        mark = " ".join(
            name
            for name, among in (("said", said), ("truth", true))
            if any(first <= start and end <= last for first, last in among)
        )
        head = AROUND if start > 0 or mark or not spans else 0  # what follows an answer
        tail = AROUND if end < len(text) or mark else 0  # what leads up to the next one
        if end - start <= head + tail:
            pieces.append((text[start:end], mark))
        else:
            cut = [(text[start : start + head], mark), ("…", "cut"), (text[end - tail : end], mark)]
            pieces += [piece for piece in cut if piece[0]]
    return pieces
