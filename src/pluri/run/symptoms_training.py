"""What a journal says of a training run: plateau, divergence, spikes, non-finite loss, too short a run, the machine."""

import math

import numpy as np
from numpy.typing import NDArray

from pluri.run.findings import Finding
from pluri.run.folder import Journal, number
from pluri.runtime import fast_bf16

Floats = NDArray[np.float64]
MIN_STEPS = 20
"""Below this many steps nothing can be said of the shape of a loss curve."""

TELLING = 0.1
"""Nats, and share of the loss: smaller rises are no divergence, smaller peaks no spikes."""

AT_ENTROPY = 0.97
"""A loss above this share of the unigram entropy has hardly used the context."""

WORTH = 0.02
"""A doubling of the run that lowers the loss by this share of it is worth telling."""


def diagnose_journal(journal: Journal) -> list[Finding]:
    """Everything that one journal shows. The shape of the loss is judged in pretraining only."""
    findings = [_non_finite(journal), _end(journal)]
    tokens, losses = loss_curve(journal)
    if len(losses) >= MIN_STEPS:
        unstable = [_divergence(journal, losses), _spikes(losses)]
        findings += unstable
        if journal.pretraining and unstable[0].severity == "ok":
            findings.append(_progress(tokens, losses, journal.unigram_entropy))
    elif journal.pretraining:
        few = f"only {len(losses)} steps are in the journal: too few to judge the loss"
        findings.append(Finding("too short to judge", "warn", few, len(losses), f"run at least {MIN_STEPS} steps"))
    findings.append(diagnose_machine(journal))
    return [finding for finding in findings if finding is not None]


def loss_curve(journal: Journal) -> tuple[Floats, Floats]:
    """(tokens, loss) of each step with a finite loss, the masked loss where there is one: float64 (n,) each."""
    key = "masked_loss" if any("masked_loss" in step for step in journal.steps) else "loss"
    pairs = [(number(step.get("tokens")), number(step.get(key))) for step in journal.steps]
    kept = np.array([pair for pair in pairs if pair[0] and pair[1] is not None], np.float64).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def _non_finite(journal: Journal) -> Finding:
    name, do = (
        "non-finite loss",
        "lower the learning rate (a third of it), then go on from the last checkpoint with --resume",
    )
    for step in journal.steps:
        broken = [
            key for key in ("loss", "grad_norm") if isinstance(step.get(key), float) and not math.isfinite(step[key])
        ]
        if broken:
            return Finding(
                name, "problem", f"{broken[0]} is {step[broken[0]]} at step {step['step']}", step["step"], do
            )
    reason = str(journal.end.get("reason", ""))
    if "finite" in reason:
        return Finding(name, "problem", f"the run stopped: {reason}", number(journal.end.get("step")), do)
    return Finding(name, "ok", f"every loss of {len(journal.steps)} steps is finite", 0.0)


def _end(journal: Journal) -> Finding | None:
    if journal.end and not journal.broken_lines:
        return None
    step = journal.steps[-1]["step"] if journal.steps else 0
    what = f"the journal stops at step {step} with no end: the run was killed, failed, or is still going"
    if journal.broken_lines:
        what += f"; {journal.broken_lines} line(s) are cut or damaged"
    return Finding("unfinished run", "warn", what, float(step), "go on with --resume")


