"""The homework HW07, step by step: makes its files, pretrains a small Chinese model, and prints what each step brings.

    python recipes/hw07/run.py DATA [--only simple decay ...]

DATA: a folder with the data sets as their publishers give them; README.md lists the files and their sha256.
Everything goes to ./hw07. The homework's development questions are what is learnt from, a tenth of its paragraphs are
held out, and the test is a thousand of DRCD's questions. Unlabelled text is turned into the traditional characters of
these questions, which needs the package opencc. The model fills blanks first, then answers questions that cloze.py
makes of the same text. What has results is not done again. Once the files are made, `pluri finetune recipes/hw07.toml`
is the ladder's last step.
"""

import argparse
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cloze import cloze_questions
from opencc import OpenCC
from rich.console import Console
from rich.table import Table

import pluri
from pluri.runtime import permuted
from pluri.sequences.readers import read_records
from pluri.tasks.answer_metrics import AnswerOutcome, answer_outcome
from pluri.tasks.compare import PRETRAINED
from pluri.tasks.intervals import Interval, bootstrap, mean_intervals
from pluri.tasks.questions import read_questions

HERE, WORK = Path(__file__).parent, Path("hw07")
SETTINGS = HERE.parent / "hw07.toml"
TEXTS = ("text/zh_lctt_tech/zh_lctt.txt.zst", "text/zh_modern_of_classics/zh_modern.txt.zst")
LEARNT, TESTED = "qa/hw07/hw7_dev.json.gz", "qa/drcd/DRCD_test.json.gz"
HELD_OUT, QUESTIONS = 0.1, 1000
CLOZE_QUESTIONS, CLOZE_HELD_OUT = {"short": 20_300, "noisy": 15_300}, 300
_ALONE = ["baselines=false", "qanet=0"]
# 2.75 windows around answers to one of all: as many steps, so that no training is longer than another.
_AROUND = ["doc_stride=0", "training_windows=answer", "valid_spans=false", "epochs=2.75", *_ALONE]
# What is trained: recipes/hw07.toml, and what of it is not there yet.
TRAININGS: dict[str, list[str]] = {
    "constant": ["schedule=constant", *_AROUND],
    "linear": _AROUND,
    "windows": ["qanet=0"],
    "blanks": ["model=hw07/pretraining/model", "baselines=false"],
}
# What a step is: its name, what was trained for it, how that answers. Overlap and valid spans change answers alone.
STEPS: dict[str, tuple[str, str, list[str]]] = {
    "simple": (
        "simple: constant rate, no overlap, training windows around the answer",
        "constant",
        ["doc_stride=0", "valid_spans=false"],
    ),
    "decay": ("medium: and a linear decay", "linear", ["doc_stride=0", "valid_spans=false"]),
    "overlap": ("medium: and windows that overlap", "linear", ["doc_stride=64", "valid_spans=false"]),
    "windows": (
        "strong: and training windows that do not centre the answer",
        "windows",
        ["doc_stride=64", "valid_spans=false"],
    ),
    "spans": ("boss: and valid spans only", "windows", ["doc_stride=64", "valid_spans=true"]),
}
# What changes no answer, but memory and time: judged by 40 steps, each in a process of its own.
COSTS = {
    "one part a step, fp32": ["accumulation=1", "precision=fp32"],
    "two parts a step, fp32": ["accumulation=2", "precision=fp32"],
    "two parts a step, mixed precision where it is fast": ["accumulation=2", "precision=auto"],
}
_SHORT = [*_ALONE, "seeds=1", "epochs=0.001", "min_steps=40", "validations=1", "test=hw07/validation.json"]


def make_files(data: Path) -> None:
    """train.json, validation.json and test.json; whole paragraphs are held out."""
    learnt, tested = (json.loads(gzip.decompress((data / name).read_bytes())) for name in (LEARNT, TESTED))
    parts = [part for article in tested["data"] for part in article["paragraphs"]]
    asked = [qa["question"] for part in parts for qa in part["qas"]]
    count = len(learnt["paragraphs"])
    held_out = set(permuted(np.arange(count), count, 0)[: round(HELD_OUT * count)].tolist())
    questions: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for question in learnt["questions"]:
        if question["question_text"] not in set(asked):
            questions["validation" if question["paragraph_id"] in held_out else "train"].append(question)
    for name, some in questions.items():
        _write(WORK / f"{name}.json", {"questions": some, "paragraphs": learnt["paragraphs"]})
    drawn = set(permuted(np.arange(len(asked)), len(asked), 0)[:QUESTIONS].tolist())
    place = iter(range(len(asked)))
    for part in parts:
        part["qas"] = [qa for qa in part["qas"] if next(place) in drawn]
    _write(WORK / "test.json", tested)


