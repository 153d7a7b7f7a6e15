"""Files fetched from elsewhere, kept in one folder of this machine for all of its processes.

They lie in pluri-stores/ under the folder that PLURI_CACHE names (default ~/.cache), and are kept to PLURI_CACHE_GB
(default 16; of 10^9 bytes).
"""

import contextlib
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG

from filelock import FileLock

from pluri.errors import StoreError, UsageError

_LOCKS, _LOCK_FOLDER = 256, "locks"
_STALE = 3600.0
"""Seconds after which what a killed process was fetching is thrown away."""


class Cache:
    """At most about `limit` bytes under `folder`, where nothing else may be: what was used longest ago goes first.

    A file's time of modification is the time of its last use, so that all processes know it. A file that is deleted
    while a process has it mapped lives on for that process.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._unseen = limit  # bytes placed since all were counted; at first nothing is known

    def place(self, path: Path, fetch: Callable[[Path], None], whole: Callable[[Path], bool]) -> None:
        """Has `fetch` write a file and moves it to `path`, unless it is `whole` there already.

        One process of the machine fetches it, the others wait for that. StoreError: the disk is full or not writable.
        """
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        lock = self.folder / _LOCK_FOLDER / f"{zlib.crc32(str(path).encode()) % _LOCKS}"
        try:
            for folder in (lock.parent, path.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if whole(path):
                    return
                aside.touch()  # where nothing can be written, it is not the fetching that fails
                fetch(aside)
                aside.replace(path)
                self._make_room(path)
        except OSError as error:
            do = "name a folder with space as PLURI_CACHE (its size in GB: PLURI_CACHE_GB), and go on from there"
            raise StoreError(
                f"the cache cannot be written: {error.strerror or error}", where=str(path), do=do
            ) from None
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)

    def touch(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # it may just have been deleted; who needs it fetches it again
            os.utime(path)

    def _make_room(self, placed: Path) -> None:
        """Deletes the least recently used files once there may be too many, but never the one just placed.

        Counting all is slow, so it is done once in so many bytes: then an eighth is made free, and up to eight
        processes may each place a 64th before they count again.
        """
        self._unseen += placed.stat().st_size
        if self._unseen * 64 < self.limit:
            return
        self._unseen = 0
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        for used, size, path in found:
            if path.suffix == ".tmp":
                drop = time.time() - used > _STALE
            else:
                drop = total * 8 > self.limit * 7 and path != placed
            if drop:
                path.unlink(missing_ok=True)
                total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of all but the locks; others may be deleting some at the same time."""
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if S_ISREG(stat.st_mode) and path.parent.name != _LOCK_FOLDER:
                    yield stat.st_mtime, stat.st_size, path


def cache_of_environment() -> Cache:
    """UsageError: PLURI_CACHE_GB is no positive number."""
    gigabytes = os.environ.get("PLURI_CACHE_GB", "16")
    try:
        limit = int(float(gigabytes) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise UsageError(f"{gigabytes!r} is no size", where="PLURI_CACHE_GB", do="give GB as a number, such as 100")
    folder = os.environ.get("PLURI_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Cache(Path(folder).expanduser().absolute() / "pluri-stores", limit)
