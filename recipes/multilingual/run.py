"""What brings two languages together in one small model: more text, more steps, depth, shared tokens, or translations?

    python recipes/multilingual/run.py OUTPUT --parallel FILE --columns en de --dictionary FILE [--text FILE FILE]
        [--tokens 2000000] [--seeds 1] [--quick]

Models are pretrained on masked tokens of both languages and measured by `pluri align`; each arm changes one thing of
`base`. PARALLEL: a table (jsonl, csv, tsv, parquet) with a column for each language; the two sides are separate
documents, never one. TEXT: more text of each language, a paragraph a line. DICTIONARY: as `pluri align` reads it.
Writes OUTPUT/results.json, the rows of `align` with "arm" and "seed", and prints the table. What is finished is not run
again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import pluri
from pluri.sequences import read_records, read_rows
from pluri.tokens.words import UNSPACED

_STAND_INS = 0x1401  # Canadian syllabics: letters that are in neither language
_HELD_OUT, _JUDGED = 1000, 6000  # parallel lines: never trained on, for sentences; in which words are looked up
Row = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Arm:
    """text: the share of all text. tokens: of all training. parallel: both sides of the same lines, else of the two
    halves. shared: the languages share tokens. layers: of the model."""

    text: float = 0.5
    tokens: float = 1.0
    parallel: bool = True
    shared: bool = True
    layers: int = 4


ARMS = {
    "base": Arm(),
    "a quarter of the text": Arm(text=0.125),
    "a quarter of the steps": Arm(tokens=0.25),
    "no translations": Arm(parallel=False),
    "no shared tokens": Arm(shared=False),
    "one layer": Arm(layers=1),
    "two layers": Arm(layers=2),
}


def read_pairs(file: str, columns: Sequence[str]) -> list[Pair]:
    """The lines that have both languages, in lower case: the letters that stand in for others have no other."""
    rows = (tuple(str(row.get(name) or "").strip().lower() for name in columns) for row, _ in read_rows(file))
    return [(a, b) for a, b in rows if a and b]


def stand_ins(pairs: Sequence[Pair]) -> dict[int, str]:
    """For each character of both languages one that the second alone will have. Spaces stay."""
    both = set.intersection(*({c for pair in pairs for c in pair[side]} for side in (0, 1)))
    shared = sorted(c for c in both if not c.isspace() and not UNSPACED.match(c))
    return {ord(c): chr(_STAND_INS + i) for i, c in enumerate(shared)}


def write_texts(folder: Path, arm: Arm, pairs: Sequence[Pair], more: Sequence[Sequence[str]], names: Pair) -> None:
    """Of each language its text; also, the same lines in every arm, those to be judged in."""
    half = len(pairs) // 2
    count = round(arm.text * len(pairs))
    first = pairs[:count]
    second = first if arm.parallel else pairs[half : half + count]
    spelled = {} if arm.shared else stand_ins(pairs)
    judged = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, _JUDGED).astype(int))]
    for side, name in enumerate(names):
        own = [pair[side] for pair in (first, second)[side]] + list(more[side][: round(2 * arm.text * len(more[side]))])
        for part, lines in (("text", own), ("judged", [pair[side] for pair in judged])):
            (folder / part).mkdir(parents=True, exist_ok=True)
            text = "\n".join(lines).translate(spelled if side else {}) + "\n"
            (folder / part / f"{name}.txt").write_text(text, encoding="utf-8")


def measured(folder: Path, arm: Arm, given: "Given", seed: int) -> list[Row]:
    """The rows of `align` for one arm and seed."""
    finished = folder / f"align-{seed}.json"
    if finished.exists():
        return json.loads(finished.read_text(encoding="utf-8"))
    names = given.names
    write_texts(folder, arm, given.pairs[: -_HELD_OUT or None], given.more, names)
    spelled = {} if arm.shared else stand_ins(given.pairs)
    dictionary = folder / "dictionary.txt"
    parted = (line.partition("\t" if "\t" in line else " ") for line in given.dictionary)
    dictionary.write_text("".join(f"{a}\t{b.strip().translate(spelled)}\n" for a, _, b in parted), encoding="utf-8")
    texts = [folder / "text" / f"{name}.txt" for name in names]
    if not (folder / "tokenizer").exists():
        pluri.train_tokenizer(texts, vocab_size=given.vocabulary, sampling=0.5).save(folder / "tokenizer")
    stores = {name: folder / f"store-{name}" for name in names}
    for text, (name, store) in zip(texts, stores.items(), strict=True):
        pluri.prepare(text, folder / "tokenizer", store, language=name)
    run = folder / f"run-{seed}"
    values: Row = {"store": stores, "sampling": 0.5, "output": run, "model": {**given.model, "num_layers": arm.layers}}
    training = {"tokens": round(arm.tokens * given.tokens), "learning_rate": 3e-3, "seed": seed}
    config = pluri.PretrainConfig.parse({**values, "training": {**training, **given.training}})
    pluri.pretrain(config, resume=(run / "journal.jsonl").exists())
    held_out = []
    for side, name in enumerate(names):
        held_out.append(folder / f"held-out-{name}.txt")
        lines = "\n".join(pair[side] for pair in given.pairs[-_HELD_OUT:]).translate(spelled if side else {})
        held_out[-1].write_text(lines + "\n", encoding="utf-8")
    corpora = (str(folder / "judged" / f"{names[0]}.txt"), str(folder / "judged" / f"{names[1]}.txt"))
    parallel = (str(held_out[0]), str(held_out[1]))
    found = pluri.align(run / "model", str(dictionary), corpora, parallel=parallel, progress=True)
    rows = [{**row, "seed": seed, "chosen": row["layer"] == found.layer} for row in found.rows]
    finished.write_text(json.dumps(rows), encoding="utf-8")
    (folder / f"about-{seed}.json").write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
    return rows


@dataclass(frozen=True)
class Given:
    """What is the same in every arm."""

    names: Pair
    pairs: list[Pair]
    more: tuple[list[str], list[str]]
    dictionary: list[str]
    model: Row
    training: Row
    tokens: int
    vocabulary: int


def estimate(rows: Sequence[Row], *, task: str = "words", method: str = "model") -> tuple[float, float]:
    """The MRR by CSLS in the layer that was chosen for the model, both directions and all seeds together, and half its
    interval: of the words of one direction, which is wider than of both, or of three seeds or more if that is wider."""
    mine = [r for r in rows if (r["task"], r["similarity"], r["metric"]) == (task, "csls", "mrr")]
    mine = [r for r in mine if r["method"] == method and (r["chosen"] or r["layer"] is None)]
    seeds: dict[int, list[float]] = {}
    for row in mine:
        seeds.setdefault(row["seed"], []).append(row["value"])
    values = [mean(each) for each in seeds.values()]
    of_words = max((row["high"] - row["low"]) / 2 for row in mine)
    of_seeds = 2 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 2 else 0.0
    return mean(values), max(of_words, of_seeds)


def show(arms: dict[str, list[Row]]) -> None:
    """A line for each arm: the MRR of words and of held-out sentences, and the words' less the base's."""
    table = Table(
        "arm", "layer", "MRR of words", "less base", "random weights", "CBOW + Procrustes", "MRR of sentences"
    )
    base = estimate(arms["base"])
    for name, rows in arms.items():
        value, half = estimate(rows)
        layers = ", ".join(str(i) for i in sorted({r["layer"] for r in rows if r["chosen"]}))
        less = "" if name == "base" else f"{value - base[0]:+.3f} ± {np.hypot(half, base[1]):.3f}"
        others = [estimate(rows, method=method) for method in ("random start", "CBOW + Procrustes")]
        others.append(estimate(rows, task="sentences"))
        table.add_row(name, layers, f"{value:.3f} ± {half:.3f}", less, *(f"{v:.3f} ± {h:.3f}" for v, h in others))
    Console(width=150).print(table)
    layers = Table("arm", *(f"layer {i}" for i in range(5)), title="MRR of words (CSLS), layer by layer")
    for name, rows in arms.items():
        mrr = [r for r in rows if (r["task"], r["similarity"], r["metric"]) == ("words", "csls", "mrr")]
        each = [[r["value"] for r in mrr if r["method"] == "model" and r["layer"] == i] for i in range(5)]
        layers.add_row(name, *(f"{mean(values):.3f}" if values else "" for values in each))
    Console(width=150).print(layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--parallel", required=True)
    parser.add_argument("--columns", nargs=2, default=["en", "de"])
    parser.add_argument("--dictionary", required=True)
    parser.add_argument("--text", nargs=2, help="more text of each language")
    parser.add_argument("--lines", type=int, default=20_000, help="of each of these")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--tokens", type=int, default=2_000_000, help="of each pretraining")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a look at whether it works: nothing is learnt")
    options = parser.parse_args()
    pairs = read_pairs(options.parallel, options.columns)
    more: tuple[list[str], list[str]] = ([], [])
    for lines, file in zip(more, options.text or (), strict=False):
        paragraphs = (line.strip().lower() for record in read_records(file) for line in record.text.splitlines())
        lines += islice((line for line in paragraphs if line), options.lines)
    dictionary = Path(options.dictionary).read_text(encoding="utf-8").lower().splitlines()
    names: Pair = (options.columns[0], options.columns[1])
    model: Row = {"preset": "modern", "size": "mini", "max_length": 128}
    given = Given(names, pairs, more, dictionary, model, {}, options.tokens, 12_000)
    if options.quick:
        model = {"preset": "modern", "size": "tiny", "hidden_size": 32, "max_length": 64}
        given = Given(names, pairs[:2600], more, dictionary, model, {"batch_tokens": 512}, 4000, 3000)
    arms: dict[str, list[Row]] = {name: [] for name in ["base", *(name for name in options.arms if name != "base")]}
    for seed in range(options.seeds):
        for name, rows in arms.items():
            rows += measured(options.output / name.replace(" ", "-"), ARMS[name], given, seed)
            everything = [{"arm": arm, **row} for arm, found in arms.items() for row in found]
            (options.output / "results.json").write_text(json.dumps({"rows": everything}, indent=1), encoding="utf-8")
    show(arms)


if __name__ == "__main__":
    main()
