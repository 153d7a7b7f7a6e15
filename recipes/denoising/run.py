"""Each way of breaking a text, and what a model that learnt to undo it is worth: the table of BART's paper in small.

    python recipes/denoising/run.py DATA [--only classical ...] [--tokens 2000000] [--pairs 2000] [--seeds 3] [--quick]

DATA: a folder with the data sets as their publishers give them; README.md names them with their sha256. Everything goes
to ./denoising. A small BART is pretrained on the same text in three languages by each kind of denoising alone, by
BART's own mix, and from left to right, for as many tokens; each is fine-tuned on three tasks from text to text, beside
one from a random start and the sources copied. Writes denoising/results.json: the rows of `pluri finetune`, with the
denoising that a model began from as its method, and prints the table. What is finished is not run again.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import pluri
from pluri.runtime import permuted
from pluri.sequences import read_records, read_rows
from pluri.tasks.compare import PRETRAINED

WORK = Path("denoising")
TEXTS = {
    "en": "text/eltec_eng/novels_eng.txt.zst",
    "de": "text/eltec_deu/novels_deu.txt.zst",
    "zh": "text/zh_lctt_tech/zh_lctt.txt.zst",
}
CHARACTERS = 6_000_000  # of each language, from the beginning; of Chinese, where they say more, a third
KINDS: dict[str, dict[str, Any]] = {
    "mask": {"kinds": ["mask"]},
    "delete": {"kinds": ["delete"]},
    "infill": {"kinds": ["infill"]},
    "permute": {"kinds": ["permute"]},
    "rotate": {"kinds": ["rotate"]},
    "infill + permute": {"kinds": ["infill", "permute"]},
    "MASS": {"kinds": ["mass"]},
    "sentinels": {"kinds": ["sentinel"]},
    "left to right": {"kinds": ["delete"], "rate": 1.0},
}
QUESTIONS = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "thing",
    "HUM": "person",
    "LOC": "place",
    "NUM": "number",
}
METRICS = {"classical": "chrf", "verses": "chrf", "questions": "exact_match"}
Row = dict[str, Any]


def read_pairs(task: str, data: Path) -> Iterator[tuple[str, str]]:
    """Sources and targets: classical and modern Chinese, English and German verses, questions and what they ask for."""
    if task == "questions":
        for line in (data / "class/trec/train.txt").read_text(encoding="utf-8").splitlines():
            label, question = line.split(" ", 1)
            yield question, QUESTIONS[label.split(":")[0]]
        return
    name, columns = "text/parallel_classical_modern/classical_modern.jsonl.zst", ("classical", "modern")
    if task == "verses":
        name, columns = "text/parallel_bible/bible_parallel.jsonl.zst", ("en", "de")
    for row, _ in read_rows(str(data / name)):
        source, target = (str(row.get(column) or "").strip() for column in columns)
        yield source, target


def make_files(task: str, data: Path, counts: dict[str, int]) -> dict[str, str]:
    """Tables of different pairs, drawn once: so many of each part."""
    pairs = list(dict.fromkeys(pair for pair in read_pairs(task, data) if all(pair)))
    drawn = iter(permuted(np.arange(len(pairs)), len(pairs), 0).tolist())
    (WORK / task).mkdir(parents=True, exist_ok=True)
    files = {}
    for part, count in counts.items():
        files[part] = str(WORK / task / f"{part}.csv")
        with Path(files[part]).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("source", "target"), *(pairs[next(drawn)] for _ in range(count))])
    return files


def make_stores(data: Path, characters: int, vocabulary: int) -> dict[str, Path]:
    """denoising/store-LANGUAGE: the text of each, read with one tokenizer of all three."""
    for language, name in TEXTS.items():
        if not (WORK / f"{language}.txt").exists():
            left = characters // (3 if language == "zh" else 1)
            with (WORK / f"{language}.part").open("w", encoding="utf-8") as file:
                for record in read_records(str(data / name)):
                    file.write(f"{record.text[:left].strip()}\n\n")
                    left -= len(record.text)
                    if left <= 0:
                        break
            (WORK / f"{language}.part").rename(WORK / f"{language}.txt")
    texts = [WORK / f"{language}.txt" for language in TEXTS]
    if not (WORK / "tokenizer").exists():
        made = pluri.train_tokenizer(texts, vocab_size=vocabulary, sampling=0.5, sentinels=100)
        made.save(WORK / "tokenizer")
    stores = {language: WORK / f"store-{language}" for language in TEXTS}
    for (language, store), text in zip(stores.items(), texts, strict=True):
        pluri.prepare(text, WORK / "tokenizer", store, language=language)
    return stores


def pretrained(kind: str, stores: dict[str, Path], tokens: int, model: Row) -> Path:
    """The folder of a model that learnt to undo this kind of denoising."""
    run = WORK / "models" / kind.replace(" ", "")
    if not (run / "model").exists():
        values: Row = {"store": stores, "sampling": 0.5, "output": run, "model": model}
        values |= {"objective": {"denoise": KINDS[kind]}, "training": {"tokens": tokens, "learning_rate": 1e-3}}
        pluri.pretrain(pluri.PretrainConfig.parse(values), resume=(run / "journal.jsonl").exists())
    return run / "model"


def compared(task: str, kind: str, model: Path, files: dict[str, str], seeds: int) -> list[Row]:
    """The rows of fine-tuning from `model`; what does not depend on it stands beside the first kind alone."""
    output = WORK / task / kind.replace(" ", "")
    if not (output / "results.json").exists():
        values: Row = {"task": "translate", "model": model, "output": output, "seeds": seeds, "truncate": True}
        values |= {"baselines": kind == next(iter(KINDS)), "metric": METRICS[task], "validations": 2, **files}
        pluri.finetune(pluri.FinetuneConfig.parse(values))
    rows: list[Row] = json.loads((output / "results.json").read_text(encoding="utf-8"))["rows"]
    return [{**row, "task": task, "method": kind if row["method"] == PRETRAINED else row["method"]} for row in rows]


def show(rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """A table for each task, the best first: the mean of each metric over the seeds with its interval."""
    for task in tasks:
        cells: dict[str, dict[str, list[Row]]] = {}
        for row in rows:
            if row["task"] == task:
                cells.setdefault(row["method"], {}).setdefault(row["metric"], []).append(row)
        shown = list(dict.fromkeys([METRICS[task], "exact_match", "length_ratio", "repetition"]))
        table = Table("method", *shown, "seeds", title=task)
        means = {
            method: [float(np.mean([row["value"] for row in of[name]])) for name in shown]
            for method, of in cells.items()
        }
        for method in sorted(means, key=lambda method: -means[method][0]):
            first = [cells[method][name][0] for name in shown]
            spans = zip(means[method], first, strict=True)
            texts = (f"{value:.3f} ({row['low']:.3f} to {row['high']:.3f})" for value, row in spans)
            table.add_row(method, *texts, str(len(cells[method][shown[0]])))
        Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=METRICS, default=list(METRICS))
    parser.add_argument("--tokens", type=int, default=2_000_000, help="of each pretraining, sources and targets")
    parser.add_argument("--pairs", type=int, default=2000, help="to learn from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a look at whether it works: nothing is learnt")
    options = parser.parse_args()
    counts = {"train": options.pairs, "validation": 200, "test": 400}
    model: Row = {"preset": "bart", "size": "mini", "max_length": 128}
    characters, tokens, seeds, vocabulary = CHARACTERS, options.tokens, options.seeds, 16_000
    if options.quick:
        counts = {"train": 60, "validation": 10, "test": 20}
        model |= {"size": "tiny", "hidden_size": 64, "num_layers": 1}
        characters, tokens, seeds, vocabulary = 60_000, 20_000, 2, 4000
    WORK.mkdir(exist_ok=True)
    stores = make_stores(options.data, characters, vocabulary)
    rows: list[Row] = []
    for task in options.only:
        files = make_files(task, options.data, counts)
        for kind in KINDS:
            rows += compared(task, kind, pretrained(kind, stores, tokens, model), files, seeds)
            (WORK / "results.json").write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    show(rows, options.only)


if __name__ == "__main__":
    main()
