"""Filled blanks: the sentence, the true token, and the guesses with their probabilities."""

import re
from collections.abc import Mapping
from typing import Any

from pluri.report.charts import Section
from pluri.run.folder import number

MASK = re.compile(r"\[MASK\]|<mask>")
PREDICTIONS = 5


def fill_section(fill: Mapping[str, Any]) -> Section | None:
    text, predictions = fill.get("text"), fill.get("predictions")
    if not isinstance(text, str) or not isinstance(predictions, list):
        return None
    answer = str(fill["answer"]).strip() if fill.get("answer") is not None else None
    listed = []
    for prediction in predictions:
        score = number(prediction.get("score")) if isinstance(prediction, dict) else None
        if score is not None:
            token = str(prediction.get("token_str", "")).strip()
            listed.append(
                {
                    "token": token,
                    "gloss": prediction.get("gloss") or "",
                    "score": f"{100 * score:.1f}%",
                    "width": 100 * min(max(score, 0.0), 1.0),
                    "true": token == answer,
                }
            )
    place = next((i for i, item in enumerate(listed) if item["true"]), None)
    shown_items = listed[:PREDICTIONS]
    if place is not None and place >= PREDICTIONS:
        shown_items.append(listed[place])
    return {
        "pieces": MASK.split(text),
        "answer": answer,
        "gloss": fill.get("gloss") or "",
        "predictions": shown_items,
        "missed": answer is not None and place is None,
    }
