"""Verbs that say what happened."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import pluri
from pluri.cli.base import Answer, Json, OneFile, Paths, app


@app.command
def report(runs: Paths, /, *, output: OneFile, as_json: Json = False) -> Answer:
    """Write one HTML file about runs: loss, label efficiency, ledger, filled blanks. It needs no network.

    Example: pluri report run reviews -o report.html
    """
    pluri.write_report(runs, output)
    return Answer({"output": output}, f"open {output}", as_json)


@app.command
def doctor(
    paths: Annotated[list[Path] | None, Parameter(help="Run folders, stores, files.", negative="")] = None,
    /,
    *,
    show_corruption: Annotated[Path | None, Parameter(help="Show what denoising makes of a file's lines.")] = None,
    tokenizer: Annotated[Path | None, Parameter(help="For these lines: a tokenizer, a store or a model.")] = None,
    language: str = "en",
    as_json: Json = False,
) -> Answer:
    """Say by name what is wrong with runs, stores or files. The exit code is 1 if there is a problem.

    Example: pluri doctor run store train.csv test.csv

    Args:
        language: ISO 639-1 code, for the sentences of the shown lines.
    """
    if show_corruption is not None:
        from pluri.run.corruption import corruption_text

        shown = pluri.show_corruption(show_corruption, tokenizer, language=language)
        return Answer([asdict(each) for each in shown], corruption_text(shown), as_json)
    from rich.console import Console

    from pluri.run.findings import show_findings

    findings = pluri.diagnose(paths or [])
    console = Console(file=sys.__stdout__)
    with console.capture() as told:
        show_findings(findings, console)
    healthy = all(finding.severity != "problem" for finding in findings)
    return Answer([asdict(finding) for finding in findings], told.get().rstrip(), as_json, done=healthy)
