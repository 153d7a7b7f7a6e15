"""Two hosts with addresses of their own find each other and train: network namespaces joined by a cable of two ends."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pluri.training.journal import read_journal

ADDRESSES = ["10.213.77.1", "10.213.77.2"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two network namespaces, which are also those of their ends of the cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    names = [f"plu{uuid.uuid4().hex[:6]}{i}" for i in (0, 1)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made: {error.stderr!r}")
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts_are_one_run(hosts: list[str], corpus: Path, tmp_path: Path) -> None:
    running = []
    for name, address in zip(hosts, ADDRESSES, strict=True):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29500", "--rdzv-id", "run"]
        # The addresses of a namespace are not those of the host's name, by which torchrun tells who holds the store.
        torchrun += ["--rdzv-conf", f"is_host={int(address == ADDRESSES[0])}"]
        command = ["ip", "netns", "exec", name, *torchrun, "--local-addr", address, "-m", "pluri", "pretrain"]
        command += [str(corpus), "--set", f"output={tmp_path / 'run'}"]
        environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": name}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        running.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        for each in running:
            said = each.communicate(timeout=240)[0]
            assert each.returncode == 0, said[-3000:]
    finally:
        for each in running:
            each.kill()
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    assert events[0]["machine"]["processes"] == 2
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
