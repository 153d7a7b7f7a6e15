"""How far a training is: a bar on a terminal; in a log, where no bar can move, a line every half minute."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_EVERY = 30.0  # seconds


class Meter:
    """Shows on stderr, while it is entered, what `update` is told. What took half a minute or more ends with a line.

    name: what is going on; None shows nothing.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._console = Console(stderr=True, quiet=name is None, highlight=False, markup=False)
        self._moves = self._console.is_interactive or self._console.is_jupyter
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        shown = name is not None and self._moves
        self._bar = Progress(*columns, console=self._console, disable=not shown, transient=True)
        self._task = self._bar.add_task(name or "", total=1.0, note="")
        self._began = self._said = time.monotonic()
        self._line = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if error is None and time.monotonic() - self._began >= _EVERY:
            self._console.print(self._line, soft_wrap=True)

    def update(self, event: dict[str, Any], spent: float) -> None:
        """event: of a step, as in the journal. spent: the share of the budget; a last step may go beyond 1."""
        spent, note = min(spent, 1.0), _note(event, min(spent, 1.0))
        self._bar.update(self._task, completed=spent, note=note)
        self._line = f"{self._name}: {spent:.0%}, {note}"
        if not self._moves and spent < 1 and time.monotonic() - self._said >= _EVERY:
            self._console.print(self._line, soft_wrap=True)
            self._said = time.monotonic()


def _note(event: dict[str, Any], spent: float) -> str:
    seconds = event["seconds"]
    parts = [f"loss {event['loss']:.3f}", f"{event['tokens_per_second']:,.0f} tokens/s"]
    if event["model_flops_use"]:  # the machine's peak is not measured for each short fine-tuning
        parts.append(f"{event['model_flops_use']:.0%} of peak")
    left = seconds * (1 - spent) / max(spent, 1e-9)
    parts.append(f"{left / 60:.1f} min left" if spent < 1 else f"{seconds / 60:.1f} min")
    return " · ".join(parts)
