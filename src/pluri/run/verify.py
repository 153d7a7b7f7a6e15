"""Proof that stopping costs nothing: a run that was stopped and resumed against one that was not, bit for bit."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from pluri.errors import UsageError
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.training.journal import read_journal


@dataclass(frozen=True, slots=True)
class Verdict:
    """equal: every weight, optimizer state and loss is the same to the bit. differences: the names of what is not."""

    equal: bool
    steps: int
    stopped_after: int
    tensors: int
    differences: list[str]


def verify_resume(config: PretrainConfig, *, steps: int = 20, stop_after: int | None = None) -> Verdict:
    """Trains `steps` steps at once, and again stopped after `stop_after` (half, by default) and resumed.

    The second part runs with another number of worker threads. Both are short runs of the given configuration, in a
    temporary folder: `config.output` is not touched.
    """
    stop_after = steps // 2 if stop_after is None else stop_after
    if not 0 < stop_after < steps:
        raise UsageError(f"{steps} steps cannot be stopped after {stop_after}", where="steps", do="take at least 2")
    with tempfile.TemporaryDirectory(prefix="pluri-verify-") as folder:
        once, twice = (_short(config, steps, Path(folder) / name, 1) for name in ("once", "twice"))
        pretrain(once, progress=False)
        pretrain(twice, stop_after=stop_after, progress=False)
        pretrain(_short(config, steps, twice.output, config.training.workers + 2), resume=True, progress=False)
        tensors = [
            load_file(run.output / "checkpoints" / f"step-{steps:09d}" / "state.safetensors") for run in (once, twice)
        ]
        losses = [
            {
                event["step"]: event["loss"]
                for event in read_journal(run.output / "journal.jsonl")
                if event["event"] == "step"
            }
            for run in (once, twice)
        ]
    names = sorted(tensors[0].keys() | tensors[1].keys())
    differences = [
        n for n in names if not all(n in t for t in tensors) or not torch.equal(tensors[0][n], tensors[1][n])
    ]
    differences += [
        f"loss of step {s}" for s in sorted(losses[0].keys() | losses[1].keys()) if losses[0].get(s) != losses[1].get(s)
    ]
    return Verdict(not differences, steps, stop_after, len(names), differences)


def _short(config: PretrainConfig, steps: int, output: Path, workers: int) -> PretrainConfig:
    budget = {"steps": steps, "tokens": None, "minutes": None, "workers": workers}
    # best weights and early stopping would hide a difference; validation stays, since it must not disturb the run
    training = config.training.model_copy(update={**budget, "patience": None, "best_metric": None})
    return config.model_copy(update={"output": output, "training": training})
