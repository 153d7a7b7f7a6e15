"""What more pretraining is worth: the quickstart's task with few labels, after longer and longer pretraining.

    python recipes/pretraining-time/run.py OUTPUT [--counted] [--tokens 1500000 ...] [--sizes 50 200] [--seeds 2]

Every budget is a run of its own with its own schedule, from the same start; fine-tuning, test sentences and baselines
are the quickstart's. Budgets are tokens, which are the same on any machine; `minutes` are those of this machine. Writes
OUTPUT/results.json: the quickstart's rows, with `tokens`, `minutes` and `eval_loss` of the pretraining beside them, and
prints where the pretrained model's interval first lies above each baseline's. With --counted the model is
that of slow machines, whose embedding of the neighbours is filled from counts before the first step; that start stands
in the table by itself, too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pluri.checkpoints.huggingface import load_model
from pluri.demo import COUNTS, configuration, counted, few_labels, newspaper, prepared
from pluri.models.heads import Model
from pluri.run.pretrain import pretrain
from pluri.tasks.compare import PRETRAINED, RANDOM_START
from pluri.training.journal import read_journal

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--counted", action="store_true", help="an embedding of the neighbours, filled from counts")
    parser.add_argument("--tokens", type=int, nargs="+", default=[800_000, 1_500_000, 3_000_000], help="budgets")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200], help="labelled sentences")
    parser.add_argument("--seeds", type=int, default=2, help="draws of the labelled sentences")
    options = parser.parse_args()
    pool, held_out = newspaper()
    store = prepared(options.output, pool)
    rows: list[Row] = []
    for tokens in sorted(options.tokens):
        run = options.output / f"pretrain-{tokens}"
        config = configuration(store, run, counted=options.counted, tokens=tokens)
        folder = run / "model" if (run / "model").exists() else pretrain(config)
        model, _ = load_model(folder)
        first = not rows
        starts: dict[str, Model | None] = {PRETRAINED: model}
        if first:
            starts |= ({COUNTS: counted(model, store)} if options.counted else {}) | {RANDOM_START: None}
        sizes, seeds = options.sizes, options.seeds
        compared = few_labels(starts, store.tokenizer, pool, held_out, sizes=sizes, seeds=seeds, linear=first)
        last = [event for event in read_journal(run / "journal.jsonl") if event["event"] == "validation"][-1]
        spent = {"tokens": last["tokens"], "minutes": last["seconds"] / 60, "eval_loss": last["eval_loss"]}
        for row in (row for comparison in compared.values() for row in comparison.rows()):
            rows.append(row | (spent if row["method"] == PRETRAINED else {}))
        (options.output / "results.json").write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    show(rows)


def show(rows: list[Row]) -> None:
    """The table, a line for each method and budget; then the crossings."""
    sizes = sorted({row["labelled"] for row in rows})
    cells: dict[tuple[str, int, float, float], dict[int, list[Row]]] = {}
    for row in rows:
        line = (row["method"], row.get("tokens", 0), row.get("minutes", 0), row.get("eval_loss", 0))
        cells.setdefault(line, {}).setdefault(row["labelled"], []).append(row)
    table = Table("method", "tokens", "minutes", "loss", *(f"{size:,} labelled" for size in sizes))
    for (method, tokens, minutes, loss), found in sorted(cells.items()):
        spent = (f"{tokens:,}", f"{minutes:.1f}", f"{loss:.2f}") if tokens else ("", "", "")
        table.add_row(method, *spent, *(_cell(found.get(size, [])) for size in sizes))
    console = Console(width=140)
    console.print(table)
    for size in sizes:
        ours = {line[1]: found[size][0] for line, found in sorted(cells.items()) if line[0] == PRETRAINED}
        for method in dict.fromkeys(line[0] for line in cells if line[0] != PRETRAINED):
            rival = next((found.get(size) for line, found in cells.items() if line[0] == method), None)
            if rival:
                above = [tokens for tokens, row in ours.items() if row["low"] > rival[0]["high"]]
                where = f"from {min(above):,} tokens on" if above else f"not within {max(ours):,} tokens"
                console.print(f"{size:,} labelled: above {method}, intervals apart: {where}")


def _cell(rows: list[Row]) -> str:
    if not rows:
        return ""
    mean = sum(row["value"] for row in rows) / len(rows)
    return f"{mean:.1%} ({rows[0]['low']:.1%} to {rows[0]['high']:.1%})"


if __name__ == "__main__":
    main()
