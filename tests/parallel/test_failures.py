"""A process that dies, hangs, fails or is told to stop: all end alike, say why once, and nothing is lost."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pluri.run.lock import only_writer
from pluri.training.journal import read_journal


def sets(settings: list[str]) -> list[str]:
    return [each for setting in settings for each in ("--set", setting)]


def pretrain(config: Path, output: Path, *settings: str) -> list[str]:
    return ["pretrain", str(config), *sets([f"output={output}", *settings])]


def steps(output: Path) -> list[dict[str, Any]]:
    return [event for event in read_journal(output / "journal.jsonl") if event["event"] == "step"]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def results(corpus: Path, run_groups: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What groups of two said that each went wrong in its own way, by that way; their outputs have its name."""
    folder = tmp_path_factory.mktemp("failures")
    long = ["training.steps=100000", "training.checkpoint_minutes=100.0"]

    def hit(name: str, signal: str) -> dict[str, Any]:
        return {"hit": [1, signal, str(folder / name / "journal.jsonl"), 3]}

    jobs = {
        "killed": {"world": 2, "arguments": pretrain(corpus, folder / "killed", *long), **hit("killed", "SIGKILL")},
        "hung": {
            "world": 2,
            "arguments": pretrain(corpus, folder / "hung", *long, "parallel.timeout=0.02"),
            **hit("hung", "SIGSTOP"),
        },
        "stopped": {"world": 2, "arguments": pretrain(corpus, folder / "stopped", *long), **hit("stopped", "SIGTERM")},
        "minutes": {"world": 2, "arguments": minutes(corpus, folder)},
        "whole": {"world": 2, "arguments": pretrain(corpus, folder / "whole", "training.steps=60")},
        "taken": {"world": 2, "arguments": pretrain(corpus, folder / "taken")},
        "too many": {"world": 4, "arguments": pretrain(corpus, folder / "too many", "training.batch_tokens=20")},
        "groups": {
            "world": 3,
            "arguments": pretrain(corpus, folder / "groups", "parallel.strategy=fsdp", "parallel.shards=2"),
        },
    }
    with only_writer(folder / "taken"):
        return folder, dict(zip(jobs, run_groups(list(jobs.values())), strict=True))


def minutes(corpus: Path, folder: Path) -> list[str]:
    config = folder / "minutes.toml"
    config.write_text(corpus.read_text().replace("steps = 4", "minutes = 0.01"))
    return pretrain(config, folder / "minutes")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("killed", 1, "lost its connection to another one; see which one ended"),
        ("hung", 1, "process 1 on "),
        ("stopped", 1, "stopped by SIGTERM after step "),
        ("taken", 1, "another process is writing here"),
        ("too many", 2, "sequences a batch are too few for 4 processes"),
        ("groups", 2, "3 processes do not make groups of 2"),
    ],
)
def test_one_message_says_why_all_end(results: tuple[Path, dict[str, Any]], name: str, code: int, message: str) -> None:
    result = results[1][name]
    assert message in result["stderr"]
    assert result["stderr"].count("error:") == 1, result["stderr"]
    assert 0 not in result["codes"]
    assert code in result["codes"]


def test_a_process_that_hangs_is_named_in_time(results: tuple[Path, dict[str, Any]]) -> None:
    assert "hangs: no progress for 0.02 minutes" in results[1]["hung"]["stderr"]


def test_a_budget_of_minutes_ends_all_at_one_step(results: tuple[Path, dict[str, Any]]) -> None:
    folder, said = results
    assert said["minutes"]["codes"] == [0, 0], said["minutes"]["stderr"]
    assert 0.6 <= steps(folder / "minutes")[-1]["seconds"] < 6


def test_a_signal_to_one_stops_all_after_the_same_step(results: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = results
    (saved,) = (folder / "stopped" / "checkpoints").glob("step-*")
    assert int(saved.name.removeprefix("step-")) == len(steps(folder / "stopped"))


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "pluri"]


def test_torchrun_starts_again_after_a_kill_and_loses_nothing(
    results: tuple[Path, dict[str, Any]], corpus: Path, tmp_path: Path
) -> None:
    """By the real torchrun: a process is killed, all are started again, and the end is the same to the bit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    settings = ["training.steps=60", "training.checkpoint_steps=5"]
    command = [
        *torchrun("--nproc-per-node", "2", "--max-restarts", "2"),
        *pretrain(corpus, tmp_path / "run", *settings),
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while running.poll() is None and not list((tmp_path / "run" / "checkpoints").glob("step-*")):
        time.sleep(0.02)
    found = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]), 9)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 0, said[-3000:]
    assert "lost its connection" in said
    ours, theirs = ([(e["step"], e["loss"]) for e in steps(each)] for each in (tmp_path / "run", results[0] / "whole"))
    assert len(ours) == 60
    assert ours == theirs
    ours, theirs = weights(tmp_path / "run"), weights(results[0] / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
