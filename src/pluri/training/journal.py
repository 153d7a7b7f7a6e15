"""The journal of a run: one JSON object a line, so that a killed run still tells what it did."""

import contextlib
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import pluri
from pluri.errors import TrainingError
from pluri.runtime import fast_bf16


class Journal:
    """Appends events to OUTPUT/journal.jsonl, and their numbers to OUTPUT/tensorboard where TensorBoard is installed.

    resume_step: None starts a new journal; a number keeps what an earlier run wrote up to that step and drops the rest,
    which is about to be done again.
    """

    def __init__(self, output: Path, *, resume_step: int | None = None) -> None:
        self.path = Path(output) / "journal.jsonl"
        kept = [] if resume_step is None else [e for e in read_journal(self.path) if e.get("step", 0) <= resume_step]
        kept = [e for e in kept if e["event"] != "end"]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_suffix(".partial")
            aside.write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in kept), encoding="utf-8")
            os.replace(aside, self.path)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise TrainingError(
                f"cannot be written: {error}",
                where=str(self.path),
                do="choose a folder with space that you may write to",
            ) from None
        self.resumed = bool(kept)
        self._board = _board(Path(output) / "tensorboard", resume_step)

    def write(self, event: str, **values: Any) -> None:
        """One line {"event": event, ...values}."""
        try:
            self._file.write(json.dumps({"event": event, **values}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise TrainingError(
                f"cannot be written: {error}", where=str(self.path), do="free some space, then go on with --resume"
            ) from None
        if self._board is not None and "step" in values:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{event}/{name}", value, values["step"])

    def close(self) -> None:
        with contextlib.suppress(OSError):  # everything was flushed line by line; only a full disk can fail here
            self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, resume_step: int | None) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=None if resume_step is None else resume_step + 1)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a last line cut short by a crash is left out. Empty if there is no file."""
    if not Path(path).exists():
        return []
    events = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            break  # only the last line of a killed run can be cut; what follows damage cannot be trusted
        if not (isinstance(event, dict) and "event" in event):
            break
        events.append(event)
    return events


def machine() -> dict[str, Any]:
    """What the run stood on: versions, processor, threads, device, whether bf16 is fast here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "pluri": pluri.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fast_bf16": fast_bf16(device),
    }
