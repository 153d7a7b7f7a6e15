"""The worst answers to questions, kept beside the files of answers: what the report shows of them, and no more."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pluri.run.outputs import write_lines
from pluri.tasks.answer_metrics import AnswerOutcome
from pluri.tasks.fit import Predictions
from pluri.tasks.task import Labelled, questions

MOST = 200


def write_mistakes(
    folder: Path, records: Sequence[Labelled], predictions: Predictions, outcome: AnswerOutcome, *, most: int = MOST
) -> None:
    """mistakes.json: {"questions": how many, "right": how many to the letter, "mistakes": the `most` worst others}.

    A mistake is {"id", "question", "context", "said", "true", "answers", "f1"}, the lowest F1 first. said: its first
    and last + 1 character in the context, null where no answer was given. true: those of the reference answers whose
    place is known. answers: the texts of all references, none where the document has no answer.
    """
    asked = questions(records)
    wrong = np.flatnonzero(outcome.exact < 1)
    worst = []
    for i in wrong[np.argsort(outcome.f1[wrong], kind="stable")][:most].tolist():
        question, said = asked[i], predictions.values[i].tolist()
        about = {"id": question.id, "question": question.units[0], "context": question.document}
        places = {"said": None if said[0] < 0 else said, "true": question.spans, "answers": question.references}
        worst.append({**about, **places, "f1": round(float(outcome.f1[i]), 4)})
    content = {"questions": len(asked), "right": len(asked) - len(wrong), "mistakes": worst}
    write_lines(folder / "mistakes.json", [json.dumps(content, ensure_ascii=False, indent=1)])
