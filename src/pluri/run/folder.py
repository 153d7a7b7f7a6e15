"""What a run left behind: journals, results, filled blanks and stores, found in its folder and read leniently.

A run may have been killed at any moment: a cut line or file is told, and never stops the reading of the rest.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pluri.errors import UsageError
from pluri.training.journal import read_journal

DEPTH = 3
"""Levels of sub-folders searched: quickstart keeps DIR/store, DIR/pretrain, DIR/finetune/<size>-<seed>."""


@dataclass(frozen=True, slots=True)
class Journal:
    """One journal.jsonl. `start` and `end` are {} where the line is missing; steps rise strictly."""

    path: Path
    start: dict[str, Any]
    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    end: dict[str, Any]
    broken_lines: int

    @property
    def config(self) -> dict[str, Any]:
        config = self.start.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def machine(self) -> dict[str, Any]:
        machine = self.start.get("machine")
        return machine if isinstance(machine, dict) else {}

    @property
    def unigram_entropy(self) -> float | None:
        """Nats a token that always guessing by frequency would cost; only pretraining knows it."""
        return number(self.start.get("unigram_entropy"))

    @property
    def pretraining(self) -> bool:
        return self.unigram_entropy is not None or any("masked_loss" in step for step in self.steps[:5])

    def last(self, key: str) -> float | None:
        """The newest finite value of `key` in the steps."""
        values = (number(step.get(key)) for step in reversed(self.steps))
        return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class Results:
    """One results.json: rows of task, method, labelled, seed, metric, value, and what explains them.

    notes: what a reader must know to believe the rows. leaks: sequences of the named data that were also trained on.
    """

    path: Path
    rows: list[dict[str, Any]]
    minutes: float | None = None
    labels: list[str] = field(default_factory=list)
    confusion: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    glossary: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    leaks: dict[str, int] = field(default_factory=dict)
    command: str | None = None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Everything known in and below one folder. stores: path of a store -> its manifest. unreadable: files and why."""

    path: Path
    journals: list[Journal]
    results: list[Results]
    fills: list[dict[str, Any]]
    stores: dict[Path, dict[str, Any]]
    unreadable: list[str]


def number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_run(path: str | Path) -> RunFolder:
    """Searches `path` and three levels below. UsageError if it is no folder."""
    path = Path(path)
    if not path.is_dir():
        raise UsageError("no such run folder", where=str(path), do="give the output folder of a run")
    unreadable: list[str] = []
    journals = [load_journal(file) for file in _below(path, "journal.jsonl")]
    found = [(file, _read_json(file, unreadable)) for file in _topmost(_below(path, "results.json"))]
    fills = [_read_json(file, unreadable) for file in _topmost(_below(path, "fills.json"))]
    return RunFolder(
        path,
        journals,
        [_results(file, value) for file, value in found if isinstance(value, dict)],
        [item for value in fills if isinstance(value, list) for item in value if isinstance(item, dict)],
        _stores(path, journals, unreadable),
        unreadable,
    )


def load_journal(file: Path) -> Journal:
    """Reads one journal; what a kill cut short, and what stands after damage, is counted and left out."""
    events = read_journal(file)
    lines = sum(1 for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip())
    by_kind: dict[Any, list[dict[str, Any]]] = {"start": [], "step": [], "validation": [], "end": []}
    for event in events:
        same = by_kind.setdefault(event.get("event"), [])
        if "step" in event:  # a resumed run repeats the steps since its checkpoint: the newer ones count
            while same and same[-1].get("step", 0) >= event["step"]:
                same.pop()
        same.append(event)
    start, end = by_kind["start"], by_kind["end"]
    ended = end[-1] if events and events[-1].get("event") == "end" else {}
    broken = lines - len(events)
    return Journal(file, start[0] if start else {}, by_kind["step"], by_kind["validation"], ended, broken)


def _below(path: Path, name: str) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        yield from sorted(file for file in path.glob("*/" * depth + name) if file.is_file())


def _topmost(files: Iterator[Path]) -> list[Path]:
    """A folder's file speaks for the folders below it: quickstart gathers the rows of its fine-tunings."""
    kept: list[Path] = []
    for file in files:
        if not any(above.parent in file.parents for above in kept):
            kept.append(file)
    return kept


def _read_json(file: Path, unreadable: list[str]) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        unreadable.append(f"{file}: {error}")
        return None


def _results(file: Path, value: dict[str, Any]) -> Results:
    rows = value.get("rows")
    command = value.get("command")
    return Results(
        file,
        [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else [],
        number(value.get("minutes")),
        [str(label) for label in _of(value, "labels", list)],
        _of(value, "confusion", dict),
        {str(key): str(text) for key, text in _of(value, "about", dict).items()},
        {str(key): str(text) for key, text in _of(value, "glossary", dict).items()},
        [str(note) for note in _of(value, "notes", list)],
        {str(name): int(times) for name, v in _of(value, "leaks", dict).items() if (times := number(v))},
        command if isinstance(command, str) else None,
    )


def _of(value: dict[str, Any], key: str, kind: type) -> Any:
    item = value.get(key)
    return item if isinstance(item, kind) else kind()


def _stores(path: Path, journals: Sequence[Journal], unreadable: list[str]) -> dict[Path, dict[str, Any]]:
    files = list(_below(path, "manifest.json"))
    for journal in journals:
        store = journal.config.get("store")
        places = store.values() if isinstance(store, dict) else [store]
        files += [Path(place) / "manifest.json" for place in places if isinstance(place, str)]
    stores: dict[Path, dict[str, Any]] = {}
    for file in files:
        manifest = _read_json(file, unreadable) if file.is_file() else None
        if isinstance(manifest, dict) and isinstance(manifest.get("ledger"), dict):
            stores.setdefault(file.parent.resolve(), manifest)
    return stores
