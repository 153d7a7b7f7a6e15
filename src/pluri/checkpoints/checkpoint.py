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
from safetensors.torch import save_file

from pluri.errors import CheckpointError, DataError

STATE, _META, _SUFFIX = "state.safetensors", "checkpoint.json", ".safetensors"


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
        publish(aside, path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"cannot be written: {error}", where=str(path), do="free some space or choose another folder"
        ) from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def publish(aside: Path, path: Path) -> None:
    """Gives a folder that is written the name under which it is found, once all of it outlasts a power cut."""
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
    """folder: of one that is whole. meta: step, tokens, seconds, ... (JSON).
    notes: one line for each newer checkpoint that was damaged and passed over."""

    folder: Path
    step: int
    meta: dict[str, Any]
    notes: list[str]


def save_checkpoint(root: Path, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> Path:
    """Writes ROOT/step-XXXXXXXXX, and returns it: all tensors in one file."""
    folder = checkpoint_folder(root, step)
    with atomic_folder(folder) as aside:
        write_tensors(aside / STATE, {name: tensor.detach().contiguous() for name, tensor in tensors.items()})
        describe(aside, step, meta)
    remove_old(root)
    return folder


def checkpoint_folder(root: Path, step: int) -> Path:
    return Path(root) / f"step-{step:09d}"


def describe(folder: Path, step: int, meta: dict[str, Any]) -> None:
    """Writes what stands beside the tensors: the step, the hash of each of their files, and `meta`."""
    hashes = {file.name: _sha256(file) for file in sorted(folder.glob(f"*{_SUFFIX}"))}
    (folder / _META).write_text(json.dumps({"step": step, "sha256": hashes, **meta}, indent=1), encoding="utf-8")


def remove_old(root: Path, keep: int = 2) -> None:
    """All but the newest checkpoints."""
    for old in _folders(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def find_latest(root: Path) -> Checkpoint | None:
    """The newest checkpoint under `root` that is whole; None if there is none at all.

    CheckpointError if there are some, and every one is damaged.
    """
    notes: list[str] = []
    for folder in _folders(root):
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            hashes = {file.name: _sha256(file) for file in folder.glob(f"*{_SUFFIX}")}
            if not hashes or meta["sha256"] != hashes:
                raise ValueError("its hash is not the one it was written with")
            return Checkpoint(folder, meta["step"], meta, notes)
        except (OSError, ValueError, KeyError, TypeError) as error:
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
