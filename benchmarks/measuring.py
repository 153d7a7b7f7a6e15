"""What the benchmarks share: options, real text, alternating timing, and the table."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def arguments(description: str) -> argparse.ArgumentParser:
    """--json FILE, --quick, and --text FILE ..., as every benchmark takes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the rows here, a JSON list")
    parser.add_argument("--quick", action="store_true", help="under 5 minutes: fewer cases and repetitions")
    parser.add_argument("--text", nargs="+", help="text files, one document a line; default: the quickstart's reviews")
    return parser


def documents(files: list[str] | None) -> list[str]:
    """Real documents of natural lengths."""
    if not files:
        from pluri.run.builtin import reviews

        return [text for text, _ in reviews()]
    from pluri.sequences.files import expand
    from pluri.sequences.readers import read_records

    return [record.text for file in expand(files) for record in read_records(file)]


def alternate(
    sides: dict[str, Callable[[int], float]], rounds: int, minutes: float = math.inf
) -> dict[str, list[float]]:
    """Runs A B A B ...: side(round) returns a figure; one unmeasured round first. Figures of each side, by round.

    minutes: after so many no new round begins, but for the first that is measured.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    until = time.monotonic() + 60 * minutes
    for turn in range(rounds + 1):
        if turn > 1 and time.monotonic() > until:
            break
        for name, side in sides.items():
            figure = side(turn)
            if turn:
                figures[name].append(figure)
    return figures


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios, round by round: what drifts with the machine cancels."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def peak_memory(arguments: list[str]) -> float:
    """MiB of the largest process that this script, called again with `arguments`, needs."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, sys.argv[0], *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return int(result.stdout.split()[-1]) / 1024


def finish(rows: list[Row], path: Path | None, title: str) -> None:
    """Prints the table, and writes the rows if asked to."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    Console(width=200).print(table)
    if path:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
