"""Reading questions about documents: SQuAD's JSON, flat rows, and the format of the course's homework.

An answer whose offset does not fit its text is put where the text stands, if it stands there exactly once. Nothing is
changed or left out in silence.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pluri.errors import DataError
from pluri.sequences.files import COMPRESSIONS, opened
from pluri.sequences.readers import read_rows
from pluri.tasks.task import Question

_UNKNOWN = (None, "null")  # how the course's test files write "not given"


@dataclass(slots=True)
class Questions:
    """The questions of a file, and what became of their reference answers.

    course: the file is in the course's format.
    read: how many reference answers there are; right: those at their offset; repaired: moved to where they stand;
    dropped: a line for each that has no known place: file, id, and why. read = right + repaired + dropped.
    left_out: a line for each question that asks nothing, which is in no other count.
    """

    file: str
    records: list[Question] = field(default_factory=list)
    course: bool = False
    read: int = 0
    right: int = 0
    repaired: int = 0
    dropped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def learnable(self) -> list[Question]:
        """Without the questions whose answers were all dropped: they would be learnt as having none."""
        return [question for question in self.records if question.spans or not question.references]

    def notes(self) -> list[str]:
        """What a reader must know of the data: the counts, which add up, and each dropped answer."""
        counts = f"{self.right:,} right + {self.repaired:,} repaired + {len(self.dropped):,} dropped"
        found = [f"{self.file}: {len(self.records):,} questions; {self.read:,} answers read = {counts}"]
        lost = len(self.records) - len(self.learnable)
        if lost:
            found.append(f"{self.file}: {lost:,} questions lost all answers, so that nothing can be learnt from them")
        if self.left_out:
            found.append(f"{self.file}: {len(self.left_out):,} questions left out, which ask nothing")
        return found + self.left_out + self.dropped


class _Raw(NamedTuple):
    """A question as the file has it. answers: (text, start), start None where it is not given; None: not known."""

    id: Any
    question: Any
    document: Any
    answers: list[tuple[Any, Any]] | None
    where: str


def read_questions(file: str, *, answers: bool = True) -> Questions:
    """All questions of a file, also .gz or .zst. The format is told by the content:

    SQuAD 1.1 and 2.0: {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
        "answer_start"}]}]}]}]}; `answers` empty, or `is_impossible`: the document has none; no `answers`: not known.
    rows (.jsonl, .csv, .tsv, .parquet): id, question, context, and answers as in SQuAD (also as {"text": [...],
        "answer_start": [...]}), or the columns answer (null: not known; "": none) and answer_start.
    course: {"questions": [{"id", "paragraph_id", "question_text", "answer_text", "answer_start", "answer_end"}],
        "paragraphs": [...]}, answer_end inclusive; null or "null" where the answer is not given.

    answers: False does not read them. An empty question is left out, and listed.
    DataError, naming file and id: not JSON, a missing or empty part, an id twice, an answer outside its document.
    """
    found, seen = Questions(file), set[str]()
    content = _whole(file)
    found.course = isinstance(content, dict) and "questions" in content and "paragraphs" in content
    for raw in _raw(content, file, found.course):
        name, where = str(raw.id), raw.where
        if raw.id is None or not name:
            raise DataError("a question without an id", where=where, do="give each its own")
        if name in seen:
            raise DataError(f"the id {name!r} stands twice", where=where, do="give each question its own id")
        seen.add(name)
        if isinstance(raw.question, str) and not raw.question.strip():
            found.left_out.append(f"{where}: the question is empty; left out")
            continue
        units = (_text(raw.question, "question", where), _text(raw.document, "document", where))
        if not answers or raw.answers is None:
            found.records.append(Question(units, (), where, name))
            continue
        spans = [_placed(found, units[1], text, start, where) for text, start in raw.answers]
        references = tuple(text for text, _ in raw.answers)
        placed = tuple(dict.fromkeys(span for span in spans if span is not None))
        found.records.append(Question(units, (), where, name, references, placed))
    if not found.records:
        raise DataError("holds no question", where=file, do="give a file with at least one")
    return found


def holds_questions(file: str) -> bool:
    """Whether a file has the keys of questions about documents; no more is looked at. DataError: it cannot be read."""
    content = _whole(file)
    if isinstance(content, dict) and (
        isinstance(content.get("data"), list) or {"questions", "paragraphs"} <= set(content)
    ):
        return True
    rows = [next(read_rows(file))[0]] if content is None else content if isinstance(content, list) else [content]
    return any(isinstance(row, dict) and {"question", "context"} <= set(row) for row in rows[:1])


def _placed(found: Questions, document: str, text: Any, start: Any, where: str) -> tuple[int, int] | None:
    """Where an answer stands, counted in `found`. None if that cannot be told."""
    if not isinstance(text, str):
        raise DataError(f"the answer is not text: {text!r:.40}", where=where, do="write it as a string")
    start = _offset(start, where)
    if start is not None and text and not 0 <= start < len(document):
        raise DataError(
            f"the answer {text!r:.60} begins at {start}, outside its document of {len(document):,} characters",
            where=where,
            do="correct answer_start; write no answer where there is none",
        )
    found.read += 1
    if text.strip() and start is not None and document.startswith(text, start):
        found.right += 1
        return start, start + len(text)
    first = document.find(text) if text.strip() else -1
    if first >= 0 and document.find(text, first + 1) < 0:
        found.repaired += 1
        return first, first + len(text)
    reason = "is empty" if not text.strip() else "is not in its document" if first < 0 else "is there more than once"
    found.dropped.append(f"{where}: the answer {text!r:.60} is not at {start}, and {reason}; dropped")
    return None


def _offset(start: Any, where: str) -> int | None:
    if start in (None, "", "null"):
        return None
    try:
        return int(start)
    except (TypeError, ValueError):
        raise DataError(f"answer_start is {start!r:.40}", where=where, do="give a number of characters") from None


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        shown = "empty" if value is None or isinstance(value, str) else f"not text: {value!r:.40}"
        raise DataError(f"the {what} is {shown}", where=where, do="fill it or remove the question")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half a surrogate pair is valid JSON, but no text
            raise DataError(f"the {what} holds half a character", where=where, do="mend it") from None
    return value


def _whole(file: str) -> Any:
    """The content of a file that is one JSON value; None if it is made of rows."""
    name = file.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    if not name.endswith(".json"):
        return None
    with opened(file) as stream:
        content = stream.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", where=file, do="convert it to UTF-8") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under another name
            return None
        raise DataError(f"not valid JSON: {error.msg}", where=f"{file}:{error.lineno}", do="mend the file") from None


def _raw(content: Any, file: str, course: bool) -> Iterator[_Raw]:
    if course:
        yield from _course(content, file)
    elif isinstance(content, dict) and "data" in content:
        yield from _squad(content, file)
    elif content is None:
        yield from (_row(row, where) for row, where in read_rows(file))
    else:
        rows = content if isinstance(content, list) else [content]
        yield from (_row(_object(row, f"{file}, entry {i}"), f"{file}, entry {i}") for i, row in enumerate(rows, 1))


def _squad(content: dict[str, Any], file: str) -> Iterator[_Raw]:
    for article in _list(content, "data", file):
        for paragraph in _list(article, "paragraphs", file):
            for asked in _list(paragraph, "qas", file):
                where = f"{file}, id {_object(asked, file).get('id')}"
                yield _Raw(
                    asked.get("id"), asked.get("question"), paragraph.get("context"), _answers(asked, where), where
                )


def _row(row: dict[str, Any], where: str) -> _Raw:
    where = f"{where}, id {row.get('id')}"
    if "answers" in row or "is_impossible" in row or "answer" not in row:
        answers = _answers(row, where)
    else:
        answer, start = row["answer"], row.get("answer_start")
        answers = [] if answer == "" else None if answer in _UNKNOWN and start in _UNKNOWN else [(answer, start)]
    return _Raw(row.get("id"), row.get("question"), row.get("context"), answers, where)


def _answers(asked: dict[str, Any], where: str) -> list[tuple[Any, Any]] | None:
    if asked.get("is_impossible") is True:
        return []
    answers = asked.get("answers")
    if answers is None:
        return None
    if isinstance(answers, dict):  # columns, as table formats keep them
        texts, starts = (_list(answers, key, where) for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise DataError(f"{len(texts)} answers at {len(starts)} places", where=where, do="give each its place")
        return list(zip(texts, starts, strict=True))
    if not isinstance(answers, list):
        raise DataError(f"answers are not a list: {answers!r:.40}", where=where, do="write them as SQuAD does")
    return [(_object(answer, where).get("text"), answer.get("answer_start")) for answer in answers]


def _course(content: dict[str, Any], file: str) -> Iterator[_Raw]:
    paragraphs = _list(content, "paragraphs", file)
    for asked in _list(content, "questions", file):
        where = f"{file}, id {_object(asked, file).get('id')}"
        place = asked.get("paragraph_id")
        if not isinstance(place, int) or not 0 <= place < len(paragraphs):
            have = f"there are {len(paragraphs):,}, counted from 0"
            raise DataError(f"no paragraph {place!r:.40}; {have}", where=where, do="correct paragraph_id")
        text, start, end = (asked.get(f"answer_{key}") for key in ("text", "start", "end"))
        answers: list[tuple[Any, Any]] | None = [(text, start)]
        if start in _UNKNOWN and text in _UNKNOWN:
            answers = None
        elif isinstance(start, int) and isinstance(end, int) and end >= len(paragraphs[place]):
            size = f"the last of its {len(paragraphs[place]):,} characters"
            raise DataError(f"the answer ends at {end}, after {size}", where=where, do="correct answer_end (inclusive)")
        yield _Raw(asked.get("id"), asked.get("question_text"), paragraphs[place], answers, where)


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = _object(value, where).get(key)
    if not isinstance(found, list):
        raise DataError(f"no list {key!r}", where=where, do="write the file as SQuAD or the course does")
    return found


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"not an object: {value!r:.40}", where=where, do="write the file as SQuAD or the course does")
    return value
