"""Checkpoints: atomic, checked, and falling back to the one before."""

from pathlib import Path

import pytest
import torch

from pluri.checkpoints.checkpoint import atomic_folder, find_latest, save_checkpoint
from pluri.checkpoints.saver import Saver
from pluri.checkpoints.sharded import read_tensors
from pluri.errors import CheckpointError


def save(root: Path, step: int) -> Path:
    return save_checkpoint(root, step, {"w": torch.full((3,), float(step))}, {"tokens": step * 10})


def test_the_newest_wins_and_old_ones_go(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "none") is None
    for step in (1, 2, 30):
        save(tmp_path, step)
    checkpoint = find_latest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.meta["tokens"]) == (30, 300)
    tensors = read_tensors(checkpoint.folder, lambda name, shape, dtype: torch.empty(shape, dtype=dtype))
    assert torch.equal(tensors["w"], torch.full((3,), 30.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000002", "step-000000030"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "no meta", "bad meta", "no file", "one more"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    state = newest / "state.safetensors"
    content = bytearray(state.read_bytes())
    if damage == "truncate":
        state.write_bytes(content[:-5])
    elif damage == "flip":
        content[-1] ^= 1
        state.write_bytes(content)
    elif damage == "no file":
        state.unlink()
    elif damage == "one more":
        (newest / "shard-2.safetensors").write_bytes(bytes(content))
    elif damage == "no meta":
        (newest / "checkpoint.json").unlink()
    else:
        (newest / "checkpoint.json").write_text("{")
    checkpoint = find_latest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert "step-000000002" in checkpoint.notes[0]


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        find_latest(tmp_path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("first")

    def fail(error: BaseException) -> None:
        with atomic_folder(target) as folder:
            (folder / "a").write_text("second")
            raise error

    with pytest.raises(CheckpointError, match="No space left"):
        fail(OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (target / "a").read_text() == "first"


def test_what_is_saved_is_what_stood_there_when_it_was_saved(tmp_path: Path) -> None:
    saver, weight = Saver(tmp_path), torch.zeros(100_000)
    saver.save(1, {"w": weight}, {})
    weight += 1  # training goes on while it is written
    saver.wait()
    found = saver.latest()
    assert found is not None
    assert not read_tensors(found.folder, lambda name, shape, dtype: torch.empty(shape, dtype=dtype))["w"].any()
    saver.close()


def test_what_fails_in_the_background_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    saver = Saver(tmp_path / "root")
    saver.save(1, {"w": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="cannot be written"):
        saver.save(2, {"w": torch.zeros(3)}, {})
    saver.close()
