"""The curve of a fine-tuning: its training loss along the way, and what each validation found."""

from itertools import pairwise
from statistics import fmean
from typing import Any

from pluri.training.trainer import Trained

POINTS = 60
"""Stretches of training that a curve tells of, about: a long fine-tuning has no longer curve than a short one."""


def curve(trained: Trained, metric: str) -> list[dict[str, Any]]:
    """Rows {"step", "tokens", "loss"}, steps and tokens counted from the start; at a validation also the metric.

    loss: the mean over the steps since the row before.
    """
    found = {int(validation["step"]): validation[metric] for validation in trained.validations}
    steps = len(trained.losses)
    rows = []
    for start, end in pairwise(sorted({*range(0, steps, -(-steps // POINTS)), *found, steps})):
        row = {"step": end, "tokens": trained.reads[end - 1], "loss": round(fmean(trained.losses[start:end]), 6)}
        rows.append(row | ({metric: found[end]} if end in found else {}))
    return rows
