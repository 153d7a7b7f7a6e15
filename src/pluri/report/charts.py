"""Charts as plotly.js figures: plain JSON. A colour is the name of a CSS variable: the page fills in light or dark.

Text from data is escaped where it enters a figure, because plotly.js reads a few HTML tags in labels.
"""

from typing import Any

Figure = dict[str, Any]
Section = dict[str, Any]
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
COLOURS = len(MARKERS)
GREY = 5


def colour(slot: int) -> str:
    return f"var(--series-{slot % COLOURS})"
