"""A page of sections made of text, plots, tables and sentences: for what one command measured.

Every plot has its numbers in a table beside it, or is told in words.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pluri.checkpoints.checkpoint import atomic_file
from pluri.report.charts import COLOURS, MARKERS, Figure, Section, colour
from pluri.report.render import rendered
from pluri.report.reproduce import versions
from pluri.report.words import Headline


@dataclass(frozen=True, slots=True)
class Page:
    """sections: each {"title", "blocks"}, blocks being what the functions below make. command: that made it."""

    title: str
    headline: Headline
    command: str
    sections: list[Section] = field(default_factory=list)

    def add(self, title: str, *blocks: Section) -> None:
        self.sections.append({"title": title, "blocks": list(blocks)})

    def write(self, output: str | Path) -> Path:
        """Writes one HTML file. UsageError: a needed package is missing. DataError: it cannot be written."""
        output, figures = Path(output), {}
        for i, section in enumerate(self.sections):
            for j, block in enumerate(section["blocks"]):
                if block["kind"] == "plot":
                    block["id"] = f"plot-{i}-{j}"
                    figures[block["id"]] = block["figure"]
        content = {"title": self.title, "headline": self.headline, "command": self.command, "versions": versions()}
        page = rendered("page.html.j2", {**content, "sections": self.sections, "figures": figures})
        with atomic_file(output) as file:
            file.write(page.encode())
        return output


@dataclass(frozen=True, slots=True)
class Line:
    """x, y: the points. low, high: of their intervals, if they have any. dashed: a baseline, without markers."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


def text(*paragraphs: str, heading: str = "") -> Section:
    return {"kind": "text", "paragraphs": paragraphs, "heading": heading}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", folded: str = "") -> Section:
    """The first cell of a row names it; of the others each may be (value, what stands small below it).

    folded: what is shown instead, until it is clicked.
    """
    cells = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    return {"kind": "table", "head": head, "rows": cells, "caption": caption, "folded": folded}


def plot(
    figure: Figure, label: str, *, caption: str = "", legend: Sequence[Section] = (), choices: Sequence[str] = ()
) -> Section:
    """label: what it shows, for who cannot see it. choices: the groups of its traces, by their names; one is shown."""
    rows = len(figure["data"][0]["y"]) if figure["data"][0]["type"] == "heatmap" else 0
    more = {"caption": caption, "legend": legend, "choices": choices, "rows": rows}
    return {"kind": "plot", "figure": figure, "label": label, **more}


def lines(
    each: Sequence[Line], label: str, *, x: str, y: str, caption: str = "", range_y: Sequence[float] | None = None
) -> Section:
    """A line chart, with the bands of the intervals, and a legend if there are several lines."""
    traces: list[dict[str, Any]] = []
    for slot, line in enumerate(each):
        common = {"type": "scatter", "name": html.escape(line.name), "meta": slot % COLOURS}
        points = list(line.x)
        if line.low is not None and line.high is not None:
            band = {"x": [*points, *reversed(points)], "y": [*_rounded(line.high), *reversed(_rounded(line.low))]}
            fill = {"fill": "toself", "mode": "none", "fillcolor": colour(slot), "opacity": 0.16, "hoverinfo": "skip"}
            traces.append({**common, **band, **fill})
        stroke = {"color": colour(slot), "width": 2.5, **({"dash": "dash"} if line.dashed else {})}
        marker = {"color": colour(slot), "size": 7, "symbol": MARKERS[slot % COLOURS]}
        traces.append(
            {
                **common,
                "mode": "lines" if line.dashed else "lines+markers",
                "x": points,
                "y": _rounded(line.y),
                "line": stroke,
                "marker": marker,
                "hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>",
            }
        )
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}, "dtick": 1},
        "yaxis": {"title": {"text": y}, **({"range": list(range_y)} if range_y else {})},
    }
    legend = [{"name": line.name, "slot": slot % COLOURS} for slot, line in enumerate(each)]
    return plot({"data": traces, "layout": layout}, label, caption=caption, legend=legend if len(each) > 1 else ())


def heat(
    maps: Mapping[str, Any], names: Sequence[str], low: float, high: float | None, axes: tuple[str, str]
) -> Figure:
    """A heat map, or one for each group. maps: name to values, (n, n). names: n, each another.

    low, high: the values of the lightest and the darkest; None: of each map its largest.
    axes: what rows and columns are.
    """
    common = {
        "type": "heatmap",
        "x": [html.escape(name) for name in names],
        "y": [html.escape(name) for name in names],
        "zmin": low,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "var(--heat-0)"], [0.4, "var(--heat-1)"], [0.7, "var(--heat-2)"], [1, "var(--heat-3)"]],
        "showscale": False,
        "hovertemplate": f"{axes[0]} %{{y}}, {axes[1]} %{{x}}: %{{z:.2f}}<extra></extra>",
    }
    traces = [
        {
            **common,
            "zmax": float(np.max(values)) if high is None else high,
            "z": np.round(np.asarray(values, np.float64), 3).tolist(),
            "group": name,
        }
        for name, values in maps.items()
    ]
    ticks = {"type": "category", "showgrid": False, "zeroline": False, "ticks": ""}
    layout = {
        "xaxis": {**ticks, "side": "top", "title": {"text": axes[1]}},
        "yaxis": {**ticks, "autorange": "reversed", "title": {"text": axes[0]}},
    }
    return {"data": traces, "layout": layout, "group": next(iter(maps))}


def sentences(title: str, each: Sequence[tuple[str, str, str]], note: str = "") -> Section:
    """Sentences with a part that stands out: what is before it, the part, what is after it."""
    return {"kind": "sentences", "title": title, "sentences": each, "note": note}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
