"""From a source of examples to an endless stream of batches, in which batch k is a pure function of k."""

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.errors import UsageError
from pluri.runtime import permuted, sequence_keys

_ORDER = 2**63
"""The index under which an epoch's order is drawn: no sequence has it."""


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


def shuffled(stream: NDArray[np.int64], size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(index, epoch) of places in an endless stream (n,) of `size` sequences that are shuffled anew in each epoch."""
    epoch, place = np.divmod(stream, size)
    index = np.empty_like(place)
    for each in np.unique(epoch):
        now = epoch == each
        index[now] = permuted(place[now], size, sequence_keys(seed, each, _ORDER))
    return index, epoch


class Batches:
    """Batches of about `batch_tokens` tokens, in rows of `length`, shuffled anew in each epoch.

    Sequence g of the endless stream is example `permuted(g % len)` of epoch `g // len`; batch k holds the sequences
    k * sequences_per_batch and on. So any batch is found in O(1), no batch is ragged, and an epoch may end inside one.
    """

    def __init__(self, source: Source, *, batch_tokens: int, length: int, seed: int, packed: bool = True) -> None:
        if len(source) == 0:
            raise UsageError("there are no sequences", do="check that the data is not empty")
        if batch_tokens < 1:
            raise UsageError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.source, self.length, self.seed, self.packed = source, length, seed, packed
        self.sequences_per_batch = max(1, round(batch_tokens / source.mean_length))

    def __getitem__(self, step: int) -> Batch:
        stream = step * self.sequences_per_batch + np.arange(self.sequences_per_batch)
        return self._batch(*shuffled(stream, len(self.source), self.seed))

    def stream(self, start: int, workers: int = 1) -> Generator[Batch, None, None]:
        """Batches start, start + 1, ... without end, prepared ahead by `workers` threads; the same for any number.

        Closing the iterator stops the threads. What goes wrong in a thread is raised here.
        """
        if workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}")
        pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in itertools.count(start):
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

    def _batch(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Batch:
        return pack(self.source.examples(index, epoch), self.length, packed=self.packed)
