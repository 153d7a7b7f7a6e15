"""The same run on 1, 2, 3 and 4 processes: DDP, FSDP2, hybrid; and from a checkpoint of one on another."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pluri.training.journal import read_journal

JOBS: dict[str, tuple[int, list[str]]] = {
    "one": (1, []),
    "ddp": (4, []),
    "hybrid": (4, ["parallel.strategy=fsdp", "parallel.shards=2", "training.accumulation=2"]),
    "uneven": (3, ["parallel.strategy=fsdp", "training.accumulation=5", "parallel.activation_checkpointing=true"]),
    "uneven ddp": (3, ["training.accumulation=5", "parallel.activation_checkpointing=true"]),
    "bf16": (1, ["training.precision=bf16"]),
    "bf16 ddp": (2, ["training.precision=bf16"]),
    "bf16 fsdp": (2, ["training.precision=bf16", "parallel.strategy=fsdp"]),
    "dropout": (2, ["model.dropout=0.2"]),
    "dropout again": (2, ["model.dropout=0.2", "training.workers=3"]),
}


@pytest.fixture(scope="module")
def runs(corpus: Path, run_groups: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each name."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []
    for name, (world, settings) in JOBS.items():
        given = [*settings, "training.eval_steps=2", f"output={folder / name}"]
        jobs.append({"world": world, "arguments": ["pretrain", str(corpus), *sets(given)]})
    results = run_groups(jobs)
    for name, result in zip(JOBS, results, strict=True):
        assert set(result["codes"]) == {0}, (name, result["stderr"][-3000:])
        assert result["stdout"].count("model:") == 1  # process 0 says it for all
    return folder


def sets(settings: list[str]) -> list[str]:
    return [each for setting in settings for each in ("--set", setting)]


def losses(output: Path) -> list[float]:
    return [event["loss"] for event in read_journal(output / "journal.jsonl") if event["event"] == "step"]


def validations(output: Path) -> list[float]:
    return [e["eval_loss"] for e in read_journal(output / "journal.jsonl") if e["event"] == "validation"]


@pytest.mark.parametrize("name", ["ddp", "hybrid", "uneven", "uneven ddp"])
def test_any_number_of_processes_is_the_same_run(runs: Path, name: str) -> None:
    assert losses(runs / name) == pytest.approx(losses(runs / "one"), rel=1e-4)
    assert len(losses(runs / name)) == 4
    assert len(validations(runs / name)) == 2
    assert validations(runs / name) == pytest.approx(validations(runs / "one"), rel=1e-4)
    ours, theirs = (load_file(runs / each / "model" / "model.safetensors") for each in (name, "one"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=2e-3, rtol=1e-2)


def test_the_same_number_is_the_same_to_the_bit(runs: Path) -> None:
    pair = runs / "dropout", runs / "dropout again"
    assert losses(pair[0]) == losses(pair[1])
    ours, theirs = (load_file(each / "model" / "model.safetensors") for each in pair)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", ["bf16 ddp", "bf16 fsdp"])
def test_products_in_bf16_are_alike(runs: Path, name: str) -> None:
    assert losses(runs / name) == pytest.approx(losses(runs / "bf16"), rel=2e-2)
    assert losses(runs / name) != losses(runs / "one")
    weights = load_file(runs / name / "model" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())


def test_a_checkpoint_of_some_processes_goes_on_in_others(
    runs: Path, corpus: Path, run_groups: Any, tmp_path: Path
) -> None:
    """Written by DDP, FSDP2, a hybrid of both or one process; read by others. All losses as if nothing had been."""
    ways = {
        "one": (2, ["parallel.strategy=fsdp"]),
        "uneven": (2, ["parallel.strategy=fsdp"]),
        "hybrid": (3, []),
        "bf16 fsdp": (1, []),
    }
    jobs = [{"world": 1, "arguments": ["pretrain", str(corpus), *sets(["training.steps=7", f"output={tmp_path}/one"])]}]
    for name, (world, settings) in ways.items():
        shutil.copytree(runs / name, tmp_path / "from" / name)
        given = [*JOBS[name][1], "parallel.strategy=ddp", *settings, "training.steps=7"]
        given.append(f"output={tmp_path / 'from' / name}")
        jobs.append({"world": world, "arguments": ["pretrain", str(corpus), "--resume", *sets(given)]})
    for result in run_groups(jobs):
        assert set(result["codes"]) == {0}, result["stderr"][-3000:]
    for name in ways:
        assert len(losses(tmp_path / "from" / name)) == 7
        assert losses(tmp_path / "from" / name) == pytest.approx(
            losses(tmp_path / "one"), rel=2e-2 if "bf16" in name else 1e-4
        )
