"""Runs command lines, each on a group of processes that are forked from this one: torch is imported once for all.

python group.py JOBS.json: a list of {"arguments": [...], "world": n} and, if a process is to be hit, {"hit":
[rank, signal, journal, steps]}: once the journal has so many steps. Prints a list of {"codes", "stdout", "stderr"}.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)  # before any fork: threads do not survive one

from pluri.__main__ import main  # noqa: E402
from pluri.run import pretrain  # noqa: E402, F401


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["world"]):
        child = os.fork()
        if not child:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world"], "MASTER_ADDR": "127.0.0.1"}
            if job["world"] > 1:
                os.environ.update({name: str(value) for name, value in {**place, "MASTER_PORT": port}.items()})
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
        if name == "SIGSTOP":  # nobody but a scheduler would end it: here, when the others have ended
            codes = [os.waitpid(child, 0)[1] for child in children if child != children[rank]]
            os.kill(children[rank], signal.SIGKILL)
            os.waitpid(children[rank], 0)
            return told(codes, folder)
    return told([os.waitpid(child, 0)[1] for child in children], folder)


def told(codes: list[int], folder: Path) -> dict[str, Any]:
    said = {name: (folder / name).read_text() if (folder / name).exists() else "" for name in ("stdout", "stderr")}
    return {"codes": [os.waitstatus_to_exitcode(code) for code in codes], **said}


if __name__ == "__main__":
    results = []
    for job in json.loads(Path(sys.argv[1]).read_text()):
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(job, Path(folder)))
    print(json.dumps(results))
