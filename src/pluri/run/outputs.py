"""What fine-tuned models say, on disk: lines of JSON for labels and tags, the files of SQuAD for answers."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pluri.checkpoints.checkpoint import atomic_file
from pluri.tasks.compare import Comparison
from pluri.tasks.formats import PAIR, TRANSLATION
from pluri.tasks.predictions import Predictions
from pluri.tasks.spans import SpanTags, find_spans
from pluri.tasks.task import Labelled, Targets, Task, questions
from pluri.tokens.words import spaced


def prediction_lines(task: Task, records: Sequence[Labelled], predictions: Predictions) -> Iterator[str]:
    """A line of JSON for each sequence; `id` and `gold` (or `gold_tags`) only where they are known."""
    first = 0
    for record, count in zip(records, task.num_labels(records).tolist(), strict=True):
        here = slice(first, first + count)
        first = here.stop
        values = predictions.values[here]
        scores = None if predictions.scores is None else [round(float(score), 4) for score in predictions.scores[here]]
        labels = [float(value) if task.regression else task.labels[int(value)] for value in values if task.labels_units]
        if task.kind == "tag":
            line = {"tokens": record.units, "tags": labels, "scores": scores}
            line |= {"spans": _spans(task.tags, record.units, values)} if task.tags else {}
            line |= {"gold_tags": record.labels} if record.labels else {}
        elif task.kind == "translate":
            line = dict(zip(TRANSLATION, (record.units[0], str(values[0])), strict=True))
            line |= {"gold": record.labels[0]} if record.labels else {}
        else:
            names = PAIR if task.kind == "pair" else ("text",)
            line: dict[str, Any] = {**dict(zip(names, record.units, strict=True)), "label": labels[0]}
            line |= {"score": scores[0]} if scores else {}
            line |= {"gold": record.labels[0]} if record.labels else {}
        named = {} if record.id is None else {"id": record.id}
        yield json.dumps(named | line, ensure_ascii=False)


def _spans(tags: SpanTags, units: Sequence[str], values: Targets) -> list[dict[str, Any]]:
    """Those of one sentence: their type, tokens (end exclusive) and text."""
    found = find_spans(tags, values.astype(np.int64), np.array([len(units)]))
    return [
        {"type": tags.names[kind], "start": start, "end": end, "text": "".join(spaced(units[start:end]))}
        for start, end, kind in zip(*(side.tolist() for side in found), strict=True)
    ]


def write_answers(
    folder: Path, records: Sequence[Labelled], predictions: Predictions, *, null: bool, course: bool
) -> None:
    """predictions.json: id to text, "" where there is no answer. nbest_predictions.json: id to the best answers, with
    probabilities, characters and logits. null_odds.json: id to the score of "no answer" less that of the best span.

    null: "no answer" stands among the best. course: also submission.csv, with the columns ID and Answer.
    """
    nbest = predictions.nbest
    assert nbest is not None
    asked = questions(records)
    texts = [q.document[start:end] for q, (start, end) in zip(asked, predictions.values.tolist(), strict=True)]
    ids = [question.id for question in asked]
    write_lines(folder / "predictions.json", _object(zip(ids, texts, strict=True)))
    write_lines(
        folder / "nbest_predictions.json", _object((name, nbest.answers(i, null=null)) for i, name in enumerate(ids))
    )
    write_lines(folder / "null_odds.json", _object(zip(ids, nbest.odds.tolist(), strict=True)))
    if course:
        write_lines(folder / "submission.csv", map(_csv_line, [("ID", "Answer"), *zip(ids, texts, strict=True)]))


def write_curves(folder: Path, comparisons: Iterable[Comparison]) -> None:
    """curves.jsonl: how each fine-tuning went, {"method", "seed", "labelled", "step", "tokens", "loss"} a line, and
    where it was validated the metric by its name. loss: the mean over the steps since the line before.
    """
    points = (point for comparison in comparisons for point in comparison.curves())
    write_lines(folder / "curves.jsonl", (json.dumps(point, ensure_ascii=False) for point in points))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Through a temporary name, so that a crash leaves no half file. DataError if it cannot be written."""
    with atomic_file(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def _object(entries: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """The lines of one JSON object, an entry a line, so that it is never held whole."""
    before = "{"
    for key, value in entries:
        yield f"{before}{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        before = ","
    yield "}" if before == "," else "{}"


def _csv_line(row: tuple[str, str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()
