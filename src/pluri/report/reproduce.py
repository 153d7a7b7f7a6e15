"""How to do it again: the command, the configuration as TOML, the versions and the machine."""

import importlib.metadata
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pluri.run.folder import Journal, RunFolder

Facts = list[tuple[str, str]]
PACKAGES = ("pluri", "torch", "tokenizers", "numpy")


def reproduce_section(runs: Sequence[RunFolder]) -> dict[str, Any]:
    journals = [journal for run in runs for journal in run.journals]
    pretraining = [journal for journal in journals if journal.pretraining] or journals[:1]
    return {
        "commands": _commands(runs, journals),
        "configs": [
            {"name": journal.path.parent.name, "toml": to_toml(journal.config)}
            for journal in pretraining
            if journal.config
        ],
        "machine": _facts(next((journal.machine for journal in journals if journal.machine), {})),
        "versions": versions(journals),
    }


def _commands(runs: Sequence[RunFolder], journals: Sequence[Journal]) -> list[str]:
    """The commands that results and journals name; those that only name a configuration say how it is run."""
    named = [results.command for run in runs for results in run.results if results.command]
    if not named:
        named = [journal.start["command"] for journal in journals if isinstance(journal.start.get("command"), str)]
    if not named and any(journal.pretraining and journal.config for journal in journals):
        named = ["pluri pretrain config.toml"]
    names = " ".join(shlex.quote(run.path.resolve().name) for run in runs)
    return list(dict.fromkeys([*named, f"pluri report {names} -o report.html"]))


def _facts(machine: Mapping[str, Any]) -> Facts:
    return [
        (str(key).replace("_", " "), _fact(value))
        for key, value in machine.items()
        if key not in PACKAGES and value is not None
    ]


def _fact(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def versions(journals: Sequence[Journal] = ()) -> Facts:
    """The versions that the run wrote down; for the rest, those that are installed where the report was written."""
    recorded = next((journal.machine for journal in journals if journal.machine), {})
    started = next((str(v) for journal in journals if (v := journal.start.get("version"))), None)
    versions = {name: str(recorded[name]) for name in PACKAGES if name in recorded}
    if started is not None:
        versions.setdefault("pluri", started)
    for name in PACKAGES:
        if name not in versions:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
    return [(name, versions[name]) for name in PACKAGES if name in versions]


def to_toml(config: Mapping[str, Any]) -> str:
    """A configuration as TOML: JSON writes strings, numbers, booleans and flat lists alike; None is left out."""
    plain = {key: value for key, value in config.items() if value is not None and not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, table in config.items():
        if isinstance(table, Mapping):
            inner = to_toml(table).replace("\n[", f"\n[{key}.")
            inner = f"[{key}.{inner[1:]}" if inner.startswith("[") else inner
            lines += ["", f"[{key}]", inner]
    return "\n".join(lines).strip()
