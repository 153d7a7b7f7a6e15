"""What a ledger and data files say: unknown tokens, duplicates, truncation, leaks, imbalance, a misfit tokenizer."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pluri.objectives.config import ObjectiveConfig
from pluri.run.findings import Finding, Severity
from pluri.run.folder import number
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer

UNKNOWN = (0.005, 0.05)
DUPLICATES = (0.01, 0.10)
LOST = (0.001, 0.05)
IDLE_VOCABULARY = (0.5, 0.9)
MISFIT = (1.3, 2.0)
IMBALANCE = (0.8, 0.95)
LEAK = (0.0, 0.01)
"""Each pair: above the first a warning, above the second a problem."""

_SPAN_TAG = re.compile(r"[BIESLUM](-.|$)")
"""What a tag of a span begins with, in every scheme: B-PER, I-PER, ... or B, I alone."""

SAMPLE = 200
"""Texts or documents looked at to judge how a tokenizer fits."""


def graded(value: float, limits: tuple[float, float]) -> Severity:
    return "problem" if value > limits[1] else "warn" if value > limits[0] else "ok"


def diagnose_ledger(ledger: Mapping[str, Any]) -> list[Finding]:
    """The token ledger: it adds up, and how much of it is unknown, duplicate, cut off or left out."""
    counts = {key: int(value) for key, v in ledger.items() if (value := number(v)) is not None}
    read, documents = counts.get("read", 0), counts.get("documents", 0)
    if not read:
        return [Finding("empty store", "problem", "no token was read", 0.0, "check the files given to prepare")]
    kept, dropped = counts.get("kept", 0), counts.get("dropped", 0)
    missing = read - kept - counts.get("truncated", 0) - dropped
    adds_up = Finding("ledger", "ok", "kept + truncated + dropped tokens add up to all that was read", 0.0)
    lost = Finding("ledger", "problem", f"{missing:,} tokens are in no column of the ledger", missing, "prepare again")
    wider = (
        "train a tokenizer on this text: --kind dna, protein, char for other text without spaces, byte_bpe for text "
        "of any kind, or a larger --vocab-size"
    )
    findings = [
        lost if missing else adds_up,
        _share(
            "unknown tokens", counts.get("unk", 0), max(kept, 1), UNKNOWN, "tokens are unknown to the tokenizer", wider
        ),
        _share(
            "truncation", counts.get("truncated", 0), read, LOST, "tokens were cut off", "split long documents before"
        ),
    ]
    if dropped:
        what = f"{dropped:,} tokens ({100 * dropped / read:.2f}%) were left out with duplicate documents, as asked"
        findings.append(Finding("dropped tokens", "ok", what, dropped / read))
    if documents:
        copies, empty = counts.get("duplicate_documents", 0), counts.get("empty_documents", 0)
        words, limits = "documents are exact copies of others", DUPLICATES
        if dropped:
            words, limits = words + ", and were left out", (1.0, 1.0)
        findings += [
            _share("duplicate documents", copies, documents, limits, words, "prepare with drop_duplicates"),
            _share(
                "empty documents",
                empty,
                documents,
                DUPLICATES,
                "documents are empty",
                "check the files and text_column",
            ),
        ]
    return findings


def _share(name: str, part: int, whole: int, limits: tuple[float, float], words: str, do: str) -> Finding:
    share = part / whole
    severity = graded(share, limits)
    what = f"{part:,} of {whole:,} ({100 * share:.2f}%) {words}"
    return Finding(name, severity, what, share, "" if severity == "ok" else do)


def diagnose_vocabulary(store: TokenStore) -> Finding:
    """How much of the vocabulary the text never uses: a tokenizer made for other text leaves most of it idle."""
    ordinary = np.ones(store.tokenizer.vocab_size, bool)
    ordinary[store.tokenizer.special_ids] = False
    counts = np.asarray(store.unigram_counts)[: len(ordinary)]
    idle = float((counts[ordinary[: len(counts)]] == 0).mean())
    severity = graded(idle, IDLE_VOCABULARY)
    what = f"{100 * idle:.0f}% of the {int(ordinary.sum()):,} tokens of the vocabulary never occur in the store"
    do = "train a tokenizer on this text: every idle token costs parameters and makes the others shorter"
    return Finding("tokenizer does not fit", severity, what, idle, "" if severity == "ok" else do)


def diagnose_kmers(k: int | None, objective: ObjectiveConfig) -> Finding | None:
    """Overlapping k-mers: unless k in a row are covered, the letters of one stand in its neighbours.

    DNABERT (Ji et al. 2021, section 2.2) therefore covers k contiguous ones. None: nothing of the kind is masked.
    """
    if not k or k == 1 or not objective.masked:
        return None
    name, do = "k-mers given away", f"objective.unit = 'span', span_mean = {2 * k}, span_max = {4 * k}"
    if objective.unit != "span":
        what = f"single {k}-mers are covered, and the neighbours that overlap with them tell what they are"
        return Finding(name, "problem", what, 1.0, f"cover spans of them: {do}")
    lengths = np.arange(1, objective.span_max + 1)
    mean = float(np.average(lengths, weights=(1 - 1 / objective.span_mean) ** (lengths - 1)))
    if mean < k:
        what = f"spans of {mean:.1f} {k}-mers are covered, and a letter is hidden only where {k} in a row are"
        return Finding(name, "warn", what, mean, f"cover longer ones: {do}")
    return Finding(name, "ok", f"the covered spans are mostly long enough to hide letters of {k}-mers", mean)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a tokenizer takes a text: tokens a character of what it decodes to, and the share of unknown tokens."""

    tokens_per_character: float
    unknown: float


