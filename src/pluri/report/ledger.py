"""The token ledger: the parts of everything that was read, adding up to 100%."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pluri.report.charts import Section
from pluri.run.folder import number


def ledger_section(path: Path, manifest: Mapping[str, Any]) -> Section | None:
    """The parts of what was read; shares are rounded so that they add up to 100.00%."""
    ledger = {key: int(value) for key, v in manifest["ledger"].items() if (value := number(v)) is not None}
    read = ledger.get("read", 0)
    if read <= 0:
        return None
    parts = [
        ("kept", "in the store, ready for training", ledger.get("kept", 0)),
        ("truncated", "cut off because a document was too long", ledger.get("truncated", 0)),
        ("dropped", "left out with documents that are copies of others", ledger.get("dropped", 0)),
    ]
    missing = read - sum(tokens for _, _, tokens in parts)
    if missing:
        parts.append(("unaccounted", "in no column: the store is damaged", missing))
    shares = hundred([tokens for _, _, tokens in parts])
    facts = [("documents read", f"{ledger['documents']:,}")] if "documents" in ledger else []
    if "unk" in ledger:
        facts.append(
            (
                "unknown to the tokenizer",
                f"{ledger['unk']:,} tokens, {100 * ledger['unk'] / max(ledger.get('kept', read), 1):.2f}%",
            )
        )
    if ledger.get("rare_letters"):
        facts.append(("ambiguous or rare letters, and gaps", f"{ledger['rare_letters']:,}"))
    documents = max(ledger.get("documents", 0), 1)
    for key, words in (("duplicate_documents", "exact duplicates among them"), ("empty_documents", "empty documents")):
        if key in ledger:
            facts.append((words, f"{ledger[key]:,}, {100 * ledger[key] / documents:.2f}%"))
    if ledger.get("continued_documents"):
        facts.append(("parts of longer documents, of which each counts as one", f"{ledger['continued_documents']:,}"))
    return {
        "name": path.name,
        "read": f"{read:,}",
        "parts": [
            {
                "name": name,
                "about": about,
                "tokens": f"{tokens:,}",
                "share": share,
                "width": 100 * max(tokens, 0) / read,
            }
            for (name, about, tokens), share in zip(parts, shares, strict=True)
        ],
        "facts": facts,
    }


def hundred(values: Sequence[float]) -> list[str]:
    """Shares in per cent with two decimals that add up to exactly 100.00 (largest remainders get the rounding)."""
    total = sum(values)
    exact = [10_000 * value / total for value in values]
    floors = [int(value // 1) for value in exact]
    by_remainder = sorted(range(len(values)), key=lambda i: floors[i] - exact[i])
    for i in by_remainder[: 10_000 - sum(floors)]:
        floors[i] += 1
    return [f"{value / 100:.2f}%" for value in floors]
