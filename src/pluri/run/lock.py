"""One writer a folder: two runs into the same one would each undo what the other wrote."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pluri.errors import TrainingError


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Makes `folder` and keeps it to this process until the end of the block; a killed process lets go by itself.

    TrainingError: another process is writing there, or nobody can.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        do = "wait for it, or choose another output"
        raise TrainingError("another process is writing here", where=str(folder), do=do) from None
    except OSError as error:
        do = "choose a folder with space that you may write to"
        raise TrainingError(f"cannot be written: {error.strerror or error}", where=str(folder), do=do) from None
    try:
        yield
    finally:
        lock.release()
