"""Tasks that are put to a model in words: a template, rows to fill it with, and solved examples (shots) before it.

No weight is changed by them (Brown et al. 2020, section 2).
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pluri.config import Config
from pluri.errors import DataError, UsageError
from pluri.runtime import mix, permuted
from pluri.sequences import read_rows
from pluri.tasks.answer_metrics import ANSWER_METRICS
from pluri.tasks.formats import cell_text

BLANK = "answer"
"""The name of the place in a template where the answer stands."""

CHOICE_METRICS = ("acc", "acc_norm", "acc_calibrated")

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What stands in every place of a prompt without content (Zhao et al. 2021, section 5)."""

_SHOTS, _ORDER, _LIMIT = 2**61 + 1, 2**61 + 2, 2**61 + 3  # counters under which each is drawn; see tasks/task.py


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places named by columns: its pieces in order, each with the place after it, or None."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "{column}" is a place, "{{" and "}}" are braces. ValueError says what is wrong with any other brace."""
        pieces: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in string.Formatter().parse(text):
            if name == "" or form or conversion:
                raise ValueError(f"has a place without a plain name in {text!r}; write {{column}}, or {{{{ for a brace")
            pieces.append((literal, name))
        return cls(tuple(pieces))

    @property
    def columns(self) -> list[str]:
        return [name for _, name in self.pieces if name is not None]

    def split(self, name: str) -> tuple["Template", "Template"]:
        """What stands before the first place of that name, and what after it."""
        at = [column for _, column in self.pieces].index(name)
        literal, _ = self.pieces[at]
        return Template((*self.pieces[:at], (literal, None))), Template(self.pieces[at + 1 :])

    def fill(self, values: Mapping[str, str]) -> str:
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self.pieces)


