"""Gathers runs and writes one HTML file: template, style, script, plotly.js and data, all inline."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pluri.checkpoints.checkpoint import atomic_file
from pluri.errors import DataError, UsageError
from pluri.report.answers import answers_section
from pluri.report.charts import Section
from pluri.report.comparison import Comparison, comparisons
from pluri.report.confusion import confusion_section
from pluri.report.curves import curves_section
from pluri.report.efficiency import comparison_sections, method_slots
from pluri.report.fills import fill_section
from pluri.report.ledger import ledger_section
from pluri.report.loss import loss_section
from pluri.report.mistakes import MOST, mistakes_section
from pluri.report.render import rendered
from pluri.report.reproduce import reproduce_section
from pluri.report.starts import over_tasks
from pluri.report.story import pretraining_headline, steps, tiles
from pluri.report.words import METHODS, Headline, headline
from pluri.run.doctor import diagnose
from pluri.run.findings import Finding, sort_findings
from pluri.run.folder import Journal, Results, RunFolder, read_run


def write_report(runs: Sequence[str | Path], output: str | Path, *, title: str | None = None) -> Path:
    """Writes the report of one or more run folders to the HTML file `output`, and returns its path.

    runs: folders; journals, results.json, fills.json and stores are searched in them and three levels below.
    title: a name for the page; by default those of the folders.
    UsageError: a folder is missing, or a needed package is. DataError: nothing to report, or `output` cannot
        be written.
    """
    if not runs:
        raise UsageError("no run folder given", do="give the output folder of at least one run")
    folders = [read_run(path) for path in runs]
    page = rendered("report.html.j2", _content(folders, title))
    output = Path(output)
    with atomic_file(output) as file:
        file.write(page.encode())
    return output


def _content(folders: Sequence[RunFolder], title: str | None) -> dict[str, Any]:
    """Everything the template shows. A section whose data is absent is None or empty, and left out."""
    results = [found for folder in folders for found in folder.results]
    journals = _named([journal for folder in folders for journal in folder.journals])
    stores = {path: manifest for folder in folders for path, manifest in folder.stores.items()}
    fills = [section for folder in folders for fill in folder.fills if (section := fill_section(fill)) is not None]
    compared = comparisons(_rows(folders))
    if not (compared or fills or stores or any(journal.steps for _, journal in journals)):
        places = ", ".join(str(folder.path) for folder in folders)
        raise DataError(
            "no journal, results, fills or store to report on", where=places, do="give the output folder of a run"
        )
    about = {key: text for found in reversed(results) for key, text in found.about.items()}
    unit = about.pop("unit", "examples")
    glossary = {label: text for found in results for label, text in found.glossary.items()}
    confusion = _first(found.confusion for found in results)
    matrix = confusion_section(confusion, glossary)
    slots = method_slots(compared)
    drawn = [pair for pair in journals if pair[1].pretraining] or journals[: len(METHODS)]
    broken = [line for folder in folders for line in folder.unreadable]
    content = {
        "title": title or ", ".join(folder.path.resolve().name for folder in folders),
        "headline": _headline(compared, drawn, unit),
        "tiles": tiles(results, drawn, compared, unit),
        "about": about,
        "steps": steps(stores.values(), drawn, compared, unit, noted=any(found.notes for found in results)),
        "methods": _methods(slots),
        "comparisons": comparison_sections(compared, slots, unit),
        "notes": [note for found in results for note in found.notes],
        "loss": loss_section(drawn),
        "fills": fills,
        "fills_judged": any(fill["answer"] is not None for fill in fills),
        "confusion": matrix,
        "ledgers": [section for path, manifest in stores.items() if (section := ledger_section(path, manifest))],
        "findings": _findings(folders),
        "reproduce": reproduce_section(folders),
        "curves": _beside(results, "curves.jsonl", lambda _, file: curves_section(file, slots, unit), broken),
        **_mistakes(results, confusion, matrix["labels"] if matrix else [], broken),
        "unreadable": broken,
    }
    content["figures"] = _figures(content)
    return content


def _methods(slots: Mapping[str, int]) -> list[Section]:
    """What each method is, once, whatever runs it is of: "pretrained (run)"."""
    first: dict[str, int] = {}
    for method, slot in slots.items():
        first.setdefault(method if method in METHODS else method.rpartition(" (")[0], slot)
    return [{"name": m, "slot": slot, "about": METHODS[m]} for m, slot in first.items() if m in METHODS]


def _beside(
    results: Sequence[Results], name: str, make: Callable[[Results, Path], Section | None], broken: list[str]
) -> list[Section]:
    """A section of each fine-tuning with a file of that name beside its results. What a broken one lacks is told."""
    sections = []
    for found in results:
        file = found.path.parent / name
        try:
            section = make(found, file) if file.is_file() else None
        except DataError as error:
            broken.append(str(error))
        else:
            sections += [{"name": file.parent.resolve().name, **section}] if section else []
    return sections


def _mistakes(
    results: Sequence[Results], confusion: Mapping[str, Any], labels: Sequence[str], broken: list[str]
) -> dict[str, list[Section]]:
    """labels: as they are drawn of `confusion`, by whose cells the mistakes of that run can be chosen."""
    most = MOST // max(len(results), 1)
    asked = [found for found in results if any(row.get("task") == "answer" for row in found.rows)]
    others = [found for found in results if found not in asked]

    def labelled(found: Results, file: Path) -> Section | None:
        return mistakes_section(file, labels if found.confusion is confusion else (), most)

    return {
        "mistakes": _beside(others, "predictions.jsonl", labelled, broken),
        "answers": _beside(asked, "mistakes.json", lambda _, file: answers_section(file, most), broken),
    }


def _rows(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """All rows. Where two runs measured the same and differ, methods are named after their run, and never averaged."""
    found = [(folder.path.resolve().name, results) for folder in folders for results in folder.results]
    if len(folders) == 1:
        found = [(results.path.parent.name, results) for _, results in found]
    values: dict[tuple[str, ...], set[Any]] = {}
    for _, results in found:
        for row in results.rows:
            values.setdefault(_identity(row), set()).add(str(row.get("value")))
    methods = {identity[1] for identity, different in values.items() if len(different) > 1}
    return [
        {**row, "method": f"{row.get('method')} ({name})"} if str(row.get("method")) in methods else row
        for name, results in found
        for row in results.rows
    ]


def _identity(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(key)) for key in ("task", "method", "labelled", "shots", "seed", "metric", "test"))


def _named(journals: Sequence[Journal]) -> list[tuple[str, Journal]]:
    """A short name for each: its folder's, with the folder above where that is not enough."""
    short = Counter(journal.path.parent.resolve().name for journal in journals)
    pairs = []
    for journal in journals:
        folder = journal.path.parent.resolve()
        pairs.append((folder.name if short[folder.name] == 1 else f"{folder.parent.name}/{folder.name}", journal))
    return pairs


def _headline(compared: Sequence[Comparison], journals: Sequence[tuple[str, Journal]], unit: str) -> Headline:
    if compared:
        found = [headline(comparison, unit) for comparison in compared]
        chosen = next((one for one in found if one.verdict != "none"), found[0])
        return replace(chosen, details=[*chosen.details, *over_tasks(compared)])
    return pretraining_headline([journal for _, journal in journals])


def _findings(folders: Sequence[RunFolder]) -> list[Finding]:
    known = [folder for folder in folders if folder.journals or folder.stores or folder.results]
    return sort_findings(list(dict.fromkeys(f for folder in known for f in diagnose(folder.path))))


def _first(values: Any) -> Any:
    return next((value for value in values if value), {})


def _figures(content: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by the id of their place in the page."""
    figures = {f"efficiency-{i}": part["figure"] for i, part in enumerate(content["comparisons"])}
    figures |= {f"curves-{i}": part["figure"] for i, part in enumerate(content["curves"])}
    for name in ("loss", "confusion"):
        figures[name] = content[name]["figure"] if content[name] else None
    return {name: figure for name, figure in figures.items() if figure is not None}
