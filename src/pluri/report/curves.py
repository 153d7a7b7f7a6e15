"""How each fine-tuning went: the training loss, and under it the validation metric, over the steps.

Legend: S seeds, P points of a line.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError
from pluri.report.charts import COLOURS, MARKERS, Figure, Section, colour
from pluri.report.comparison import LOWER_IS_BETTER, PERCENT
from pluri.report.starts import Course, verdicts
from pluri.report.words import METRICS, metric_name
from pluri.sequences import read_rows

Points = list[tuple[float, float]]  # (step, value)
_ABOUT = {"method", "seed", "labelled", "step", "tokens", "loss"}


@dataclass(slots=True)
class _Runs:
    """The fine-tunings of one method with one number of labels. losses, found: the points of each seed."""

    losses: dict[str, Points] = field(default_factory=dict)
    found: dict[str, Points] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Line:
    """The mean over S seeds and its range, at steps that all of them made: float64 (P,) each."""

    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    seeds: int

    @classmethod
    def through(cls, seeds: Iterable[Points]) -> "_Line":
        """At the steps of the shortest run; the others, whose steps may differ a bit, are read off between theirs."""
        curves = sorted((np.array(points) for points in seeds), key=lambda curve: curve[-1, 0])  # (P, 2) each
        steps = curves[0][:, 0]
        values = np.stack([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves])  # (S, P)
        return cls(steps, values.mean(0), values.min(0), values.max(0), len(curves))


def curves_section(file: Path, slots: Mapping[str, int], unit: str) -> Section:
    """What curves.jsonl of a fine-tuning tells. slots: the colours of the methods, some of which are named after runs.

    DataError, with file:line: a line is not one of a curve.
    """
    metric, read = _read(file)
    found = dict(sorted(read.items(), key=lambda item: item[0][0]))
    name = file.parent.resolve().name
    methods = {method: slots.get(method, slots.get(f"{method} ({name})", len(slots))) for _, method in found}
    methods = dict(sorted(methods.items(), key=lambda item: item[1]))
    counts = sorted({count for count, _ in found})
    percent = metric in PERCENT
    return {
        "metric": metric_name(metric),
        "meaning": METRICS.get(metric, ("", ""))[1],
        "legend": [{"name": method, "slot": slot % COLOURS} for method, slot in methods.items()],
        "counts": [{"value": str(count), "shown": f"{count:,}"} for count in counts],
        "unit": unit,
        "starts": _starts(found, counts[-1], metric, percent),
        "seeds": max(len(runs.losses) for runs in found.values()),
        "figure": _figure(found, methods, counts[-1], metric, percent),
        "table": [_row(method, methods, count, runs, metric, percent) for (count, method), runs in found.items()],
    }


def _read(file: Path) -> tuple[str, dict[tuple[int, str], _Runs]]:
    """The metric, and the runs by (labelled, method)."""
    metric = ""
    found: dict[tuple[int, str], _Runs] = {}
    for row, where in read_rows(str(file)):
        metric = metric or next((key for key in row if key not in _ABOUT), "")
        try:
            runs = found.setdefault((int(row["labelled"]), str(row["method"])), _Runs())
            step, seed = float(row["step"]), str(row["seed"])
            runs.losses.setdefault(seed, []).append((step, float(row["loss"])))
            if metric in row:
                runs.found.setdefault(seed, []).append((step, float(row[metric])))
        except (KeyError, TypeError, ValueError) as error:
            do = "remove the file, or fine-tune again"
            raise DataError(f"not a point of a curve: {error}", where=where, do=do) from None
    return metric, found


def _starts(found: Mapping[tuple[int, str], _Runs], count: int, metric: str, percent: bool) -> list[str]:
    """See `verdicts`; of the most labels."""
    runs = {method: runs for (labelled, method), runs in found.items() if labelled == count}
    courses = {m: {s: Course(loss, r.found.get(s, ())) for s, loss in r.losses.items()} for m, r in runs.items()}
    return verdicts(courses, metric, percent)


def _figure(
    found: Mapping[tuple[int, str], _Runs], methods: Mapping[str, int], shown: int, metric: str, percent: bool
) -> Figure:
    """The loss above, the metric below. group: the number of labels of a trace; of the figure, which is shown first."""
    traces = []
    for (count, method), runs in found.items():
        for axis, points, scale in (("y", runs.losses, 1), ("y2", runs.found, 100 if percent else 1)):
            if points:
                line = _Line.through(points.values())
                traces += _traces(line, html.escape(method), methods[method], axis, scale, str(count))
    layout = {
        "xaxis": {"title": {"text": "steps of training"}, "anchor": "y2", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "training loss"}, "domain": [0.54, 1]},
        "yaxis2": {
            "title": {"text": f"{html.escape(metric_name(metric))}, validation"},
            "ticksuffix": "%" if percent else "",
            "domain": [0, 0.44],
        },
    }
    return {"data": traces, "layout": layout, "group": str(shown)}


def _traces(line: _Line, name: str, slot: int, axis: str, scale: int, group: str) -> Iterator[dict[str, Any]]:
    """The range over the seeds, if there are several, and the mean; with a marker wherever it was validated."""
    common = {"type": "scatter", "yaxis": axis, "name": name, "meta": slot % COLOURS, "group": group}
    mean, low, high = ([round(float(scale * v), 4) for v in side] for side in (line.mean, line.low, line.high))
    steps = line.steps.tolist()
    if line.seeds > 1:
        band = {"x": [*steps, *reversed(steps)], "y": [*high, *reversed(low)], "fill": "toself", "mode": "none"}
        yield {**common, **band, "fillcolor": colour(slot), "opacity": 0.16, "hoverinfo": "skip"}
    digits, unit = (1, "%") if scale == 100 else (3, "")
    notes = [
        f"{a:.{digits}f} to {b:.{digits}f}" if line.seeds > 1 else "one seed" for a, b in zip(low, high, strict=True)
    ]
    marker = {"color": colour(slot), "size": 7, "symbol": MARKERS[slot % COLOURS]}
    marked = {"mode": "lines+markers", "marker": marker} if axis == "y2" else {}
    yield {
        **common,
        "mode": "lines",
        **marked,
        "x": steps,
        "y": mean,
        "line": {"color": colour(slot), "width": 2.5 if slot == 0 else 2},
        "text": notes,
        "hovertemplate": f"%{{y:.{digits}f}}{unit} at step %{{x:.0f}}<br>%{{text}}<extra>%{{fullData.name}}</extra>",
    }


def _row(method: str, methods: Mapping[str, int], count: int, runs: _Runs, metric: str, percent: bool) -> Section:
    """Where the loss began and ended, and the best validation of the mean over the seeds, which is drawn."""
    loss = _Line.through(runs.losses.values())
    row = {
        "name": method,
        "slot": methods[method] % COLOURS,
        "count": f"{count:,}",
        "first": f"{loss.mean[0]:.3f}",
        "last": f"{loss.mean[-1]:.3f}",
        "best": "–",
        "step": "–",
    }
    if runs.found:
        found = _Line.through(runs.found.values())
        best = int((found.mean.argmin if metric in LOWER_IS_BETTER else found.mean.argmax)())
        value = found.mean[best]
        row |= {"best": f"{100 * value:.1f}%" if percent else f"{value:.3f}", "step": f"{found.steps[best]:,.0f}"}
    return row
