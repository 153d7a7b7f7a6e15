"""Each way of breaking a text, and what a model that learnt to undo it is worth for a task from text to text.

    python recipes/denoising/run.py OUTPUT --text FILE ... --pairs FILE --columns SOURCE TARGET [--quick]

A small BART is pretrained on the same text by each kind of denoising alone and by BART's own mix, for as many tokens,
and each is fine-tuned on the same pairs, beside one from a random start and the sources copied. TEXT: as
`pluri prepare` reads it. PAIRS: a table (csv, tsv, jsonl, parquet) with the two columns; rows are drawn once, each into
one of the parts. Writes OUTPUT/results.json: the rows of `pluri finetune`, with the denoising that a model began from
as its method, and prints the table. What is finished is not run again.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import pluri
from pluri.runtime import permuted
from pluri.sequences import read_rows
from pluri.tasks.compare import PRETRAINED

KINDS = (
    ("mask",),
    ("delete",),
    ("infill",),
    ("permute",),
    ("rotate",),
    ("mass",),
    ("sentinel",),
    ("infill", "permute"),
)
SHOWN = ("chrf", "bleu", "length_ratio", "repetition")
Row = dict[str, Any]


def make_files(folder: Path, pairs: str, columns: Sequence[str], counts: dict[str, int]) -> dict[str, str]:
    """Tables of different rows, drawn once: so many of each part."""
    rows = [tuple(str(row.get(name) or "").strip() for name in columns) for row, _ in read_rows(pairs)]
    rows = list(dict.fromkeys(row for row in rows if all(row)))
    if len(rows) < sum(counts.values()):
        raise SystemExit(f"{pairs}: {len(rows)} pairs with the columns {' and '.join(columns)}, {counts} are wanted")
    drawn = iter(permuted(np.arange(len(rows)), len(rows), 0).tolist())
    files = {}
    for part, count in counts.items():
        files[part] = str(folder / f"{part}.csv")
        with Path(files[part]).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("source", "target"), *(rows[next(drawn)] for _ in range(count))])
    return files


def pretrained(folder: Path, kinds: Sequence[str], tokens: int, model: Row) -> Path:
    """The folder of a model that learnt to undo these kinds of denoising."""
    run = folder / "+".join(kinds)
    if not (run / "model").exists():
        values: Row = {"store": folder / "store", "output": run, "model": model}
        values |= {"objective": {"denoise": {"kinds": kinds}}, "training": {"tokens": tokens, "learning_rate": 1e-3}}
        pluri.pretrain(pluri.PretrainConfig.parse(values), resume=(run / "journal.jsonl").exists())
    return run / "model"


def compared(folder: Path, kinds: Sequence[str], model: Path, files: dict[str, str], seeds: int) -> list[Row]:
    """The rows of fine-tuning from `model`; what does not depend on it stands beside the first kind alone."""
    name = "+".join(kinds)
    output = folder / f"{name}-tuned"
    if not (output / "results.json").exists():
        values: Row = {"task": "translate", "model": model, "output": output, "seeds": seeds, "truncate": True}
        values |= {"baselines": kinds == KINDS[0], **files}
        pluri.finetune(pluri.FinetuneConfig.parse(values))
    rows: list[Row] = json.loads((output / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{**row, "method": name if row["method"] == PRETRAINED else row["method"]} for row in rows]


def show(rows: Sequence[Row]) -> None:
    """A line for each method, the best by chrF first: the mean of each metric with its interval."""
    cells: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        cells.setdefault(row["method"], {}).setdefault(row["metric"], []).append(row)

    def mean(method: str, metric: str) -> float:
        return float(np.mean([row["value"] for row in cells[method][metric]]))

    table = Table("method", *SHOWN, "seeds")
    for method in sorted(cells, key=lambda method: -mean(method, SHOWN[0])):
        spans = [(mean(method, name), cells[method][name][0]) for name in SHOWN]
        texts = (f"{value:.2f} ({row['low']:.2f} to {row['high']:.2f})" for value, row in spans)
        table.add_row(method, *texts, str(len(cells[method][SHOWN[0]])))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--columns", nargs=2, default=["source", "target"])
    parser.add_argument("--kind", default="wordpiece", help="of tokenizer: char for Chinese")
    parser.add_argument("--language", default="en", help="of the text, whose sentences change places")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="of each pretraining, sources and targets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a look at whether it works: nothing is learnt")
    options = parser.parse_args()
    counts = {"train": 4000, "validation": 200, "test": 500}
    model: Row = {"preset": "bart", "size": "mini", "max_length": 128}
    tokens, seeds, vocabulary = options.tokens, options.seeds, 8000
    if options.quick:
        counts = {"train": 60, "validation": 10, "test": 20}
        model |= {"size": "tiny", "hidden_size": 64, "num_layers": 1}
        tokens, seeds, vocabulary = 20_000, 2, 1000
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    files = make_files(folder, options.pairs, options.columns, counts)
    if not (folder / "tokenizer").exists():
        made = pluri.train_tokenizer(options.text, kind=options.kind, vocab_size=vocabulary, sentinels=100)
        made.save(folder / "tokenizer")
    pluri.prepare(options.text, folder / "tokenizer", folder / "store", language=options.language)
    rows: list[Row] = []
    for kinds in KINDS:
        start = pretrained(folder, kinds, tokens, model)
        rows += compared(folder, kinds, start, files, seeds)
        (folder / "results.json").write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
