"""The checkpoints of a run, written in the background while it goes on."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from pluri.checkpoints.checkpoint import (
    STATE,
    Checkpoint,
    checkpoint_folder,
    describe,
    find_latest,
    publish,
    remove_old,
    save_checkpoint,
)
from pluri.errors import CheckpointError, PluriError
from pluri.runtime import rank, world_size


class Saver:
    """Saves under `root`, one checkpoint at a time, and finds the newest: by all processes of a group together.

    Training goes on as soon as the tensors are copied. What goes wrong in the background is raised by the next `save`
    or by `wait`: CheckpointError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Any] | None = None
        # Of its own: what is said in the background must not mix with what training says.
        group = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None

    def save(self, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        self.wait()
        if self._group is None:
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            self._pending = self._pool.submit(save_checkpoint, self.root, step, copies, meta)
            return
        from pluri.checkpoints.sharded import begin_writing

        aside = self.root / f".step-{step:09d}.partial"
        written = begin_writing(aside, tensors, self._group)
        self._pending = self._pool.submit(self._publish, written, aside, step, meta)

    def wait(self) -> None:
        """Until the last checkpoint is whole."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Lets what is being written end, for better or worse."""
        with contextlib.suppress(PluriError):
            self.wait()
        self._pool.shutdown()

    def latest(self) -> Checkpoint | None:
        """As `find_latest`; one process looks for all."""
        found = [find_latest(self.root) if rank() == 0 else None]
        if self._group is not None:
            dist.broadcast_object_list(found, group=self._group)
        return found[0]

    def read(
        self, checkpoint: Checkpoint, like: Callable[[str, torch.Size, torch.dtype], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Its weights and optimizer states by name. like: see `read_tensors`, which one process rarely needs."""
        if world_size() == 1 and (checkpoint.folder / STATE).exists():
            return load_file(checkpoint.folder / STATE)
        from pluri.checkpoints.sharded import read_tensors

        return read_tensors(checkpoint.folder, like)

    def _publish(self, written: "Future[None]", aside: Path, step: int, meta: dict[str, Any]) -> None:
        written.result()
        if rank() != 0:
            return
        try:
            describe(aside, step, meta)
            publish(aside, checkpoint_folder(self.root, step))
        except OSError as error:
            do = "free some space or choose another folder"
            raise CheckpointError(f"cannot be written: {error}", where=str(aside), do=do) from None
        remove_old(self.root)
