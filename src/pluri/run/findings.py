"""A finding: one thing that a check of a run, a store or files has to say, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

Severity = Literal["problem", "warn", "ok"]
ORDER: tuple[Severity, ...] = ("problem", "warn", "ok")
_STYLES: dict[Severity, tuple[str, str]] = {
    "problem": ("✗", "bold red"),
    "warn": ("!", "bold yellow"),
    "ok": ("✓", "green"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """name: the symptom's name, the same in every run. severity: ok, warn or problem.

    what: what was seen, in words. evidence: the number behind it (a share, nats, a count: `what` says which), or None.
    do: what the user can do about it; empty where there is nothing to do.
    """

    name: str
    severity: Severity
    what: str
    evidence: float | None = None
    do: str = ""


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Problems first, then warnings, then what is well; each in the order of the checks."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def show_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Prints the findings for a reader at a terminal."""
    console = console or Console()
    for finding in sort_findings(findings):
        sign, style = _STYLES[finding.severity]
        console.print(Text.assemble((f"{sign} {finding.name}", style), "  ", finding.what), soft_wrap=False)
        if finding.do:
            console.print(Padding(Text(f"→ {finding.do}", style="dim"), (0, 0, 0, 2)))
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in ORDER}
    problems, warnings = counts["problem"], counts["warn"]
    verdict = f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}, {counts['ok']} ok"
    console.print(Text(verdict, style="bold"))
