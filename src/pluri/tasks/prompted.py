"""Judging a model on prompts: by what it writes, or by which choice it finds likelier: as it is, by length, and against
its own bias.

Legend: G test rows, C choices, K distinct prompts without content.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError, UsageError
from pluri.inference.generate import generate_texts
from pluri.inference.prompting import Encoded, Prompter, Query
from pluri.tasks.answer_metrics import ANSWER_METRICS, answer_outcome
from pluri.tasks.metrics import Measured, Outcome
from pluri.tasks.prompts import Asked, Prompts

_ROWS = 256  # encoded at once

Floats = NDArray[np.float64]


def judge(prompter: Prompter, prompts: Prompts, shots: Sequence[Asked]) -> tuple[dict[str, Measured], int]:
    """The outcome of each metric on the test rows behind these examples, and how many examples were dropped in all.

    A prompt that is longer than the model reads loses whole examples, the first ones first.
    acc: the choice with the largest sum of log-probabilities. acc_norm: with the largest sum a character.
    acc_calibrated: a choice's probability is divided by what it has in prompts without content, the mean of three
    (Zhao et al. 2021, section 5, with a diagonal matrix).
    Where a choice begins another one ("good", "good enough"), a causal model is also asked for what ends an example:
    what begins something is never less likely.
    Free answers are written greedily, and scored as answers to questions are, by their words or characters.
    DataError: a prompt that is too long without any example. UsageError: free answers of a masked model.
    """
    behind = _Behind(prompter, [shot.solved + prompts.task.separator for shot in shots])
    return _chosen(behind, prompts) if prompts.labels else _written(behind, prompts)


def _chosen(behind: "_Behind", prompts: Prompts) -> tuple[dict[str, Measured], int]:
    prompter = behind.prompter
    scores, biases, dropped = [], [], 0
    for first in range(0, len(prompts.test), _ROWS):
        rows = prompts.test[first : first + _ROWS]
        ends = [_end(prompter, asked, prompts.task.separator) for asked in rows]
        queries = [Query(a.before, a.choices, a.after + end) for a, end in zip(rows, ends, strict=True)]
        encoded, drops = behind.fitted(queries, [asked.where for asked in rows])
        scores.append(np.stack(prompter.scores(encoded)))
        keys = [(asked.choices, end, drop) for asked, end, drop in zip(rows, ends, drops, strict=True)]
        biases.append(_bias(behind, prompts.content_free, keys))
        dropped += sum(drops)
    summed, bias = np.concatenate(scores), np.concatenate(biases)  # (G, C)
    lengths = np.array([[len(said) for said in asked.choices] for asked in prompts.test])
    said = {"acc": summed, "acc_norm": summed / lengths, "acc_calibrated": summed - bias}
    gold, index = np.array([asked.gold for asked in prompts.test], np.int64), np.arange(len(prompts.test))
    size = len(index), len(prompts.labels)
    return {name: Outcome(gold, values.argmax(1), index, *size) for name, values in said.items()}, dropped


def _written(behind: "_Behind", prompts: Prompts) -> tuple[dict[str, Measured], int]:
    prompter, task = behind.prompter, prompts.task
    if prompter.head != "next":
        do = "give a causal model, or the task choices"
        raise UsageError("a masked model fills blanks, and writes no answer", where="choices", do=do)
    queries = [Query(asked.before.rstrip(" "), ()) for asked in prompts.test]  # a space belongs to the word after it
    _, drops = behind.fitted(queries, [asked.where for asked in prompts.test], room=task.max_new_tokens)
    texts = [behind.placed(query, drop).before for query, drop in zip(queries, drops, strict=True)]
    settings: dict[str, Any] = {"max_new_tokens": task.max_new_tokens, "stop": tuple(task.stop), "temperature": 0.0}
    found = generate_texts(prompter.model, prompter.tokenizer, texts, **settings)
    said = [answer["text"].strip() for answer in found]
    outcome = answer_outcome([asked.references for asked in prompts.test], said)
    return dict.fromkeys(ANSWER_METRICS, outcome), sum(drops)


class _Behind:
    """Prompts behind the same examples, as many of them as the model reads."""

    def __init__(self, prompter: Prompter, solved: Sequence[str]) -> None:
        self.prompter, self.solved = prompter, solved

    def fitted(
        self, queries: Sequence[Query], where: Sequence[str], drops: Sequence[int] = (), *, room: int = 0
    ) -> tuple[list[Encoded], list[int]]:
        """Each query in tokens, and how many examples it has lost.

        drops: how many each loses in any case. room: tokens that must be left after it.
        """
        drops = list(drops) or [0] * len(queries)
        reads = self.prompter.model.config.max_length
        found: dict[int, Encoded] = {}
        todo = list(range(len(queries)))
        while todo:
            behind = [self.placed(queries[i], drops[i]) for i in todo]
            found |= zip(todo, self.prompter.encode(behind), strict=True)
            todo = [i for i in todo if found[i].longest + room > reads]
            for i in todo:
                if drops[i] == len(self.solved):
                    written = f" and {room} to be written" if room else ""
                    what = f"a prompt of {found[i].longest} tokens without examples{written}, the model reads {reads}"
                    do = "shorten the text or the template" + (", or lower max_new_tokens" if room else "")
                    raise DataError(what, where=where[i], do=do)
                drops[i] += 1
        return [found[i] for i in range(len(queries))], drops

    def placed(self, query: Query, drop: int) -> Query:
        """A query behind the examples that are left of all when so many are dropped."""
        return query._replace(before="".join(self.solved[drop:]) + query.before)


def _bias(
    behind: _Behind, content_free: Sequence[tuple[str, str]], keys: Sequence[tuple[tuple[str, ...], str, int]]
) -> Floats:
    """The log-probability of each choice among all, in prompts without content: (len(keys), C).

    keys: the choices, what ends them, and the dropped examples of each row; rows that share these are computed once.
    """
    distinct = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    queries = [Query(before, said, after + end) for said, end, _ in distinct for before, after in content_free]
    drops = [drop for _, _, drop in distinct for _ in content_free]
    encoded, _ = behind.fitted(queries, ["template"] * len(queries), drops)
    scores = np.stack(behind.prompter.scores(encoded)).reshape(len(distinct), len(content_free), -1)  # (K, 3, C)
    shares = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    means = np.logaddexp.reduce(shares, axis=1) - np.log(len(content_free))  # (K, C)
    return means[[distinct[key] for key in keys]]


def _end(prompter: Prompter, asked: Asked, separator: str) -> str:
    """What else is scored after an answer, so that no choice is the beginning of another."""
    said = sorted(asked.choices)
    begun = next((a for a, b in itertools.pairwise(said) if b.startswith(a)), None)
    if begun is None or prompter.head != "next":
        return ""
    if not asked.after + separator:
        what = f"the choice {begun!r} begins another one, and nothing ends it"
        raise DataError(what, where=asked.where, do="give the task a separator, or say it in other words")
    return separator
