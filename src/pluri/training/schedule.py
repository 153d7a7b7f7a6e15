"""The learning rate over a run: a pure function of how much of the budget is spent."""

from typing import Literal

Schedule = Literal["wsd", "linear", "constant"]


def learning_rate_factor(progress: float, schedule: Schedule, *, warmup: float, decay: float) -> float:
    """What the peak learning rate is multiplied by, in [0, 1].

    progress: the share of the budget that is spent, 0 to 1. warmup: the share over which the rate rises from 0.
    "linear" falls to 0 from there to the end (Devlin et al. 2019, A.2); "wsd", warmup-stable-decay, holds the peak and
    falls linearly to 0 over the last `decay` share (Hu et al., "MiniCPM", 2024, section 4); "constant" holds it.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return progress / warmup
    if schedule == "linear":
        return (1 - progress) / max(1 - warmup, 1e-9)
    if schedule == "wsd":
        return min(1.0, (1 - progress) / max(decay, 1e-9))
    return 1.0
