"""How good each method is with how many labels: the curves, the table of results, the gains and their intervals."""

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

from pluri.report.charts import COLOURS, GREY, MARKERS, Figure, Section, colour
from pluri.report.comparison import Comparison, Estimate
from pluri.report.words import (
    COUNTS,
    METRICS,
    PRETRAINED,
    RANDOM_START,
    metric_name,
    pretrained_method,
    random_start,
    rival,
    shown,
    signed,
)

MAJORITY = "majority"


def method_slots(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """A colour and marker a method, the same all over the report.

    The pretrained model comes first, then the random start; the majority is grey.
    """
    methods = list(dict.fromkeys(method for comparison in comparisons for method in comparison.methods))
    methods.sort(key=lambda m: (not m.startswith(PRETRAINED), not m.startswith(RANDOM_START), m == MAJORITY))
    free = itertools.chain((slot for slot in range(COLOURS) if slot != GREY), itertools.count(COLOURS))
    return {method: GREY if method == MAJORITY else next(free) for method in methods}


def comparison_sections(comparisons: Sequence[Comparison], slots: dict[str, int], unit: str) -> list[Section]:
    """One section a task, by its first metric; the tables of its other metrics go along in `also`."""
    sections: dict[str, Section] = {}
    for comparison in comparisons:
        section = _section(comparison, slots, unit)
        if comparison.task in sections:
            sections[comparison.task]["also"].append(section)
        else:
            sections[comparison.task] = section
    return list(sections.values())


def _section(comparison: Comparison, slots: dict[str, int], unit: str) -> Section:
    methods = sorted(comparison.methods, key=lambda method: slots[method])
    drawable = len([size for size in comparison.counts if size > 0]) > 1
    return {
        "task": comparison.task,
        "metric": metric_name(comparison.metric),
        "meaning": METRICS.get(comparison.metric, ("", ""))[1],
        "legend": [{"name": method, "slot": slots[method] % COLOURS} for method in methods],
        "sizes": ["all" if size is None else f"{size:,}" for size in comparison.sizes],
        "unit": unit,
        "points": comparison.percent,
        "table": [_table_row(comparison, method, slots) for method in methods],
        "gains": _gains(comparison),
        "basis": _basis(comparison),
        "figure": efficiency_figure(comparison, slots, unit) if drawable else None,
        "also": [],
    }


def _table_row(comparison: Comparison, method: str, slots: dict[str, int]) -> Section:
    cells = []
    for size in comparison.sizes:
        found = comparison.estimate(method, size)
        cells.append(None if found is None else _cell(comparison, found, _best(comparison, size)))
    return {"name": method, "slot": slots[method] % COLOURS, "cells": cells}


def _best(comparison: Comparison, size: int | None) -> float:
    """The best mean of this size."""
    found = [comparison.estimate(method, size) for method in comparison.methods]
    return max((e.mean for e in found if e is not None), key=lambda mean: comparison.better * mean)


def _cell(comparison: Comparison, found: Estimate, best: float) -> Section:
    interval = ""
    if found.low is not None and found.high is not None:
        low, high = shown(comparison, found.low), shown(comparison, found.high)
        interval = f"{low.removesuffix('%')}–{high.removesuffix('%')}"
    return {
        "mean": shown(comparison, found.mean),
        "best": found.mean == best,
        "interval": interval,
        "seeds": found.seeds,
    }


def _gains(comparison: Comparison) -> list[Section]:
    """The pretrained model minus the random start, minus what it began from, and minus the best simple method."""
    ours = pretrained_method(comparison)
    if ours is None:
        return []
    simple = list(dict.fromkeys(filter(None, (rival(comparison, size) for size in comparison.sizes))))
    rivals = {
        RANDOM_START: lambda size: random_start(comparison, ours),
        COUNTS: lambda size: COUNTS,
        simple[0] if len(simple) == 1 else "best simple method": lambda size: rival(comparison, size),
    }
    rows = []
    for name, choose in rivals.items():
        cells = []
        for size in comparison.sizes:
            other = choose(size)
            found = comparison.difference(ours, other, size) if other is not None else None
            cells.append(None if found is None else _gain(comparison, found))
        if any(cells):
            rows.append({"name": name, "cells": cells})
    return rows


def _gain(comparison: Comparison, found: Estimate) -> Section:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"{signed(comparison, found.low)} to {signed(comparison, found.high)}"
    return {"mean": signed(comparison, found.mean), "interval": interval, "sign": found.sign * comparison.better}


def _basis(comparison: Comparison) -> str:
    """What the intervals are, for the caption."""
    found = [e for m in comparison.methods for s in comparison.sizes if (e := comparison.estimate(m, s)) is not None]
    kinds, seeds = {e.basis for e in found}, sorted({e.seeds for e in found if e.basis != "none"})
    several = "" if not seeds else f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = []
    if "seeds" in kinds:
        chance = "other draws of labels, another chance start"
        parts.append(f"Bars are 95% t intervals of the mean over {several} seeds ({chance}).")
    if "bootstrap" in kinds:
        chance = "test examples, and seeds where there are several, drawn again and again"
        parts.append(f"Bars {'also ' * bool(parts)}are 95% bootstrap intervals ({chance}).")
    if "none" in kinds:
        parts.append("A point without a bar was run once: there is no interval, so read it with care.")
    return " ".join(parts)


def efficiency_figure(comparison: Comparison, slots: dict[str, int], unit: str) -> Figure:
    """One line a method over the number of labels (logarithmic), with interval bars set slightly apart."""
    drawn = [method for method in comparison.methods if comparison.curve(method)]
    traces = [
        _line(comparison, method, slots[method], math.exp(0.028 * (place - (len(drawn) - 1) / 2)))
        for place, method in enumerate(drawn)
    ]
    traces.sort(key=lambda trace: trace["line"]["width"])  # the pretrained model lies on top
    sizes = [size for size in comparison.counts if size > 0]
    layout = {
        "xaxis": {
            "type": "log",
            "title": {"text": f"labelled {html.escape(unit)} (logarithmic)"},
            "tickvals": sizes,
            "ticktext": [f"{size:,}" for size in sizes],
        },
        "yaxis": {
            "title": {"text": html.escape(metric_name(comparison.metric))},
            "ticksuffix": "%" if comparison.percent else "",
        },
    }
    return {"data": traces, "layout": layout}


def _line(comparison: Comparison, method: str, slot: int, apart: float) -> dict[str, Any]:
    sizes = [size for size in comparison.curve(method) if size > 0]
    found = [e for size in sizes if (e := comparison.estimate(method, size)) is not None]
    scale, first = 100 if comparison.percent else 1, slot == 0
    above = [e.mean if e.high is None else e.high for e in found]
    below = [e.mean if e.low is None else e.low for e in found]
    notes = [
        "one seed, no interval" if e.half is None else f"{shown(comparison, low)} to {shown(comparison, high)}"
        for e, low, high in zip(found, below, above, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(method),
        "meta": slot % COLOURS,
        "x": [size * apart for size in sizes],
        "y": [scale * e.mean for e in found],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [scale * (high - e.mean) for e, high in zip(found, above, strict=True)],
            "arrayminus": [scale * (e.mean - low) for e, low in zip(found, below, strict=True)],
            "thickness": 1.5,
            "width": 3,
            "color": colour(slot),
        },
        "line": {"color": colour(slot), "width": 3.5 if first else 2},
        "marker": {"color": colour(slot), "size": 9 if first else 7, "symbol": MARKERS[slot % COLOURS]},
        "customdata": [
            [f"{size:,}", shown(comparison, e.mean), note, e.seeds]
            for size, e, note in zip(sizes, found, notes, strict=True)
        ],
        "hovertemplate": "<b>%{customdata[1]}</b> with %{customdata[0]} labels<br>%{customdata[2]}"
        "<br>seeds: %{customdata[3]}<extra>%{fullData.name}</extra>",
    }
