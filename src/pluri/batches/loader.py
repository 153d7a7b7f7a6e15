"""From a source of examples to an endless stream of batches, in which batch k is a pure function of k."""

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import Examples
from pluri.batches.order import ByShard, Order
from pluri.batches.packing import pack
from pluri.errors import UsageError

_AHEAD = 128
"""What the next so many batches need, twice as many at most, is being fetched; but no more than a block."""


class Source(Protocol):
    """Where examples come from: a store with an objective, or the labelled data of a task."""

    @property
    def mean_length(self) -> float:
        """Tokens an example, special tokens included; an estimate will do."""
        ...

    def __len__(self) -> int: ...

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        """The examples at `index` (n,) as they look in `epoch` (n,): a pure function, whatever else is in the group."""
        ...


@runtime_checkable
class Stored(Protocol):
    """What a source may have besides, if its sequences lie in shards, which may have to be fetched."""

    @property
    def remote(self) -> bool:
        """Whether they have to be fetched."""
        ...

    def order(self, seed: int) -> Order:
        """In which few shards are in use at a time."""
        ...

    def fetch_ahead(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> None:
        """Has what `examples` will need fetched in the background."""
        ...


def order_of(source: Source, seed: int) -> Order:
    """The source's own, or else all of its sequences shuffled anew in each epoch."""
    return source.order(seed) if isinstance(source, Stored) else ByShard(np.array([0, len(source)]), seed)


class Batches:
    """Batches of about `batch_tokens` tokens, in rows of `length`, shuffled anew in each epoch.

    The order of the source says which example is sequence g of an endless stream; batch k holds the sequences
    k * sequences_per_batch and on. So any batch is found in O(1), no batch is ragged, and an epoch may end inside one.
    """

    def __init__(self, source: Source, *, batch_tokens: int, length: int, seed: int, packed: bool = True) -> None:
        if len(source) == 0:
            raise UsageError("there are no sequences", do="check that the data is not empty")
        if batch_tokens < 1:
            raise UsageError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.source, self.length, self.seed, self.packed = source, length, seed, packed
        self.sequences_per_batch = max(1, round(batch_tokens / source.mean_length))
        self._order = order_of(source, seed)

    def __getitem__(self, step: int) -> Batch:
        return self._batch(*self._drawn(step))

    def stream(self, start: int, workers: int = 1) -> Generator[Batch, None, None]:
        """Batches start, start + 1, ... without end, prepared ahead by `workers` threads; the same for any number.

        Closing the iterator stops the threads. What goes wrong in a thread is raised here.
        """
        if workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}")
        remote = self.source if isinstance(self.source, Stored) and self.source.remote else None
        fetched = max(1, min(_AHEAD, self._order.size // self._order.blocks // self.sequences_per_batch // 2))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in itertools.count(start):
                if remote and (step - start) % fetched == 0:
                    pool.submit(lambda first: remote.fetch_ahead(*self._drawn(first, 2 * fetched)), step)
                ahead.append(pool.submit(self.__getitem__, step))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def once(self) -> Iterator[Batch]:
        """Every example exactly once, in order, as it looks in epoch 0: for validation and prediction."""
        for first in range(0, len(self.source), self.sequences_per_batch):
            index = np.arange(first, min(first + self.sequences_per_batch, len(self.source)))
            yield self._batch(index, np.zeros_like(index))

    def _drawn(self, step: int, steps: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(index, epoch) of the examples of so many batches."""
        return self._order(np.arange(step * self.sequences_per_batch, (step + steps) * self.sequences_per_batch))

    def _batch(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Batch:
        return pack(self.source.examples(index, epoch), self.length, packed=self.packed)