def store_fit(store: TokenStore) -> Fit:
    """The fit of the store's own documents, from a sample spread evenly over it."""
    documents = np.unique(np.linspace(0, store.num_documents - 1, SAMPLE).astype(np.int64))
    lengths = np.minimum(store.document_lengths[documents], 2000)
    group = store.gather(documents, np.zeros_like(lengths), lengths)
    pieces = np.split(group.ids, group.offsets[1:-1])
    return _fit(store.tokenizer, pieces)


def texts_fit(tokenizer: Tokenizer, texts: Sequence[str]) -> Fit:
    every = max(1, len(texts) // SAMPLE)
    sample = [text[:8000] for text in texts[::every]][:SAMPLE]
    return _fit(tokenizer, [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(sample)])


def _fit(tokenizer: Tokenizer, pieces: Iterable[Any]) -> Fit:
    tokens = characters = unknown = 0
    for ids in pieces:
        tokens += len(ids)
        unknown += 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
        characters += len(tokenizer.decode(ids))
    return Fit(tokens / max(characters, 1), unknown / max(tokens, 1))


def diagnose_fit(name: str, texts: Sequence[str], tokenizer: Tokenizer, own: Fit | None) -> list[Finding]:
    """Whether texts look to a tokenizer like the text that it knows. own: its store's fit, if there is a store."""
    found = texts_fit(tokenizer, texts)
    do = "use a model and tokenizer pretrained on text of this kind"
    severity = graded(found.unknown, UNKNOWN)
    what = f"{100 * found.unknown:.2f}% of the tokens of {name} are unknown to the tokenizer"
    if own is not None:
        what += f" ({100 * own.unknown:.2f}% in the store)"
    findings = [Finding("unknown tokens", severity, what, found.unknown, "" if severity == "ok" else do)]
    if own is not None:
        ratio = found.tokens_per_character / max(own.tokens_per_character, 1e-9)
        severity = graded(max(ratio, 1 / max(ratio, 1e-9)), MISFIT)
        here, there = found.tokens_per_character, own.tokens_per_character
        what = f"{name} takes {here:.2f} tokens a character, the store {there:.2f} ({ratio:.1f} times)"
        findings.append(Finding("tokenizer does not fit", severity, what, ratio, "" if severity == "ok" else do))
    return findings


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as the doctor reads it. texts: one a sequence. labels: those of each sequence, none of
    questions; None if nobody labelled it. where: "train.csv:31" of each sequence."""

    name: str
    texts: list[str]
    labels: list[tuple[str, ...]] | None
    where: list[str]


def diagnose_file(file: DataFile) -> list[Finding]:
    """One file by itself: copies inside it, and how its labels are spread."""
    copies = len(file.texts) - len(set(map(normal, file.texts)))
    words = f"sequences of {file.name} are copies of others in it"
    findings = [_share("duplicate documents", copies, len(file.texts), DUPLICATES, words, "keep one of each")]
    if file.labels is not None and any(file.labels):
        findings.append(_balance(file.name, Counter(label for labels in file.labels for label in labels)))
    return findings


def _balance(name: str, counts: Counter[str]) -> Finding:
    (label, most), total = counts.most_common(1)[0], sum(counts.values())
    share = most / total
    severity = graded(share, IMBALANCE)
    what = f"the most frequent label of {name}, {label!r}, is {100 * share:.1f}% of {total:,}"
    rare = sorted(other for other, times in counts.items() if times < 5)
    if rare:
        shown = ", ".join(map(repr, rare[:5])) + (", ..." if len(rare) > 5 else "")
        what += f"; {len(rare)} label(s) occur fewer than 5 times ({shown})"
    do = "judge by macro_f1 rather than accuracy, set class_weights, label more of the rare ones"
    if label == "O" and all(_SPAN_TAG.match(other) for other in counts if other != "O"):  # outside all spans
        do = "judge by span_f1, which fine-tuning does by itself, rather than accuracy; label more spans"
    return Finding("label imbalance", severity, what, share, "" if severity == "ok" else do)


def diagnose_leaks(files: Sequence[DataFile]) -> list[Finding]:
    """Sequences that stand in two labelled files: each file is compared with every one given before it."""
    labelled = [file for file in files if file.labels is not None]
    findings = []
    for i, later in enumerate(labelled):
        for earlier in labelled[:i]:
            first = {normal(text): where for text, where in zip(earlier.texts, earlier.where, strict=True)}
            keys = map(normal, later.texts)
            places = [(where, first[key]) for key, where in zip(keys, later.where, strict=True) if key in first]
            share = len(places) / len(later.texts)
            severity = graded(share, LEAK)
            count = f"{len(places):,} of {len(later.texts):,} sequences ({100 * share:.2f}%)"
            what = f"{count} of {later.name} stand in {earlier.name}"
            if places:
                what += f" too, the first at {places[0][0]} = {places[0][1]}"
            do = f"remove them from {earlier.name}: a score on {later.name} counts what was learned by heart"
            findings.append(Finding("leak between files", severity, what, share, do if places else ""))
    return findings


def normal(text: str) -> str:
    """A text without its differences in spaces and case."""
    return " ".join(text.casefold().split())
