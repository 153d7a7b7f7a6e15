"""A small store, and groups of processes that train on it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer

WORDS = ["the", "a", "river", "bank", "money", "of", "in", "water", "lends", "runs", "deep", "old", "house"]
Run = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a short run, beside its store: constant rates, so that a longer budget changes nothing."""
    folder = tmp_path_factory.mktemp("parallel")
    chosen = np.random.default_rng(0).integers(0, len(WORDS), (300, 20))
    lines = [" ".join(WORDS[w] for w in row[: 5 + i % 15]) + "." for i, row in enumerate(chosen)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer([str(folder / "text.txt")], kind="wordpiece", vocab_size=100)
    prepare([str(folder / "text.txt")], tokenizer, folder / "store")
    (folder / "config.toml").write_text(
        f'store = "{folder}/store"\noutput = "unset"\nvalidation = 0.1\nobjective.pair = "sop"\n'
        'model = {preset = "modern", size = "tiny", hidden_size = 32, max_length = 32}\n'
        'training = {steps = 4, batch_tokens = 300, schedule = "constant", warmup = 0.0, precision = "fp32"}\n'
    )
    return folder / "config.toml"


@pytest.fixture(scope="session")
def run_groups() -> Iterator[Run]:
    """Runs jobs one after the other, as group.py says."""
    command = [sys.executable, str(Path(__file__).with_name("group.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as server:
        given, said = server.stdin, server.stdout
        assert given is not None
        assert said is not None

        def run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
            given.write(json.dumps(jobs) + "\n")
            given.flush()
            return json.loads(said.readline())

        yield run
        given.close()
