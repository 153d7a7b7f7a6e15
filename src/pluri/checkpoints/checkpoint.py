"""Checkpoints that survive a crash: written aside, synced, renamed, and checked by hash when read."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pluri.errors import CheckpointError, DataError

_STATE, _META = "state.safetensors", "checkpoint.json"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` that takes its name when all is written and synced, or vanishes.

    What stood at `path` before is replaced only then. CheckpointError: the disk is full or the place not writable.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        for file in aside.iterdir():
            sync(file)
        sync(aside)
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            aside.rename(path)
            shutil.rmtree(old)
        else:
            aside.rename(path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"cannot be written: {error}", where=str(path), do="free some space or choose another folder"
        ) from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a file beside `path` that takes its name when all is written and synced, or vanishes.

    What stood at `path` before is replaced only then. DataError: the disk is full or the place not writable.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # said before the work, not after it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with aside.open("wb") as file:
            yield file
        sync(aside)
        aside.replace(path)
    except OSError as error:
        do = "free some space or choose another place"
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), do=do) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the permissions of every other new file: the library's own are for its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """tensors: every weight and optimizer state by name. meta: step, tokens, seconds, ... (JSON).
    notes: one line for each newer checkpoint that was damaged and passed over."""

    step: int
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]
    notes: list[str]


def save_checkpoint(
    root: Path, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any], keep: int = 2
) -> Path:
    """Writes ROOT/step-XXXXXXXXX and removes all but the `keep` newest. Returns its folder."""
    folder = Path(root) / f"step-{step:09d}"
    with atomic_folder(folder) as aside:
        write_tensors(aside / _STATE, {name: tensor.detach().contiguous() for name, tensor in tensors.items()})
        content = {"step": step, "sha256": _sha256(aside / _STATE), **meta}
        (aside / _META).write_text(json.dumps(content, indent=1), encoding="utf-8")
    for old in _folders(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint under `root` that is whole; None if there is none at all.

    CheckpointError if there are some, and every one is damaged.
    """
    notes: list[str] = []
    for folder in _folders(root):
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            if meta["sha256"] != _sha256(folder / _STATE):
                raise ValueError("its hash is not the one it was written with")
            return Checkpoint(meta["step"], load_file(folder / _STATE), meta, notes)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            notes.append(f"{folder}: damaged checkpoint ({error}); falling back to the one before")
    if notes:
        raise CheckpointError(
            f"all {len(notes)} checkpoints are damaged",
            where=str(root),
            do="remove this folder of checkpoints to start from the beginning",
        )
    return None


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in Path(root).glob("step-*") if p.is_dir()), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
