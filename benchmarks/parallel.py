"""Processes of one thread each: tokens a second of 1, 2 and 4 by strategy, and what checkpoints in the background cost.

    python benchmarks/parallel.py [--quick]

Each side is a run of `pluri pretrain` under torchrun, alternating; tokens a second are the median over its steps, the
first ones left out. A process gets a core of its own where there are enough.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.training.journal import read_journal
from pretraining import make_store

_WARM = 3  # steps


class Runs:
    """Runs of one configuration in a folder of their own.

    steps, batch_tokens: of each. size: of the model.
    """

    def __init__(self, folder: Path, *, steps: int, batch_tokens: int, size: str) -> None:
        self._folder, self._steps = folder, steps
        self._config = folder / "config.toml"
        self._config.write_text(
            f'store = "{folder}/store"\noutput = "unset"\nvalidation = 0\nspectral_start = false\n'
            f'model = {{preset = "modern", size = "{size}"}}\n'
            f"training = {{steps = {steps}, batch_tokens = {batch_tokens}, checkpoint_minutes = 1000.0}}\n",
            encoding="utf-8",
        )

    def seconds(self, processes: int, *settings: str) -> list[float]:
        """Of each step after the first ones."""
        output = self._folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        alone = [sys.executable, "-m"]
        torchrun = [*alone, "torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
        command = [*(torchrun if processes > 1 else alone), "pluri", "pretrain", str(self._config)]
        for setting in (f"output={output}", *settings):
            command += ["--set", setting]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        events = [e for e in read_journal(output / "journal.jsonl") if e["event"] == "step"][_WARM - 1 :]
        self.tokens = (events[-1]["tokens"] - events[0]["tokens"]) / (len(events) - 1)
        return [b["seconds"] - a["seconds"] for a, b in pairwise(events)]

    def rate(self, processes: int, *settings: str) -> float:
        """Tokens a second."""
        return statistics.median(self.tokens / s for s in self.seconds(processes, *settings))

    def whole(self, *settings: str) -> float:
        """Seconds of a run in this process, by the clock on the wall: steps, and what is done between them."""
        output = self._folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        config = PretrainConfig.load(self._config, [f"output={output}", *settings])
        start = time.perf_counter()
        pretrain(config, progress=False)
        return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", default="mini", help="of the model: tiny ... base")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    rounds = 1 if given.quick else 5
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        texts = documents(given.text)
        make_store(Path(place), texts[:2000] if given.quick else texts, 4000)
        runs = Runs(Path(place), steps=given.steps, batch_tokens=given.batch_tokens, size=given.size)
        sides = {"1": lambda _: runs.rate(1)}
        for processes in given.processes:
            for strategy in ("ddp", "fsdp"):
                settings = processes, f"parallel.strategy={strategy}"
                sides[f"{processes} {strategy}"] = lambda _, settings=settings: runs.rate(*settings)
        rates = alternate(sides, rounds)
        for name, found in rates.items():
            times = median_ratio(found, rates["1"])
            rows.append({"case": name, "tokens_per_second": statistics.median(found), "times_one": times})
        every = max(2, given.steps // 4)
        saved = (given.steps - 1) // every  # besides that at the end, which all runs have
        seconds = alternate(
            {
                "one checkpoint": lambda _: runs.whole(),
                "several": lambda _: runs.whole(f"training.checkpoint_steps={every}"),
            },
            rounds,
        )
        more = [(b - a) / saved for a, b in zip(*seconds.values(), strict=True)]
        rows.append({"case": "a checkpoint", "seconds": statistics.median(more)})
        rows.append({"case": "checkpoints every 5 minutes", "share_of_time": statistics.median(more) / 300})
    finish(rows, given.json, f"{given.size}, {given.batch_tokens} tokens a step, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
