"""Which labels are taken for which: the heat map of the most frequent ones, and the most frequent mistakes."""

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pluri.report.charts import Figure, Section
from pluri.report.words import count
from pluri.run.folder import number

CLASSES = 15
OTHER = "all others"
MISTAKES = 8


def confusion_section(confusion: Mapping[str, Any], glossary: dict[str, str]) -> Section | None:
    labels, matrix = confusion.get("labels"), confusion.get("matrix")
    if not isinstance(labels, list) or not isinstance(matrix, list) or len(labels) != len(matrix):
        return None
    if not all(isinstance(row, list) and len(row) == len(labels) for row in matrix):
        return None
    counts = [[number(value) or 0.0 for value in row] for row in matrix]
    total = sum(map(sum, counts))
    if not total:
        return None
    names = [str(label) for label in labels]
    pairs = itertools.permutations(range(len(names)), 2)
    mistakes = sorted(((counts[i][j], i, j) for i, j in pairs if counts[i][j]), reverse=True)[:MISTAKES]
    top, merged = top_classes(names, counts)
    return {
        "figure": confusion_figure(top, merged, glossary),
        "labels": top,
        "classes": len(names),
        "shown": len(top) if len(top) == len(names) else len(top) - 1,
        "drawn": len(top),
        "meanings": [(label, glossary[label]) for label in top if glossary.get(label)],
        "total": count(total),
        "accuracy": f"{100 * sum(counts[i][i] for i in range(len(names))) / total:.1f}%",
        "errors": [
            {
                "true": names[i],
                "true_gloss": glossary.get(names[i], ""),
                "answer": names[j],
                "answer_gloss": glossary.get(names[j], ""),
                "times": f"{times:,.0f}",
                "share": f"{100 * times / sum(counts[i]):.0f}%",
                "cell": cell(names[i], names[j], top),
            }
            for times, i, j in mistakes
        ],
    }  # fmt: skip


def top_classes(labels: list[str], matrix: list[list[float]]) -> tuple[list[str], list[list[float]]]:
    """The CLASSES most frequent true classes, all others added up into one, so that no answer is left out."""
    order = sorted(range(len(labels)), key=lambda i: -sum(matrix[i]))
    if len(labels) <= CLASSES + 1:
        groups = [[i] for i in order]
        names = [labels[i] for i in order]
    else:
        groups = [[i] for i in order[:CLASSES]] + [order[CLASSES:]]
        names = [labels[i] for i in order[:CLASSES]] + [OTHER]
    merged = [[float(sum(matrix[i][j] for i in rows for j in columns)) for columns in groups] for rows in groups]
    return names, merged


def cell(true: str, said: str, drawn: Sequence[str]) -> str:
    """ "row-column" of the matrix as it is drawn, with its classes `drawn`; "" where a label has no place in it."""
    rest = len(drawn) - 1 if drawn and drawn[-1] == OTHER else None
    row, column = (drawn.index(label) if label in drawn else rest for label in (true, said))
    return "" if row is None or column is None else f"{row}-{column}"


def confusion_figure(labels: list[str], matrix: list[list[float]], glossary: dict[str, str]) -> Figure:
    """Rows: the true class; columns: the answer; a row adds up to 100%. matrix: counts, as `top_classes` gives them."""
    shares = [[100 * value / total if (total := sum(row)) else 0.0 for value in row] for row in matrix]
    escaped = [html.escape(f"{label} · {glossary[label]}" if glossary.get(label) else label) for label in labels]
    short = ["…" if label == OTHER else html.escape(label) for label in labels]
    places = list(range(len(labels)))
    data = {
        "type": "heatmap",
        "z": [[round(share, 2) for share in row] for row in shares],
        "x": places,
        "y": places,
        "zmin": 0,
        "zmax": 100,
        "xgap": 1,
        "ygap": 1,
        "colorscale": [[0, "var(--heat-0)"], [0.02, "var(--heat-1)"], [0.25, "var(--heat-2)"], [1, "var(--heat-3)"]],
        "showscale": False,
        "text": [[f"{share:.0f}" if share >= 0.5 else "" for share in row] for row in shares],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
        "customdata": [
            [[escaped[i], escaped[j], f"{matrix[i][j]:,.0f}", shares[i][j]] for j in places] for i in places
        ],
        "hovertemplate": "truly <b>%{customdata[0]}</b><br>answered <b>%{customdata[1]}</b>"
        "<br>%{customdata[2]} times, %{customdata[3]:.1f}% of its row<extra></extra>",
    }
    ticks = {"tickvals": places, "showgrid": False, "zeroline": False, "ticks": ""}
    layout = {
        "xaxis": {**ticks, "ticktext": short, "side": "top", "title": {"text": "answer"}},
        "yaxis": {**ticks, "ticktext": escaped, "autorange": "reversed"},
        "hovermode": "closest",
    }
    return {"data": [data], "layout": layout}
