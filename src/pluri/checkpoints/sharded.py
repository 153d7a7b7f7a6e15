"""Checkpoints that many processes write and read together: torch.distributed.checkpoint, in safetensors.

Each tensor, or each part of one that is shared out, is written by one process that has it, and read by those that need
it: however many these are. Without a group, one process reads all.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from pluri.errors import CheckpointError
from pluri.runtime import rank


def begin_writing(folder: Path, tensors: dict[str, torch.Tensor], group: dist.ProcessGroup) -> "Future[None]":
    """Copies the tensors and writes them into `folder` in the background; all processes call it.

    The result is there when all have written; CheckpointError: one of them could not.
    group: used by nothing else, since its processes talk in the background.
    """
    if rank() == 0:  # no other process writes before this one has told it what
        shutil.rmtree(folder, ignore_errors=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    written: Future[None] = Future()

    def tell(done: "Future[object]") -> None:
        error = done.exception()
        if error is None:
            written.set_result(None)
        else:
            do = "free some space or choose another folder"
            written.set_exception(CheckpointError(f"cannot be written: {error}", where=str(folder), do=do))

    saving = async_save(tensors, storage_writer=writer, process_group=group)
    assert isinstance(saving, Future)
    saving.add_done_callback(tell)
    return written


def read_tensors(folder: Path, like: Callable[[str, torch.Size, torch.dtype], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every weight and optimizer state of a checkpoint by name, whoever wrote it: one process or many.

    like: (name, shape, dtype) to where it is put; of a tensor that is shared out only this process's part is read.
    CheckpointError: a file cannot be read.
    """
    reader = HuggingFaceStorageReader(str(folder))
    try:
        about = reader.read_metadata().state_dict_metadata
        found = {name: each for name, each in about.items() if isinstance(each, TensorStorageMetadata)}
        tensors = {name: like(name, each.size, each.properties.dtype) for name, each in found.items()}
        load(tensors, storage_reader=reader, no_dist=True)
    except (OSError, SafetensorError, CheckpointException) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(folder)) from None
    return tensors
