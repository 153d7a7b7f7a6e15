"""The worst answers to questions, kept beside the files of answers: what the report shows of them, and no more."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pluri.batches.packing import pack
from pluri.inference.attention_maps import attention_maps
from pluri.models.heads import Model
from pluri.run.outputs import write_lines
from pluri.tasks.answer import AnswerExamples
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.predictions import Predictions
from pluri.tasks.task import Labelled, questions
from pluri.tokens.tokenizer import Tokenizer

MOST = 200


def write_mistakes(
    folder: Path,
    records: Sequence[Labelled],
    predictions: Predictions,
    outcome: AnswerOutcome,
    model: Model,
    tokenizer: Tokenizer,
    *,
    most: int = MOST,
) -> None:
    """mistakes.json: {"questions": how many, "right": how many to the letter, "mistakes": the `most` worst others}.

    A mistake is {"id", "question", "context", "said", "true", "answers", "f1", "attention"}, the lowest F1 first. said:
    its first and last + 1 character in the context, null where no answer was given. true: those of the reference
    answers whose place is known. answers: the texts of all references, none where the document has no answer.
    attention: [first, last + 1 character of the question, weight] of each of its tokens, see `_attention`.
    model: what said it, on the device where it did.
    """
    asked = questions(records)
    wrong = np.flatnonzero(outcome.exact < 1)
    chosen = wrong[np.argsort(outcome.f1[wrong], kind="stable")][:most]
    assert predictions.nbest is not None
    worst = []
    for i, attention in zip(
        chosen.tolist(),
        _attention(model, tokenizer, predictions.nbest.examples, chosen, predictions.values),
        strict=True,
    ):
        question, said = asked[i], predictions.values[i].tolist()
        about = {"id": question.id, "question": question.units[0], "context": question.document}
        places = {"said": None if said[0] < 0 else said, "true": question.spans, "answers": question.references}
        worst.append({**about, **places, "f1": round(float(outcome.f1[i]), 4), "attention": attention})
    content = {"questions": len(asked), "right": len(asked) - len(wrong), "mistakes": worst}
    write_lines(folder / "mistakes.json", [json.dumps(content, ensure_ascii=False, indent=1)])


def _attention(
    model: Model, tokenizer: Tokenizer, examples: AnswerExamples, chosen: NDArray[np.int64], said: NDArray
) -> Iterator[list[tuple[int, int, float]]]:
    """What the tokens of each answer take of the question in the last layer, heads and tokens averaged: it sums to 1.

    [] where no answer was given. Of several windows that hold the answer, the first is looked at.
    """
    device = next(model.parameters()).device
    first, last = examples.tokens_of(said)
    model.eval()
    for i in chosen.tolist():
        windows = np.flatnonzero(examples.owner == i)
        ends = examples.first[windows] + examples.size[windows]
        inside = windows[(examples.first[windows] <= first[i]) & (last[i] < ends)]
        if said[i, 0] < 0 or not len(inside):
            yield []
            continue
        window = inside[:1]
        batch = pack(examples.examples(window, np.zeros(1, np.int64)), model.config.max_length).to(device)
        begins = np.cumsum(examples.sizes[window[0]])  # of the window's parts; the question is the second
        answer = np.arange(int(first[i]), int(last[i]) + 1) + begins[2] - examples.first[window[0]]
        weights = attention_maps(model, batch)[-1][0, :, answer, begins[0] : begins[1]].mean((0, 1))
        shares = (weights / weights.sum()).tolist()
        places = tokenizer.encode_batch([examples.questions[i].units[0]])[0].offsets
        yield [(start, end, round(share, 4)) for (start, end), share in zip(places, shares, strict=False)]
