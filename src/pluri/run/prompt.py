"""Prompting: tasks answered by models as they are, after none, one or a few examples, with no gradient."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from pluri.checkpoints.huggingface import digest, load_model
from pluri.errors import UsageError
from pluri.inference.prompting import Prompter
from pluri.run.outputs import write_lines
from pluri.tasks.answer_metrics import ANSWER_METRICS
from pluri.tasks.intervals import bootstrap
from pluri.tasks.prompted import judge
from pluri.tasks.prompts import CHOICE_METRICS, Prompts, PromptTask, read_prompts

SHOTS = (0, 1, 2, 4, 8, 16)

# What each metric is called by the outcome that measures it.
_MEASURES = {name: "accuracy" if name in CHOICE_METRICS else name for name in (*CHOICE_METRICS, *ANSWER_METRICS)}


@dataclass(frozen=True, slots=True)
class PromptResults:
    """What results.json holds. rows: one a method (model), number of shots, seed and metric.

    models: of each, how it was read, and the proof that nothing was learnt: the hash of its weights before and after,
    and whether any of them had a gradient.
    notes: what a reader must know to believe the rows.
    """

    rows: list[dict[str, Any]]
    models: list[dict[str, Any]]
    notes: list[str]

    def __str__(self) -> str:
        """A line for each number of shots and model: the mean of each metric over the seeds, with its interval."""
        cells: dict[tuple[int, str], dict[str, list[dict[str, Any]]]] = {}
        for row in self.rows:
            cells.setdefault((row["shots"], row["method"]), {}).setdefault(row["metric"], []).append(row)
        metrics = dict.fromkeys(row["metric"] for row in self.rows)
        lines = ["shots  " + "".join(f"{name:26}" for name in metrics) + "model"]
        for (shots, method), found in sorted(cells.items()):
            spans = [(mean(row["value"] for row in found[name]), found[name][0]) for name in metrics]
            shown = (f"{value:.4f} ({row['low']:.4f} to {row['high']:.4f})" for value, row in spans)
            lines.append(f"{shots:5}  " + "".join(f"{text:26}" for text in shown) + method)
        return "\n".join([*lines, *self.notes])


def prompt(
    task: str | Path | PromptTask,
    model: str | Path | Sequence[str | Path],
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = 5,
    output: str | Path | None = None,
    progress: bool = False,
) -> PromptResults:
    """Judges models on a task, after so many examples as `shots` says.

    task: a TOML file, or what it says. model: a folder, or several to be compared: causal or masked.
    seeds: draws of the examples and of their order; the intervals are over these and the test rows.
    output: a folder for results.json. progress: say each result as it comes.
    A prompt that is longer than the model reads loses whole examples, the first ones first: `dropped` counts them.
    UsageError, DataError: a setting or a row that cannot be used; a prompt that is too long without any example.
    """
    settings = task if isinstance(task, PromptTask) else PromptTask.load(task)
    name = "prompt" if isinstance(task, PromptTask) else Path(task).stem
    shots = sorted(set(shots))
    if not shots or shots[0] < 0 or seeds < 1:
        raise UsageError(f"shots {list(shots)}, seeds {seeds}", where="shots", do="give counts from 0, and a seed")
    prompts = read_prompts(settings)
    prompts.shots(shots[-1], 0)  # too many are said now
    say = Console(stderr=True, quiet=not progress, highlight=False, markup=False).print
    folders = [model] if isinstance(model, str | Path) else model
    rows, models, notes = [], [], list(prompts.notes)
    for folder in folders:
        prompter = Prompter(*load_model(folder))
        before = _hash(prompter)
        for count in shots:
            rows += _rows(prompter, prompts, count, seeds, {"task": name, "method": str(folder)}, say)
        models.append({"method": str(folder), "head": prompter.head, **_proof(prompter, before)})
    if any(row["dropped"] for row in rows):
        notes.append("some prompts were too long, and lost examples: see `dropped`")
    results = PromptResults(rows, models, notes)
    if output is not None:
        write_lines(Path(output) / "results.json", [json.dumps(asdict(results), ensure_ascii=False, indent=1)])
    return results


def _hash(prompter: Prompter) -> str:
    return digest({name: tensor.cpu() for name, tensor in prompter.model.state_dict().items()})


def _proof(prompter: Prompter, before: str) -> dict[str, Any]:
    weights = list(prompter.model.parameters())
    gradients = any(weight.requires_grad or weight.grad is not None for weight in weights)
    return {"gradients": gradients, "sha256_before": before, "sha256_after": _hash(prompter)}


def _rows(
    prompter: Prompter,
    prompts: Prompts,
    count: int,
    seeds: int,
    about: dict[str, Any],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """All rows of one model and number of shots. Without shots there is nothing to draw, and one seed says it all."""
    judged = []
    for seed in range(seeds if count else 1):
        judged.append(judge(prompter, prompts, prompts.shots(count, seed)))
        first = prompts.task.metrics[0]
        value = judged[-1][0][first].value(_MEASURES[first])
        say(f"{about['method']}, {count} shots, seed {seed}: {first} {value:.3f}")
    rows = []
    for metric in prompts.task.metrics:
        interval = bootstrap([outcomes[metric] for outcomes, _ in judged], _MEASURES[metric])
        for seed, (outcomes, dropped) in enumerate(judged):
            value = outcomes[metric].value(_MEASURES[metric])
            row = {**about, "shots": count, "seed": seed, "metric": metric, "value": value}
            rows.append({**row, "low": interval.low, "high": interval.high, "dropped": dropped})
    return rows
