"""The quickstart's recipe against one change at a time: validation loss after the same minutes of pretraining.

    python recipes/default-recipe/run.py OUTPUT [--minutes 1] [--rounds 2] [--only NAME ...]

Text and model size are the quickstart's. Each variant starts anew with the round as its seed; the rounds go through all
variants before they repeat. All of a round are judged alike: 15% of the tokens of the same held-out documents, the same
masks. Time is training alone: counting for the start (3 to 5 seconds) and validation come on top. Writes
OUTPUT/results.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import load_model
from pluri.demo import LENGTH, configuration, newspaper, prepared
from pluri.losses import pretraining_loss
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.pretrain import PretrainConfig, pretrain, split_documents
from pluri.tokens.store import TokenStore
from pluri.training.journal import read_journal
from pluri.training.measures import mean_loss

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "embedding of the neighbours, from chance": {"model": {"context": 2}, "spectral_start": False},
    "embedding of the neighbours, from counts": {"model": {"context": 2}},
    "the preset `modern`, as EuroBERT": {"model": {"qk_norm": False, "embedding_norm": False, "token_types": 0}},
    "queries and keys as they are": {"model": {"qk_norm": False}},
    "AdamW, 3e-3": {"training": {"optimizer": "adamw"}},
    "AdamW, 1e-3": {"training": {"optimizer": "adamw", "learning_rate": 1e-3}},
    "learning rate 1.5e-3": {"training": {"learning_rate": 1.5e-3}},
    "learning rate 6e-3": {"training": {"learning_rate": 6e-3}},
    "25% covered": {"objective": {"mlm_probability": 0.25}},
    "40% covered": {"objective": {"mlm_probability": 0.4}},
    "always [MASK]": {"objective": {"mask": 1.0, "random": 0.0}},
    "gelu, no gate": {"model": {"gated": False, "activation": "gelu"}},
    "squared ReLU, no gate": {"model": {"gated": False, "activation": "relu2"}},
    "2 layers, 384 wide": {"model": {"num_layers": 2, "hidden_size": 384}},
    "batches of 2,048": {"training": {"batch_tokens": 2048}},
    "batches of 8,192": {"training": {"batch_tokens": 8192}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    store = prepared(options.output, newspaper()[0])
    rows: list[dict[str, Any]] = []
    for seed in range(options.rounds):
        for name in options.only:
            run = options.output / f"{seed}-{name.replace(' ', '-')}"
            rows.append({"case": name, "seed": seed, **trained(store, run, options.minutes, seed, VARIANTS[name])})
            (options.output / "results.json").write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
            print(rows[-1], flush=True)
    show(rows)


def trained(store: TokenStore, run: Path, minutes: float, seed: int, change: dict[str, Any]) -> dict[str, Any]:
    """Tokens seen and the loss of one variant."""
    values = configuration(store, run, minutes=minutes, seed=seed).model_dump(exclude_unset=True)
    for part, fields in change.items():
        values[part] = {**values.get(part, {}), **fields} if isinstance(fields, dict) else fields
    config = PretrainConfig.parse(values)
    model, _ = load_model(pretrain(config, progress=False))
    documents = split_documents(store.num_documents, config.validation, seed)[1]
    source = StoreExamples(store, ObjectiveConfig(), length=LENGTH, seed=0, documents=documents)
    batches = Batches(source, batch_tokens=4096, length=LENGTH, seed=0)
    loss = mean_loss(model.eval(), batches.once(), pretraining_loss)["eval_loss"]
    tokens = [event for event in read_journal(run / "journal.jsonl") if "tokens" in event][-1]["tokens"]
    return {"minutes": minutes, "tokens": tokens, "eval_loss": loss}


def show(rows: list[dict[str, Any]]) -> None:
    """The mean loss of each variant, its difference to the default round by round, and the tokens it saw."""
    table = Table("variant", "loss", "minus default, by round", "tokens")
    usual = {row["seed"]: row["eval_loss"] for row in rows if row["case"] == "default"}
    for name in dict.fromkeys(row["case"] for row in rows):
        found = [row for row in rows if row["case"] == name]
        loss = sum(row["eval_loss"] for row in found) / len(found)
        apart = ", ".join(f"{row['eval_loss'] - usual[row['seed']]:+.2f}" for row in found if row["seed"] in usual)
        table.add_row(name, f"{loss:.3f}", apart, f"{sum(row['tokens'] for row in found) / len(found):,.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
