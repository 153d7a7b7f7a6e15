"""The doctor: looks at a run, a store or data files and says by name what is wrong, how it knows, and what to do."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import load_model
from pluri.errors import DataError, PluriError, UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.findings import Finding, show_findings, sort_findings
from pluri.run.folder import Journal, Results, RunFolder, number, read_run
from pluri.run.symptoms_data import (
    DataFile,
    Fit,
    diagnose_file,
    diagnose_fit,
    diagnose_kmers,
    diagnose_leaks,
    diagnose_ledger,
    diagnose_vocabulary,
    graded,
    store_fit,
)
from pluri.run.symptoms_training import diagnose_journal
from pluri.sequences import expand, read_records, read_rows
from pluri.tasks.compare import PRETRAINED
from pluri.tasks.formats import PAIR, TRANSLATION, read_labelled
from pluri.tasks.questions import holds_questions
from pluri.tasks.task import Kind, Labelled
from pluri.tokens.joined import open_stores
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer

__all__ = ["Finding", "diagnose", "show_findings"]

Target = str | Path
MOST_RECORDS = 200_000
"""Records of a data file that are looked at; a longer file is judged by its beginning, and the finding says so."""

TAG_SUFFIXES = (".conllu", ".conll", ".bio", ".iob", ".iob2")
EMPTY_PACKING = (0.05, 0.30)


def diagnose(target: Target | Sequence[Target]) -> list[Finding]:
    """Findings, problems first, of a run folder, a store, data files, or several of these at once.

    Files given together are compared with each other (give the training file first); files given with a store or a
    model folder are also judged against its tokenizer. UsageError: a target does not exist or is nothing of these.
    """
    targets = [target] if isinstance(target, str | Path) else list(target)
    if not targets:
        raise UsageError("nothing to look at", do="give a run folder, a store, or data files")
    findings: list[Finding] = []
    files: list[str] = []
    known: tuple[Tokenizer, Fit | None] | None = None
    for place in map(Path, targets):
        if _is_store(place):
            found, store = _store(place, verify=True)
            findings += found
            known = known or (None if store is None else (store.tokenizer, store_fit(store)))
        elif place.is_dir() and (place / "tokenizer.json").is_file() and not (place / "journal.jsonl").is_file():
            known = known or (Tokenizer.load(place), None)
            findings += [*_model(place), *_run(read_run(place))]
        elif place.is_dir() and _holds_run(run := read_run(place)):
            findings += _run(run)
        else:
            files += expand([str(place)])
    findings += _files(files, known)
    return sort_findings(list(dict.fromkeys(findings)))


def _is_store(place: Path) -> bool:
    try:
        return "ledger" in json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (place / "manifest.json").is_file() and (place / "tokenizer").is_dir()


def _holds_run(run: RunFolder) -> bool:
    return bool(run.journals or run.results or run.stores or run.unreadable)


def _run(run: RunFolder) -> list[Finding]:
    """Every journal, every store, and what could not be read. Of many fine-tunings only what is wrong is told."""
    findings = [
        Finding("unreadable file", "problem", line, do="restore it, or run that part again") for line in run.unreadable
    ]
    findings += [finding for results in run.results for finding in _gain(results)]
    findings += [_leak(name, times, results) for results in run.results for name, times in results.leaks.items()]
    for journal in run.journals:
        found = [*diagnose_journal(journal), *_packing(journal), *_kmers(journal)]
        if len(run.journals) > 1:
            found = [_named(finding, journal) for finding in found if journal.pretraining or finding.severity != "ok"]
        findings += found
    for place in run.stores:
        findings += _store(place, verify=False)[0]
    return findings


def _model(place: Path) -> list[Finding]:
    """Whether the weights of a model folder are whole and fit its config.json; [] if the folder has none."""
    if not (place / "config.json").is_file():
        return []
    try:
        model, _ = load_model(place)
    except PluriError as error:
        return [Finding("damaged model", "problem", str(error))]
    size = sum(parameter.numel() for parameter in model.parameters())
    heads = ", ".join(model.num_classes) or "none"
    return [Finding("model", "ok", f"{place} opens: {size:,} parameters, heads: {heads}", float(size))]


def _gain(results: Results) -> list[Finding]:
    """With the most labels, the fine-tuned model beside the best of the others, by the first metric of the rows."""
    rows = [row for row in results.rows if {"method", "metric"} <= row.keys()]
    rows = [row for row in rows if all(number(row.get(key)) is not None for key in ("labelled", "value"))]
    if not rows:
        return []
    most, metric = max(row["labelled"] for row in rows), rows[0]["metric"]
    values: dict[str, list[float]] = {}
    for row in rows:
        if (row["labelled"], row["metric"]) == (most, metric):
            values.setdefault(row["method"], []).append(row["value"])
    means = {method: mean(found) for method, found in values.items()}
    own = means.pop(PRETRAINED, None)
    if own is None or not means:
        return []
    best = max(means, key=lambda method: means[method])
    what = f"{metric} with {most:,} labelled: pretrained {own:.3f}, {best} {means[best]:.3f} ({results.path})"
    do = "pretrain for longer or on more text of this kind, or take the simpler method"
    if own > means[best]:
        return [Finding("gain over the baselines", "ok", what, own - means[best])]
    return [Finding("no gain over the baselines", "warn", what, own - means[best], do)]


def _leak(name: str, times: int, results: Results) -> Finding:
    what = f"{times} sequences of the {name} data stand in other data of the run too ({results.path})"
    do = "remove them and fine-tune again: a score on them counts what was learned by heart"
    return Finding("leak between files", "problem", what, float(times), do)


def _named(finding: Finding, journal: Journal) -> Finding:
    """Says which run of several is meant; the machine is the same for all."""
    of_machine = finding.name == "no fast bf16"
    return finding if of_machine else replace(finding, what=f"{journal.path.parent.name}: {finding.what}")


def _store(place: Path, *, verify: bool) -> tuple[list[Finding], TokenStore | None]:
    try:
        store = TokenStore.open(place)
        if verify:
            store.verify()
        return [*diagnose_ledger(store.manifest.ledger.model_dump()), diagnose_vocabulary(store)], store
    except PluriError as error:
        return [Finding("damaged store", "problem", str(error))], None  # the error says what to do


def _packing(journal: Journal) -> list[Finding]:
    """How full the rows of a pretraining run's batches are: its first four batches, made again from its store."""
    config = journal.config
    try:
        training, model = config["training"], config["model"]
        store = open_stores(config["store"])
        objective = ObjectiveConfig.parse(config["objective"])
        length, seed = int(model.get("max_length", 128)), int(training["seed"])
        batches = Batches(
            StoreExamples(store, objective, length=length, seed=seed),
            batch_tokens=int(training["batch_tokens"]), length=length, seed=seed, packed=bool(training["packed"]),
        )  # fmt: skip
        made = [batches[step] for step in range(4)]
    except (PluriError, KeyError, TypeError, AttributeError):
        return []  # not a pretraining run, or its store is gone: there is nothing to say
    share = sum(batch.num_tokens for batch in made) / sum(batch.num_positions for batch in made)
    severity = graded(1 - share, EMPTY_PACKING)
    what = f"{100 * share:.1f}% of the positions in a batch hold a token; the rest is padding"
    do = "lower model.max_length towards the length of the documents, or raise training.batch_tokens"
    if not training["packed"]:
        do = "set training.packed = true"
    return [Finding("packing efficiency", severity, what, share, "" if severity == "ok" else do)]


