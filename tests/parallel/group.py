"""Runs command lines, each on a group of processes that are forked from this one: torch is imported once for all.

Reads lines, each a list of {"arguments": [...], "world": n} and, if a process is to be hit, {"hit": [rank, signal,
journal, steps]}: once the journal has so many steps. Prints for each line a list of {"codes", "stdout", "stderr"}.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

torch.set_num_threads(1)  # before any fork: threads do not survive one

from pluri.__main__ import main  # noqa: E402
from pluri.training import trainer  # noqa: E402

trainer.product_rate = lambda *_: 1e9  # bf16 products of a machine without them take half a minute to measure

for module in (
    "pluri.run.pretrain",
    "pluri.checkpoints.sharded",
    "pluri.training.sharding",
    "torch.utils.tensorboard",
    "torch._dynamo",
):
    with contextlib.suppress(ImportError):  # each child would import them, one after the other
        import_module(module)


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    port, keeper = serve_store()
    try:
        return run_group(job, folder, port)
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)


def serve_store() -> tuple[int, int]:
    """The port of a store, and the process that holds it: as with torchrun it is none of the group, and outlives each.

    Nor is it this process: what is forked from one that has threads may wait for them forever.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keeper = os.fork()
    if not keeper:
        store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        signal.pause()
        os._exit(bool(store))
    return port, keeper


def run_group(job: dict[str, Any], folder: Path, port: int) -> dict[str, Any]:
    children = []
    for rank in range(job["world"]):
        child = os.fork()
        if not child:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world"], "MASTER_ADDR": "127.0.0.1"}
            place |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
            if job["world"] > 1:
                os.environ.update({name: str(value) for name, value in place.items()})
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            code = 70
            with contextlib.suppress(SystemExit):
                code = main(job["arguments"])
            os._exit(code)
        children.append(child)
    if "hit" in job:
        rank, name, journal, steps = job["hit"]
        while not Path(journal).exists() or Path(journal).read_text().count('"event": "step"') < steps:
            time.sleep(0.01)
        os.kill(children[rank], signal.Signals[name])
        if name == "SIGSTOP":
            return told(ended(children, children[rank]), folder)
    return told(ended(children), folder)


def ended(children: list[int], stopped: int | None = None) -> list[int]:
    """How each ended. As torchrun does, those that are left are killed when one has failed; but only after some
    seconds, in which they should have noticed by themselves. stopped: one that will not."""
    codes: dict[int, int] = {}
    failed_at = 0.0
    while len(codes) < len(children):
        if set(children) - codes.keys() == {stopped}:
            assert stopped is not None
            os.kill(stopped, signal.SIGKILL)
        for each in set(children) - codes.keys():
            child, code = os.waitpid(each, os.WNOHANG)
            if child:
                codes[child] = os.waitstatus_to_exitcode(code)
                failed_at = failed_at or (time.monotonic() if code else 0.0)
        if failed_at and time.monotonic() - failed_at > 15:
            for left in set(children) - codes.keys():
                os.kill(left, signal.SIGKILL)
            failed_at = 0.0
        time.sleep(0.02)
    return [codes[child] for child in children]


def told(codes: list[int], folder: Path) -> dict[str, Any]:
    said = {name: (folder / name).read_text() if (folder / name).exists() else "" for name in ("stdout", "stderr")}
    return {"codes": codes, **said}


if __name__ == "__main__":
    for line in sys.stdin:
        results = []
        for job in json.loads(line):
            with tempfile.TemporaryDirectory() as folder:
                results.append(run(job, Path(folder)))
        print(json.dumps(results), flush=True)