class PromptTask(Config):
    """A task file.

    test: labelled table (csv, tsv, jsonl, parquet) that the model is judged on. train: another, whose rows are shots.
    template: one example, its columns as {column}, its answer as {answer}, which a causal model reads last.
    separator: what stands after each shot.
    label_column: the column of the right answer: a label; of free answers a text, or in .jsonl a list of texts.
    choices: each label, and how it is said; columns may stand in it, too. Without choices the answer is free: generated
        up to one of `stop`, or `max_new_tokens` tokens.
    metric: the one to be shown: acc, acc_norm (by characters) or acc_calibrated; of free answers f1 or exact_match.
    limit: judge on so many test rows, drawn once.
    """

    verbatim: ClassVar[tuple[str, ...]] = ("choices",)

    test: str
    train: str | None = None
    template: str
    separator: str = "\n\n"
    label_column: str = "label"
    choices: dict[str, str] | None = None
    metric: Literal["acc", "acc_norm", "acc_calibrated", "f1", "exact_match"] | None = None
    limit: int | None = Field(None, ge=1)
    max_new_tokens: int = Field(32, ge=1)
    stop: list[str] = Field(["\n"], min_length=1)

    @field_validator("template")
    @classmethod
    def _one_answer(cls, text: str) -> str:
        if Template.parse(text).columns.count(BLANK) != 1:
            raise ValueError(f"needs {{{BLANK}}} once, where the answer stands")
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.metric is not None and self.metric not in self.metrics:
            kind = "choices" if self.choices else "free answers"
            raise ValueError(f"metric {self.metric!r} is not one of {kind}: {', '.join(self.metrics)}")
        if self.choices is None:
            after = Template.parse(self.template).split(BLANK)[1]
            if after.columns:
                raise ValueError(f"template: a free answer stands at the end, not before {{{after.columns[0]}}}")
            return self
        if len(self.choices) < 2:
            raise ValueError("choices: at least two are needed; for free answers leave them out")
        for said in self.choices.values():
            Template.parse(said)
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that are measured, the one to be shown first."""
        known = CHOICE_METRICS if self.choices is not None else ANSWER_METRICS[::-1]
        return tuple(sorted(known, key=lambda name: name != self.metric))


@dataclass(frozen=True, slots=True)
class Asked:
    """One row as a prompt. before, after: the text around its answer. where: "test.csv:31".

    choices: texts (C,), and gold, the index of the right one; or none, and `references`, the right answers.
    """

    before: str
    after: str
    choices: tuple[str, ...]
    gold: int
    references: tuple[str, ...]
    where: str

    @property
    def solved(self) -> str:
        """The whole example, with its right answer."""
        return self.before + (self.choices[self.gold] if self.choices else self.references[0]) + self.after


@dataclass(frozen=True, slots=True)
class Prompts:
    """A task with its rows. pool: what shots are drawn from, the rows of `train` that are no test rows.

    labels: the names of the choices, (C,). content_free: (before, after) of prompts without content.
    notes: what a reader must know to believe the results.
    """

    task: PromptTask
    test: list[Asked]
    pool: list[Asked]
    labels: tuple[str, ...]
    content_free: list[tuple[str, str]]
    notes: list[str]

    def shots(self, count: int, seed: int) -> list[Asked]:
        """`count` examples, drawn and ordered by the seed: of each label as many, as far as there are so many.

        A larger draw of a seed has all of its smaller one. UsageError if there are not so many.
        """
        if count > len(self.pool):
            do = "ask for fewer shots" if self.task.train else 'name a file of examples: train = "train.csv"'
            raise UsageError(f"{count} shots of {len(self.pool)} examples", where="shots", do=do)
        if not count:
            return []
        key = mix(np.uint64(0), seed)
        drawn = permuted(np.arange(len(self.pool)), len(self.pool), mix(key, _SHOTS)[()])
        labels = np.array([self.pool[i].gold for i in drawn], np.int64)
        rank = _rank(labels)
        # the first of each label, then the second of each: within such a round, labels in an order drawn for it
        drawn = drawn[np.lexsort((mix(mix(mix(key, _SHOTS), rank), labels), rank))][:count]
        order = permuted(np.arange(count), count, mix(mix(key, _ORDER), count)[()])
        return [self.pool[drawn[i]] for i in order]


def read_prompts(task: PromptTask) -> Prompts:
    """Reads the files of a task.

    DataError, with file:line: a column that the template names and the file lacks, a label without a choice, an answer
    that is empty, two choices that are said alike.
    """
    test = _read(task, task.test)
    if task.limit is not None and task.limit < len(test):
        index = permuted(np.arange(task.limit), len(test), mix(np.uint64(0), _LIMIT)[()])
        test = [test[i] for i in np.sort(index)]
    train = [] if task.train is None else _read(task, task.train)
    tested = {(asked.before, asked.after) for asked in test}
    pool = [asked for asked in train if (asked.before, asked.after) not in tested]
    notes = []
    if len(pool) < len(train):
        notes.append(f"{len(train) - len(pool)} rows of {task.train} are also test rows, and are no shots")
    labels = tuple(task.choices or ())
    if labels:
        counts = np.bincount([asked.gold for asked in test], minlength=len(labels))
        share, most = counts.max() / len(test), labels[int(counts.argmax())]
        notes.append(f"of {len(test):,} test rows {share:.1%} are {most!r}: saying nothing else has that acc")
    before, after = Template.parse(task.template).split(BLANK)
    names = (*before.columns, *after.columns)
    free = [dict.fromkeys(names, text) for text in CONTENT_FREE] if labels else []
    return Prompts(task, test, pool, labels, [(before.fill(v), after.fill(v)) for v in free], notes)


def _read(task: PromptTask, file: str) -> list[Asked]:
    before, after = Template.parse(task.template).split(BLANK)
    said = {label: Template.parse(text) for label, text in (task.choices or {}).items()}
    columns = {*before.columns, *after.columns, *(name for text in said.values() for name in text.columns)}
    asked = []
    for row, where in read_rows(file):
        values = {name: cell_text(row, name, where) for name in columns}
        choices = tuple(text.fill(values) for text in said.values())
        if "" in choices or len(set(choices)) < len(choices):
            what = "is empty" if "" in choices else f"is said like another: {choices}"
            raise DataError(f"a choice {what}", where=where, do="say each choice in its own words")
        gold, references = 0, ()
        if said:
            gold = _gold(row, task.label_column, list(said), where)
        else:
            references = _references(row, task.label_column, where)
        asked.append(Asked(before.fill(values), after.fill(values), choices, gold, references, where))
    return asked


def _gold(row: dict[str, Any], column: str, labels: Sequence[str], where: str) -> int:
    label = cell_text(row, column, where)
    if label not in labels:
        do = f"add it to choices, which has {', '.join(labels)}"
        raise DataError(f"no choice for the label {label!r}", where=where, do=do)
    return labels.index(label)


def _references(row: dict[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = row.get(column)
    texts = tuple(value) if isinstance(value, list) else (cell_text(row, column, where),)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"no answer in column {column!r}", where=where, do="give a text, or a list of texts")
    return texts


def _rank(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many before it have the same label: (n,)."""
    order = np.argsort(labels, kind="stable")
    in_order = labels[order]
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(in_order, in_order)
    return rank
