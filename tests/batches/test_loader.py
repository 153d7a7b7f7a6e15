"""Batch k is a pure function of k, whoever prepares it."""

import threading
import time
from dataclasses import astuple
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import Examples
from pluri.batches.loader import Batches
from pluri.errors import DataError, UsageError
from pluri.tokens.ragged import offsets_of, slices


class Counting:
    """n sequences; the ids of sequence i are 1000 * epoch + i, 2 + i % 9 times. Fails or dawdles if told to."""

    mean_length = 6.0

    def __init__(self, n: int, *, broken: int | None = None, slow: bool = False) -> None:
        self.n, self.broken, self.slow = n, broken, slow

    def __len__(self) -> int:
        return self.n

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        if self.broken in index:
            raise DataError("broken sequence", where=f"data:{self.broken}")
        if self.slow:
            time.sleep(0.001 * (int(index[0]) % 4))  # so that threads finish out of order
        lengths = 2 + index % 9
        ids = np.repeat(1000 * epoch + index, lengths).astype(np.int32)
        return Examples(ids, offsets_of(lengths), labels=slices(np.zeros_like(lengths), lengths).astype(np.int32))


def batches(n: int = 100, *, batch_tokens: int = 60, seed: int = 1, packed: bool = True) -> Batches:
    return Batches(Counting(n), batch_tokens=batch_tokens, length=16, seed=seed, packed=packed)


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(astuple(a), astuple(b), strict=True)
    return all(torch.equal(x, y) if x is not None else y is None for x, y in pairs)


def first_ids(batch: Batch) -> list[int]:
    return batch.input_ids.reshape(-1)[batch.starts].tolist()


@given(n=st.integers(1, 50), batch_tokens=st.integers(1, 400), seed=st.integers(0, 2**40))
def test_each_epoch_holds_every_sequence_once(n: int, batch_tokens: int, seed: int):
    made = batches(n, batch_tokens=batch_tokens, seed=seed)
    steps = -(-2 * n // made.sequences_per_batch)  # two epochs
    seen = [each for step in range(steps) for each in first_ids(made[step])][: 2 * n]
    assert sorted(seen[:n]) == list(range(n))
    assert sorted(seen[n:]) == [1000 + i for i in range(n)]


def test_epochs_and_seeds_have_their_own_order():
    made = batches(50, batch_tokens=300)  # one batch an epoch
    first, second = first_ids(made[0]), [each - 1000 for each in first_ids(made[1])]
    assert first != second
    assert first != sorted(first)
    assert first != first_ids(batches(50, batch_tokens=300, seed=2)[0])


def test_batch_size_follows_the_mean_length():
    assert batches(batch_tokens=60).sequences_per_batch == 10
    assert batches(batch_tokens=1).sequences_per_batch == 1


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_stream_is_the_same_for_any_number_of_workers(workers: int):
    made = Batches(Counting(100, slow=True), batch_tokens=60, length=16, seed=1)
    stream = made.stream(7, workers)
    for step, batch in enumerate(islice(stream, 25), start=7):
        assert same(batch, made[step])
    stream.close()


def test_seeking_a_million_steps_takes_no_longer():
    made = batches()
    made[0]

    def seconds(step: int) -> float:
        start = time.perf_counter()
        next(made.stream(step))
        return time.perf_counter() - start

    near, far = (min(seconds(step + i) for i in range(10)) for step in (0, 1_000_000))
    assert far < 5 * near + 0.01
    assert first_ids(made[1_000_000])[0] // 1000 == 100_000  # 10 sequences a batch, 100 an epoch


def test_order_in_a_batch_does_not_depend_on_packing():
    assert first_ids(batches()[3]) == first_ids(batches(packed=False)[3])
    assert len(batches(packed=False)[3].input_ids) == 10


def test_once_gives_every_sequence_in_order():
    seen = list(batches(23).once())
    assert [len(each.starts) for each in seen] == [10, 10, 3]
    assert [i for each in seen for i in first_ids(each)] == list(range(23))


def test_closing_a_stream_stops_its_threads():
    before = threading.active_count()
    stream = batches().stream(0, workers=3)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_reaches_the_consumer():
    made = Batches(Counting(100, broken=42), batch_tokens=60, length=16, seed=1)
    before = threading.active_count()
    with pytest.raises(DataError, match="data:42: broken sequence"):
        for _ in islice(made.stream(0, workers=2), 20):
            pass
    assert threading.active_count() == before


def test_impossible_requests_are_refused():
    with pytest.raises(UsageError, match="no sequences"):
        batches(0)
    with pytest.raises(UsageError, match="batch_tokens"):
        batches(batch_tokens=0)
    with pytest.raises(UsageError, match="workers"):
        next(batches().stream(0, workers=0))