def make_answerer(stage: str, model: Path) -> None:
    """hw07/STAGE: the model learns to answer, too, from questions made of its own text."""
    text = (WORK / "text.txt").read_text(encoding="utf-8")
    made = cloze_questions(text, CLOZE_QUESTIONS[stage], noisy=stage == "noisy")
    parts = {"validation": made["questions"][:CLOZE_HELD_OUT], "train": made["questions"][CLOZE_HELD_OUT:]}
    for part, questions in parts.items():
        _write(WORK / f"{stage}_{part}.json", {"questions": questions, "paragraphs": made["paragraphs"]})
    files = [f"{part}={WORK}/{stage}_{part}.json" for part in parts]
    pluri.finetune(pluri.FinetuneConfig.load(HERE / "cloze.toml", [*files, f"model={model}", f"output={WORK / stage}"]))


def _write(path: Path, content: Any) -> None:
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


def folder(training: str, seed: int) -> Path:
    """Where the model of a training lies; it is trained now if it was not."""
    output = WORK / "results" / training / str(seed)
    if not (output / "core_minutes.txt").exists():
        began = time.process_time()
        config = pluri.FinetuneConfig.load(SETTINGS, [*TRAININGS[training], f"output={output}", f"seeds=[{seed}]"])
        pluri.finetune(config)
        (output / "core_minutes.txt").write_text(f"{(time.process_time() - began) / 60:.1f}", encoding="utf-8")
    return output


def outcome(step: str, seed: int) -> AnswerOutcome:
    """How well a step's model answers the test questions, the step's own way."""
    _, training, settings = STEPS[step]
    answers = WORK / "results" / step / f"answers-{seed}"
    if not (answers / "predictions.json").exists():
        pluri.predict(folder(training, seed), str(WORK / "test.json"), answers, settings=settings)
    said = json.loads((answers / "predictions.json").read_text(encoding="utf-8"))
    asked = read_questions(str(WORK / "test.json")).records
    return answer_outcome([question.references or () for question in asked], [said[question.id] for question in asked])


def show_ladder(steps: Sequence[str], seeds: int) -> None:
    """Exact match and F1 of each step: the mean over the seeds with its 95% interval."""
    table = Table("step", "exact match", "F1", "exact match less the row above", "core minutes of training")
    before = None
    for step in steps:
        outcomes = [outcome(step, seed) for seed in range(seeds)]
        exact = np.mean([each.exact for each in outcomes], 0)  # (G,)
        gain = "" if before is None else _shown(mean_intervals((exact - before)[:, None])[0])
        cells = [_shown(bootstrap(outcomes, metric)) for metric in ("exact_match", "f1")]
        training = STEPS[step][1]
        minutes = [float((folder(training, seed) / "core_minutes.txt").read_text("utf-8")) for seed in range(seeds)]
        table.add_row(STEPS[step][0], *cells, gain, f"{sum(minutes):.0f}")
        before = exact
    Console(width=140).print(table)


def show_beside(seeds: int) -> None:
    """The last step's methods. The interval reaches over those of all seeds: cautious, since questions are the same."""
    named = {"windows": "pretrained: blanks, then cloze questions", "blanks": "pretrained: blanks alone"}
    rows: dict[str, list[dict[str, Any]]] = {}
    for training, seed in itertools.product(("windows", "blanks"), range(seeds)):
        for row in json.loads((folder(training, seed) / "results.json").read_text(encoding="utf-8"))["rows"]:
            method = named[training] if row["method"] == PRETRAINED else row["method"]
            rows.setdefault(method, []).append(row)
    table = Table("method", "exact match", "F1", "seeds")
    for method, of in rows.items():
        cells = []
        for metric in ("exact_match", "f1"):
            some = [row for row in of if row["metric"] == metric]
            low, high = min(row["low"] for row in some), max(row["high"] for row in some)
            cells.append(_shown(Interval(sum(row["value"] for row in some) / len(some), low, high)))
        table.add_row(method, *cells, str(len(some)))
    Console(width=140).print(table)


def show_costs() -> None:
    """What two parts a step and mixed precision save: core minutes and memory of 40 steps, and the last losses."""
    table = Table("40 steps with", "core minutes", "memory at most", "loss of the last step")
    for name, settings in COSTS.items():
        output = WORK / "results" / "costs" / name.replace(" ", "-").replace(",", "")
        changes = [f"--set={setting}" for setting in [*_SHORT, *settings, f"output={output}"]]
        command = [sys.executable, "-m", "pluri", "finetune", str(SETTINGS), *changes]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        lines = (output / "curves.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [point["loss"] for point in map(json.loads, lines) if "loss" in point]
        minutes = (used.ru_utime + used.ru_stime) / 60
        table.add_row(name, f"{minutes:.1f}", f"{used.ru_maxrss / 2**20:.2f} GiB", f"{losses[-1]:.6f}")
    Console(width=140).print(table)


def _shown(interval: Interval) -> str:
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


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
    for stage, model in (("short", WORK / "pretraining" / "model"), ("noisy", WORK / "short")):
        if not (WORK / stage / "results.json").exists():
            make_answerer(stage, model)
    if options.only:
        show_ladder(options.only, options.seeds)
    if options.only == list(STEPS):
        show_beside(options.seeds)
        show_costs()


if __name__ == "__main__":
    main()
