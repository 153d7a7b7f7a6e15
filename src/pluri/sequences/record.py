"""Record: one raw sequence with its origin, so that every error can point to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One raw sequence.

    text: the sequence; may be empty.
    where: its origin, "corpus.jsonl:31".
    id: its name, where the file gives one (FASTA, the column `id` of a table).
    meta: the other columns of its row.
    continued: it goes on with the record before: a text beyond 16 MiB comes in several.
    """

    text: str
    where: str
    id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    continued: bool = False