def _divergence(journal: Journal, losses: Floats) -> Finding:
    """The end of the curve against its lowest stretch, both as medians over a twentieth of the run."""
    window = max(5, len(losses) // 20)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(losses, window), axis=1)  # (n - window + 1,)
    lowest, end = float(medians.min()), float(medians[-1])
    rise = end - lowest
    noise = float(np.median(np.abs(np.diff(losses))))
    if rise > max(TELLING, TELLING * lowest, 4 * noise / math.sqrt(window)):
        rate = max((r for step in journal.steps if (r := number(step.get("learning_rate"))) is not None), default=None)
        at = f" at a learning rate of up to {rate:.2g}" if rate is not None else ""
        third = f" (try {rate / 3:.1g})" if rate is not None else ""
        what = f"the loss fell to {lowest:.2f} and then rose to {end:.2f} nats{at}"
        return Finding(
            "diverging loss", "problem", what, rise, f"lower the learning rate{third}, or warm up for longer"
        )
    return Finding(
        "diverging loss", "ok", f"the loss ends within {max(rise, 0):.2f} nats of its lowest stretch", max(rise, 0.0)
    )


def _spikes(losses: Floats) -> Finding:
    """Single steps far above the median of their neighbours, after the first tenth of the run."""
    half = max(3, len(losses) // 100)
    padded = np.pad(losses, half, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)  # (n,)
    above = (losses - medians)[len(losses) // 10 :]
    noise = 1.4826 * float(np.median(np.abs(above)))  # a normal deviation's share of its median absolute value
    spikes = above > np.maximum(max(8 * noise, TELLING), TELLING * medians[len(losses) // 10 :])
    number_of = int(spikes.sum())
    if number_of:
        what = f"{number_of} step(s) lie far above their neighbours, the worst by {above.max():.2f} nats"
        do = "lower the learning rate or max_grad_norm if they grow; look at those batches if they do not"
        return Finding("loss spikes", "warn", what, float(number_of), do)
    return Finding("loss spikes", "ok", "no step lies far above its neighbours", 0.0)


def _progress(tokens: Floats, losses: Floats, entropy: float | None) -> Finding:
    """Stuck, still falling, or settled: from the slope of the loss over log2(tokens) in the second half of the run."""
    late = tokens >= tokens[-1] / 2
    end = float(np.median(losses[-max(5, len(losses) // 20) :]))
    gain, error = _gain_of_doubling(tokens[late], losses[late])
    falling = gain > max(WORTH * end, 2 * error)
    if entropy is not None and end >= AT_ENTROPY * entropy and not falling:
        what = (
            f"the loss stays at {end:.2f} nats, and knowing only how frequent each token is gives {entropy:.2f}: "
            "the model has not begun to use the context"
        )
        do = (
            "check what the model sees (pluri doctor on the store), raise the learning rate or warm up for longer, "
            "use pre-norm (preset modern); with few tokens, train for longer"
        )
        return Finding("plateau at unigram entropy", "problem", what, end / entropy, do)
    if falling:
        what = f"the loss is {end:.2f} nats and still falling: at this slope, twice the tokens may buy {gain:.2f} nats"
        do = f"train for longer, perhaps to about {end - gain:.2f} nats"
        return Finding("under-trained", "warn", what, gain, do)
    what = f"the loss ends at {end:.2f} nats and has settled: twice the tokens would buy about {max(gain, 0):.2f}"
    if entropy is not None:
        what += f"; frequencies alone give {entropy:.2f}"
    return Finding("under-trained", "ok", what, max(gain, 0.0))


def _gain_of_doubling(tokens: Floats, losses: Floats) -> tuple[float, float]:
    """(nats that twice the tokens would take off the loss, standard error), by least squares over log2(tokens)."""
    x = np.log2(tokens) - np.log2(tokens).mean()
    spread = float((x**2).sum())
    if len(x) < 5 or spread == 0:
        return 0.0, math.inf
    slope = float((x * losses).sum()) / spread
    residuals = losses - losses.mean() - slope * x
    return -slope, math.sqrt(float((residuals**2).sum()) / (len(x) - 2) / spread)


def diagnose_machine(journal: Journal | None = None) -> Finding:
    """Whether bf16 is fast: as the journal recorded it, else measured here."""
    recorded = journal.machine.get("fast_bf16") if journal is not None else None
    fast = recorded if isinstance(recorded, bool) else fast_bf16()
    name = "no fast bf16"
    if fast:
        return Finding(name, "ok", "bf16 products are fast on this machine, and training uses them", 1.0)
    training = journal.config.get("training") if journal is not None else None
    forced = isinstance(training, dict) and training.get("precision") == "bf16"
    what = "this machine multiplies 16-bit bf16 numbers no faster than 32-bit ones"
    if forced:
        what += ", yet the run asked for bf16, which may be hundreds of times slower"
        return Finding(name, "problem", what, 0.0, 'set training.precision = "auto"')
    what += ", so training runs in fp32"
    do = "nothing is wrong; a processor with AMX or AVX512-BF16, or a GPU, would train two to several times faster"
    return Finding(name, "warn", what, 0.0, do)
