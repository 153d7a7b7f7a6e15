"""What a pretrained start did for a fine-tuning: did it learn faster, become better, or neither?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pluri.report.comparison import LOWER_IS_BETTER, Comparison, Estimate, Row, difference
from pluri.report.words import MINUS, PRETRAINED, RANDOM_START, listed, metric_name, random_start

Points = Sequence[tuple[float, float]]  # (step, value)


class Course(NamedTuple):
    """One fine-tuning: its training loss, each the mean over the steps since the one before, and its validations."""

    loss: Points
    found: Points


def verdicts(runs: Mapping[str, Mapping[str, Course]], metric: str, percent: bool) -> list[str]:
    """A sentence for each pretrained method with a random start beside it. runs: the courses by method and seed.

    Faster: the mean training loss over all steps; better: the best validation, which chose the model. Both are
    compared seed by seed (Student's t).
    """
    sentences = []
    for method, ours in runs.items():
        theirs = runs.get(RANDOM_START + method.removeprefix(PRETRAINED)) if method.startswith(PRETRAINED) else None
        if not theirs or not all(course.found for course in (*ours.values(), *theirs.values())):
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        loss = difference(*(_rows({s: _area(c.loss) for s, c in side.items()}) for side in (ours, theirs)))
        best = difference(
            *(_rows({s: sign * max(sign * v for _, v in c.found) for s, c in side.items()}) for side in (ours, theirs))
        )
        faster, better = -loss.sign, sign * best.sign
        scale, unit, digits = (100, " points", 1) if percent else (1, "", 3)
        sentences.append(
            f"{method[0].upper()}{method[1:]} against its random start: the training loss, averaged over all steps, "
            f"differs by {_signed(loss, 1, 3)}, where less is faster; the best validation {metric_name(metric)} by "
            f"{_signed(best, scale, digits)}{unit}. {_said(faster, better, ours, theirs)}"
        )
    return sentences


def over_tasks(compared: Iterable[Comparison]) -> list[str]:
    """Of several tasks, by their first metric: where each pretrained method was better than its random start."""
    first = {comparison.task: comparison for comparison in reversed(list(compared))}
    found: dict[str, dict[int, list[str]]] = {}
    for task, comparison in reversed(first.items()):
        for method in comparison.methods:
            other = random_start(comparison, method) if method.startswith(PRETRAINED) else None
            gain = comparison.difference(method, other, comparison.sizes[0]) if other else None
            if gain is not None:
                signs = found.setdefault(method, {1: [], -1: [], 0: []})
                signs[gain.sign * comparison.better].append(task)
    words = {1: "better than its random start on", -1: "worse on", 0: "not clearly different on"}
    return [
        f"Over {sum(map(len, signs.values()))} tasks, {method} is "
        + listed([f"{words[sign]} {listed(tasks) if tasks else 'none'}" for sign, tasks in signs.items()])
        + "."
        for method, signs in found.items()
        if len(first) > 1
    ]


def _said(faster: int, better: int, ours: Mapping[str, Course], theirs: Mapping[str, Course]) -> str:
    if min(len(ours), len(theirs)) < 2:
        return "One seed alone cannot tell chance from a gain."
    words = {(1, 1): "It learns faster and becomes better.", (0, 0): "Neither is a clear difference."}
    learns = {1: "It learns faster", 0: "It learns about as fast", -1: "It learns more slowly"}[faster]
    becomes = {1: "and becomes better", 0: "and becomes no clearly better", -1: "and becomes worse"}[better]
    return words.get((faster, better), f"{learns}, {becomes}.")


def _area(loss: Points) -> float:
    """The mean loss a step."""
    steps = [0.0, *(step for step, _ in loss)]
    return sum(value * (step - before) for (step, value), before in zip(loss, steps, strict=False)) / steps[-1]


def _rows(values: Mapping[str, float]) -> list[Row]:
    return [Row("", None, seed, value, None, None) for seed, value in values.items()]


def _signed(found: Estimate, scale: float, digits: int) -> str:
    """ "+0.120 (95% interval +0.080 to +0.160)" """
    text = f"{scale * found.mean:+.{digits}f}"
    if found.low is not None and found.high is not None:
        text += f" (95% interval {scale * found.low:+.{digits}f} to {scale * found.high:+.{digits}f})"
    return text.replace("-", MINUS)
