"""The homework HW07, step by step: makes its files, pretrains a small Chinese model, and prints the ladder.

    python recipes/hw07/run.py DATA [--only simple decay ...]

DATA: a folder with the data sets as their publishers give them; README.md lists the files and their sha256.
Everything goes to ./hw07. The homework's development questions are what is learnt from, a tenth of its paragraphs are
held out, and the test is DRCD's. Unlabelled text is turned into the traditional characters of these questions, which
needs the package opencc. A step that has results is not run again. Once the files are made,
`pluri finetune recipes/hw07.toml` is the ladder's last step.
"""

import argparse
import gzip
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from opencc import OpenCC
from rich.console import Console
from rich.table import Table

import pluri
from pluri.runtime import permuted
from pluri.sequences.readers import read_records

HERE, WORK = Path(__file__).parent, Path("hw07")
TEXTS = ("text/zh_lctt_tech/zh_lctt.txt.zst", "text/zh_modern_of_classics/zh_modern.txt.zst")
LEARNT, TESTED = "qa/hw07/hw7_dev.json.gz", "qa/drcd/DRCD_test.json.gz"
HELD_OUT = 0.1
# What a step changes in recipes/hw07.toml: each takes away what the steps after it add.
_SAMPLE = ["schedule=constant", "doc_stride=0", "training_windows=answer", "valid_spans=false"]
_SAMPLE += ["accumulation=1", "precision=fp32"]
_ALONE = ["baselines=false", "qanet=0"]
STEPS: dict[str, tuple[str, list[str]]] = {
    "simple": ("simple: constant rate, no overlap, training windows around the answer", _SAMPLE + _ALONE),
    "decay": ("medium: and a linear decay", _SAMPLE[1:] + _ALONE),
    "overlap": ("medium: and windows that overlap", _SAMPLE[2:] + _ALONE),
    "windows": ("strong: and training windows that do not centre the answer", _SAMPLE[3:] + _ALONE),
    "spans": ("boss: and valid spans only", _SAMPLE[4:] + _ALONE),
    "accumulation": ("boss: and two parts a step", _SAMPLE[5:] + _ALONE),
    "boss": ("boss: and mixed precision, where the machine has it", []),
}


def make_files(data: Path) -> None:
    """train.json, validation.json and test.json; whole paragraphs are held out."""
    learnt, tested = (json.loads(gzip.decompress((data / name).read_bytes())) for name in (LEARNT, TESTED))
    asked = {qa["question"] for article in tested["data"] for part in article["paragraphs"] for qa in part["qas"]}
    count = len(learnt["paragraphs"])
    held_out = set(permuted(np.arange(count), count, 0)[: round(HELD_OUT * count)].tolist())
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for question in learnt["questions"]:
        if question["question_text"] not in asked:
            parts["validation" if question["paragraph_id"] in held_out else "train"].append(question)
    for name, questions in parts.items():
        _write(WORK / f"{name}.json", {"questions": questions, "paragraphs": learnt["paragraphs"]})
    _write(WORK / "test.json", tested)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def make_model(data: Path) -> None:
    """hw07/pretraining/model: text in traditional characters, a tokenizer of characters, a store, a model."""
    if not (WORK / "text.txt").exists():
        convert = OpenCC("s2tw").convert
        with (WORK / "text.part").open("w", encoding="utf-8") as file:
            for name in TEXTS:
                file.writelines(f"{convert(record.text).strip()}\n\n" for record in read_records(str(data / name)))
        (WORK / "text.part").rename(WORK / "text.txt")
    if not (WORK / "tokenizer").exists():
        pluri.train_tokenizer(WORK / "text.txt", kind="char", vocab_size=8000).save(WORK / "tokenizer")
    pluri.prepare(WORK / "text.txt", WORK / "tokenizer", WORK / "store", language="zh")
    config = pluri.PretrainConfig.load(HERE / "pretraining.toml", [])
    pluri.pretrain(config, resume=(WORK / "pretraining" / "journal.jsonl").exists())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--only", nargs="*", choices=STEPS, default=list(STEPS), help="these steps; none: the model alone"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    make_files(options.data)
    if not (WORK / "pretraining" / "model").exists():
        make_model(options.data)
    for step in options.only:
        results = WORK / "results" / step
        if not (results / "core_minutes.txt").exists():
            shutil.rmtree(results, ignore_errors=True)
            began = time.process_time()
            changes = [*STEPS[step][1], f"output={results}", f"seeds={options.seeds}"]
            pluri.finetune(pluri.FinetuneConfig.load(HERE.parent / "hw07.toml", changes))
            (results / "core_minutes.txt").write_text(f"{(time.process_time() - began) / 60:.1f}", encoding="utf-8")
    show(options.only)


def show(steps: list[str]) -> None:
    """Exact match and F1 of each step on the test questions: the mean over the seeds with its 95% interval."""
    table = Table("step", "method", "exact match", "F1", "seeds", "core minutes")
    for step in steps:
        folder = WORK / "results" / step
        found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
        minutes = (folder / "core_minutes.txt").read_text(encoding="utf-8")
        for method in dict.fromkeys(row["method"] for row in found):
            cells = []
            for metric in ("exact_match", "f1"):
                some = [row for row in found if (row["metric"], row["method"]) == (metric, method)]
                mean = sum(row["value"] for row in some) / len(some)
                cells.append(f"{100 * mean:.1f} ({100 * some[0]['low']:.1f}-{100 * some[0]['high']:.1f})")
            table.add_row(STEPS[step][0], method, *cells, str(len(some)), minutes)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
