"""Whole matrices, each worked on once, whoever has which rows of them."""

import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pluri.training.spread import alone, shares, spread

SHAPES = [(7, 3), (2, 5), (9, 4), (1, 2), (8, 8)]
COSTS = [1.0, 2.0, 3.0, 4.0, 9.0]


def matrices() -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draws) for shape in SHAPES]


def work(which: Sequence[int], whole: list[Tensor]) -> list[Tensor]:
    """Every row depends on those above it, and every matrix has its own."""
    return [matrix.cumsum(0) * (i + 1) for i, matrix in zip(which, whole, strict=True)]


def process(rank: int, size: int, shards: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    done: list[int] = []

    def counted(which: Sequence[int], whole: list[Tensor]) -> list[Tensor]:
        done.extend(which)
        return work(which, whole)

    def of(kind: int, each: Sequence[Sequence[int]]) -> dist.ProcessGroup | None:
        groups = [dist.new_group(list(ranks)) for ranks in each]  # made by all, whoever is in it
        found = next(group for ranks, group in zip(each, groups, strict=True) if rank in ranks)
        return found if kind > 1 and isinstance(found, dist.ProcessGroup) else None

    sharing = of(shards, [range(first, first + shards) for first in range(0, size, shards)])
    copies = of(size // shards, [range(first, size, shards) for first in range(shards)])

    def mine(matrix: Tensor) -> Tensor:
        chunk = -(-len(matrix) // shards)
        return matrix[rank % shards * chunk :][:chunk]

    rows = [len(matrix) for matrix in matrices()]
    found = spread(copies, sharing)(counted, [mine(m).clone() for m in matrices()], rows, COSTS)
    expected = [mine(m) for m in alone(work, matrices(), rows, COSTS)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    all_done: list[list[int]] = [[]] * size
    dist.all_gather_object(all_done, done)
    assert sorted(i for each in all_done for i in each) == list(range(len(SHAPES)))  # each once
    dist.destroy_process_group()


@pytest.mark.parametrize(("size", "shards"), [(3, 1), (3, 3), (4, 2)])
def test_each_is_done_once_and_all_get_theirs(size: int, shards: int) -> None:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        arguments = size, shards, str(Path(folder) / "store")
        children = [context.Process(target=process, args=(rank, *arguments)) for rank in range(size)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * size


def test_shares_are_even() -> None:
    owner = shares([5, 4, 3, 3, 3], 2)
    assert owner[0] != owner[1]
    assert sorted(sum(c for c, o in zip([5, 4, 3, 3, 3], owner, strict=True) if o == p) for p in (0, 1)) == [8, 10]
