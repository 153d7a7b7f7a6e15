"""The loss of training: its curve over tokens and minutes, against the unigram entropy, and the numbers behind it."""

import html
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pluri.report.charts import COLOURS, Figure, Section, colour
from pluri.report.words import listed
from pluri.run.folder import Journal, number

POINTS = 500


def loss_section(journals: Sequence[tuple[str, Journal]]) -> Section | None:
    drawn = [(name, journal) for name, journal in journals if journal.steps]
    if not drawn:
        return None
    return {
        "figure": loss_figure(drawn),
        "legend": [{"name": name, "slot": slot % COLOURS} for slot, (name, _) in enumerate(drawn)]
        if len(drawn) > 1
        else [],
        "timed": all(number(step.get("seconds")) is not None for _, j in drawn for step in j.steps[-1:]),
        "entropy": any(journal.unigram_entropy is not None for _, journal in drawn),
        "held_out": any(journal.validations for _, journal in drawn),
        "notes": [
            note for name, journal in drawn for note in _loss_notes(f"{name}: " if len(drawn) > 1 else "", journal)
        ],
        "table": [row for name, journal in drawn for row in _loss_rows(name, journal)],
    }


def _loss_notes(prefix: str, journal: Journal) -> list[str]:
    losses = [loss for step in journal.steps if (loss := number(step.get(loss_key(journal)))) is not None]
    notes = []
    if losses:
        last, entropy = settled(losses), journal.unigram_entropy
        text = f"{prefix}the loss ended at {last:.2f} nats, as unsure as among {count_of(last)} equally likely tokens"
        if entropy is not None:
            text += f"; knowing only how frequent each token is gives {entropy:.2f} nats, {count_of(entropy)} tokens"
        unseen = held_out(journal)
        if unseen is not None:
            text += f". On text held out from training it is {unseen:.2f} nats"
            bits = number(journal.validations[-1].get("eval_bits_per_byte"))
            text += f", {bits:.3f} bits a byte" if bits is not None else ""
        notes.append(f"{text[0].upper()}{text[1:]}.")
    if sampled := journal.start.get("sampled"):
        text = f"{prefix}{_sampled(journal, sampled)}"
        notes.append(f"{text[0].upper()}{text[1:]}")
    if not journal.end:
        notes.append(f"{prefix}the journal has no end, so the run was stopped or is still going.")
    if journal.broken_lines:
        notes.append(f"{prefix}{journal.broken_lines} journal line(s) were cut or damaged and left out.")
    return notes


def _sampled(journal: Journal, sampled: Mapping[str, float]) -> str:
    """How much each of several stores gave, and how well its own text held out is guessed."""
    last = journal.validations[-1] if journal.validations else {}
    key = validation_key(last)
    parts = []
    for name, share in sampled.items():
        loss = number(last.get(f"{key}_{name}"))
        parts.append(f"{name} {share:.1%}" + ("" if loss is None else f" ({loss:.2f} nats on its text held out)"))
    return f"the sequences came from {listed(parts)}."


def _loss_rows(name: str, journal: Journal) -> list[Section]:
    """Ten evenly spaced points of the smoothed curve, the last one among them."""
    key = loss_key(journal)
    steps = [step for step in journal.steps if number(step.get(key)) is not None]
    smooth = _drawn([float(step[key]) for step in steps])
    last = len(steps) - 1
    return [
        {
            "name": name,
            "tokens": f"{number(steps[i].get('tokens')) or 0:,.0f}",
            "minutes": f"{(number(steps[i].get('seconds')) or 0) / 60:.1f}",
            "loss": f"{smooth[i]:.2f}",
            "choices": count_of(smooth[i]),
        }
        for i in sorted({round(last * (k + 1) / 10) for k in range(10)})
        if steps
    ]


