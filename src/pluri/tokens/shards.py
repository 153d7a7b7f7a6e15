"""The shards of a store by their numbers, each opened when it is first read."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from pluri.tokens.folder import StoreFolder
from pluri.tokens.ragged import offsets_of
from pluri.tokens.shard import Shard, ShardEntry

_MOST_OPEN = 1024
"""Shards mapped at a time: Linux allows a process 65,530 mappings."""


class Shards:
    """Safe to share between threads. StoreError, when one is read: it is missing, was altered, or cannot be fetched."""

    def __init__(self, folder: StoreFolder, entries: Sequence[ShardEntry], dtype: np.dtype) -> None:
        self._folder, self._entries, self._dtype = folder, entries, dtype
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Shard:
        with self._lock:
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
                return shard
        entry = self._entries[number]
        shard = self._folder.open(entry.name, entry.sha256, lambda path: Shard(path, entry, self._dtype))
        with self._lock:  # another thread may have opened it, too, which does no harm
            self._open[number] = shard
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return shard

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Those that will soon be read."""
        entries = [self._entries[number] for number in numbers if number not in self._open]
        self._folder.fetch_ahead((entry.name, entry.sha256) for entry in entries)


class JoinedShards:
    """Those of several stores, one store after the other."""

    def __init__(self, parts: Sequence["Shards | JoinedShards"]) -> None:
        self._parts, self._starts = parts, offsets_of(np.array([len(part) for part in parts], np.int64))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Shard:
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._parts[part][number - int(self._starts[part])]

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        asked = np.fromiter(numbers, np.int64)
        for part, start, end in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            part.fetch_ahead((asked[(asked >= start) & (asked < end)] - start).tolist())