def _kmers(journal: Journal) -> list[Finding]:
    """Whether a run of masked k-mers covers what their neighbours would give away."""
    config = journal.config
    try:
        k = open_stores(config["store"]).tokenizer.kmer
        finding = diagnose_kmers(k, ObjectiveConfig.parse(config["objective"]))
    except (PluriError, KeyError, TypeError, AttributeError):
        return []
    return [finding] if finding else []


def _files(files: Sequence[str], known: tuple[Tokenizer, Fit | None] | None) -> list[Finding]:
    findings: list[Finding] = []
    read: list[DataFile] = []
    for file in files:
        try:
            read.append(_data_file(file))
        except DataError as error:
            findings.append(Finding("unusable file", "problem", str(error)))
    for data in read:
        findings += diagnose_file(data)
        if len(data.texts) == MOST_RECORDS:
            what = f"{data.name} was judged by its first {MOST_RECORDS:,} records"
            findings.append(Finding("long file", "ok", what, float(MOST_RECORDS)))
        if known is not None:
            findings += diagnose_fit(data.name, data.texts, *known)
    return findings + diagnose_leaks(read)


def _data_file(file: str) -> DataFile:
    kind = _kind(file)
    if kind is None:
        records = list(islice(read_records(file), MOST_RECORDS))
        return DataFile(file, [record.text for record in records], None, [record.where for record in records])
    labelled: list[Labelled] = read_labelled(file, kind)[:MOST_RECORDS]
    texts = [" ".join(item.units) for item in labelled]
    labels = [() if kind == "translate" else item.labels for item in labelled]  # of which hardly one comes twice
    return DataFile(file, texts, labels, [item.where for item in labelled])


def _kind(file: str) -> Kind | None:
    """What a file is labelled for, by its suffix and first row; None if it has no labels."""
    plain = file.lower().removesuffix(".gz").removesuffix(".zst")
    if plain.endswith(TAG_SUFFIXES):
        return "tag"
    if not plain.endswith((".csv", ".tsv", ".jsonl", ".json", ".parquet")):
        return None
    if holds_questions(file):
        return "answer"
    row, _ = next(read_rows(file))
    if "tokens" in row and "tags" in row:
        return "tag"
    if all(name in row for name in TRANSLATION):
        return "translate"
    if "label" in row and all(name in row for name in PAIR):
        return "pair"
    return "classify" if "text" in row and "label" in row else None