def loss_figure(journals: Sequence[tuple[str, Journal]]) -> Figure:
    """Loss against tokens; `x_tokens` and `x_minutes` of each trace let the page switch the axis."""
    traces = [
        trace for slot, (name, journal) in enumerate(journals) for trace in _traces(html.escape(name), journal, slot)
    ]
    entropies = sorted({round(e, 4) for _, journal in journals if (e := journal.unigram_entropy) is not None})
    style = {"color": "var(--ink-2)", "width": 1.5, "dash": "dash"}
    layout = {
        "xaxis": {"title": {"text": "tokens read"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "loss (nats a token)"}},
        "shapes": [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": entropy, "y1": entropy, "line": style}
            for entropy in entropies
        ],
        "annotations": [
            {
                "text": f"knowing only how frequent each token is: {entropy:.2f}",
                "font": {"color": "var(--ink-2)"},
                "xref": "paper",
                "x": 1,
                "xanchor": "right",
                "y": entropy,
                "yanchor": "bottom",
                "showarrow": False,
            }
            for entropy in entropies
        ],
    }
    return {"data": traces, "layout": layout}


def _traces(name: str, journal: Journal, slot: int) -> list[dict[str, Any]]:
    """Each batch, thin; smoothed, thick; and rings for the text held out."""
    key, ink = loss_key(journal), colour(slot)
    steps = [step for step in journal.steps if number(step.get(key)) is not None]
    smooth = _drawn([float(step[key]) for step in steps])
    picked = _thinned(range(len(steps)))
    some = [steps[i] for i in picked]
    thin, thick = {"color": ink, "width": 1}, {"color": ink, "width": 2.5}
    raw = _curve(some, [step[key] for step in some], name=name, line=thin, opacity=0.28, hoverinfo="skip")
    traces = [raw, _curve(some, [smooth[i] for i in picked], name=name, line=thick)]
    checks = [v for v in journal.validations if number(v.get(validation_key(v))) is not None]
    if checks:
        ring = {"color": "var(--paper)", "size": 7, "line": {"color": ink, "width": 2}}
        values = [v[validation_key(v)] for v in checks]
        traces.append(_curve(checks, values, name=f"{name}, held-out text", mode="markers", marker=ring))
    return [{**trace, "meta": slot % COLOURS} for trace in traces]


def _curve(events: Sequence[dict[str, Any]], losses: list[float], **style: Any) -> dict[str, Any]:
    tokens = [number(event.get("tokens")) for event in events]
    minutes = [None if (s := number(event.get("seconds"))) is None else round(s / 60, 4) for event in events]
    as_words = [f"as unsure as among {count_of(loss)} equally likely tokens" for loss in losses]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": tokens,
        "x_tokens": tokens,
        "x_minutes": minutes,
        "y": [round(loss, 4) for loss in losses],
        "text": as_words,
        "hovertemplate": "%{y:.3f} nats<br>%{text}<extra>%{fullData.name}</extra>",
        **style,
    }


def loss_key(journal: Journal) -> str:
    """Pretraining is judged by the loss on blanks alone, which compares with the unigram entropy."""
    return "masked_loss" if any("masked_loss" in step for step in journal.steps) else "loss"


def validation_key(event: dict[str, Any]) -> str:
    return "eval_masked_loss" if "eval_masked_loss" in event else "eval_loss"


def held_out(journal: Journal) -> float | None:
    """The newest loss on text held out from training."""
    losses = (number(event.get(validation_key(event))) for event in reversed(journal.validations))
    return next((loss for loss in losses if loss is not None), None)


def count_of(loss: float) -> str:
    """exp(loss), the perplexity, in two or three digits."""
    choices = math.exp(min(loss, 50))
    return f"{choices:,.0f}" if choices >= 10 else f"{choices:.1f}"


def _thinned(places: range) -> list[int]:
    """At most POINTS of them, evenly spaced, the last one kept: a page need not carry every step."""
    if len(places) <= POINTS:
        return list(places)
    return [places[round(i * (len(places) - 1) / (POINTS - 1))] for i in range(POINTS)]


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over about 4% of the values around each; narrower near both ends, so that a falling curve is not lagged."""
    sums = [0.0, *itertools.accumulate(values)]
    wide, last = len(values) // 50, len(values) - 1
    means = []
    for i in range(len(values)):
        half = min(wide, i, last - i)
        means.append((sums[i + half + 1] - sums[i - half]) / (2 * half + 1))
    return means


def _drawn(values: Sequence[float]) -> list[float]:
    """The smoothed curve, which ends where the text says that it ended, not at the chance of the last batch."""
    return [*smoothed(values)[:-1], settled(values)] if values else []


def settled(values: Sequence[float]) -> float:
    """Where a curve ended: the mean of its last 2%, at least five values."""
    return statistics.fmean(values[-max(5, len(values) // 50) :])
