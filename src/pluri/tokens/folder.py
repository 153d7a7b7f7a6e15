"""Where the files of a store are: in a folder of this machine, or behind a URL, from which a cache has them."""

import contextlib
import errno
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import fsspec

from pluri.errors import PluriError, StoreError
from pluri.tokens.cache import cache_of_environment
from pluri.tokens.shard import file_sha256

AGAIN = "remove the store and prepare it again"
_FETCHERS = 16
"""Files fetched at once ahead of their use: an object store answers each of them slowly, and many at a time."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class StoreFolder:
    """A folder of this machine, or of a file system that it has mounted.

    path: the folder. where: as it was named. remote: whether its files are fetched.
    """

    remote = False

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where
        self._checked: set[str] = set()

    def manifest(self) -> bytes:
        """StoreError: there is none, or it cannot be read."""
        try:
            return (self.path / "manifest.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if (self.path / "unfinished").exists():
                do = "run the same prepare again; what was made in parts: pluri merge"
                raise StoreError("the store is unfinished", where=self.where, do=do) from None
            raise StoreError("no token store here", where=self.where, do="make one with `pluri prepare`") from None
        except OSError as error:
            raise StoreError(f"manifest.json cannot be read: {error}", where=self.where, do=AGAIN) from None

    def open(self, name: str, sha256: str, opener: Callable[[Path], T]) -> T:
        """What `opener` makes of a file; before its first use the file is compared with its hash.

        StoreError: it is missing or was altered.
        """
        path = self.path / name
        try:
            if name in self._checked or _whole(path, sha256):
                self._checked.add(name)
                return opener(path)
        except FileNotFoundError:  # it was deleted since
            pass
        raise StoreError("the file is missing or was altered", where=str(path), do=AGAIN)

    def fetch_ahead(self, files: Iterable[tuple[str, str]]) -> None:
        """Files (name, sha256) that will soon be opened."""


class RemoteFolder(StoreFolder):
    """A folder of any file system of fsspec. `path` is where the cache keeps its files, those that are there.

    It goes by the manifest's hash: a store that was replaced has another place, and nothing cached is ever out of date.
    """

    remote = True

    def __init__(self, url: str) -> None:
        self.where, self._cache = url.rstrip("/"), cache_of_environment()
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.where)
        except Exception as error:  # whatever the file system's package may raise, if there is one
            do = "check the URL, or install what it needs: pip install 'pluri[s3]', or another package of fsspec"
            raise StoreError(f"cannot be reached: {error}", where=url, do=do) from None
        self._manifest = self._remotely("manifest.json", self._fs.cat_file)
        super().__init__(self._cache.folder / hashlib.sha256(self._manifest).hexdigest()[:16], self.where)
        self._queue: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._queued: set[str] = set()
        self._fetchers: list[threading.Thread] = []

    def manifest(self) -> bytes:
        return self._manifest

    def open(self, name: str, sha256: str, opener: Callable[[Path], T]) -> T:
        """As of any folder; what is not in the cache, or was altered there, is fetched."""
        path = self.path / name
        for _ in range(8):
            if name not in self._checked or not path.exists():
                self._fetch(name, sha256)
                self._checked.add(name)
            self._cache.touch(path)
            with contextlib.suppress(FileNotFoundError):  # another process may make room at any moment
                return opener(path)
        do = "raise PLURI_CACHE_GB: the files in use at a time have no room there"
        raise StoreError("the file was dropped from the cache again and again", where=str(path), do=do)

    def fetch_ahead(self, files: Iterable[tuple[str, str]]) -> None:
        """In the background. What goes wrong there is told when the file is opened."""
        for name, sha256 in files:
            if name not in self._queued and not (self.path / name).exists():
                self._queued.add(name)
                self._queue.put((name, sha256))
                if len(self._fetchers) < _FETCHERS:
                    self._fetchers.append(threading.Thread(target=self._fetch_queued, daemon=True))
                    self._fetchers[-1].start()

    def _fetch_queued(self) -> None:
        while True:
            name, sha256 = self._queue.get()
            with contextlib.suppress(PluriError):
                self._fetch(name, sha256)
            self._queued.discard(name)

    def _fetch(self, name: str, sha256: str) -> None:
        def fetch(aside: Path) -> None:
            self._remotely(name, lambda remote: self._fs.get_file(remote, str(aside)))
            if not _whole(aside, sha256):
                do = "copy the store there again, or restore that file"
                raise StoreError("the file was altered: its hash is not the manifest's", where=self._url(name), do=do)

        self._cache.place(self.path / name, fetch, lambda path: _whole(path, sha256))

    def _remotely(self, name: str, act: Callable[[str], T]) -> T:
        """StoreError, whatever a file system of fsspec may raise, but for what this machine's disk does."""
        try:
            return act(f"{self._root}/{name}")
        except FileNotFoundError:
            what, do = "the file is missing", "check the URL, or copy the store there again"
        except PermissionError as error:
            what, do = f"no access: {error}", "give credentials as the file system's package wants them"
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise
            what, do = f"cannot be fetched: {type(error).__name__}: {error}", "run it again when it can be reached"
            if "credential" in what.lower():
                do = "give credentials as the file system's package wants them"
        raise StoreError(what, where=self._url(name), do=do)

    def _url(self, name: str) -> str:
        return f"{self.where}/{name}"


def open_folder(place: str | Path) -> StoreFolder:
    """A path is read where it is; whatever is a URL, also file://, comes through the cache."""
    return RemoteFolder(place) if isinstance(place, str) and "://" in place else StoreFolder(Path(place), str(place))


def _whole(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except (FileNotFoundError, NotADirectoryError):
        return False
