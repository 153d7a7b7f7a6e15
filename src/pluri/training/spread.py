"""Work that needs whole matrices, each done by one of the processes.

Legend: n matrices of R rows and C columns.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

Work = Callable[[Sequence[int], list[Tensor]], list[Tensor]]
"""(which of the n, these matrices) -> what becomes of each, in its shape."""

Spread = Callable[[Work, list[Tensor], Sequence[int], Sequence[float]], list[Tensor]]
"""(work, what this process has of the n matrices, the R of each, what each costs) -> what it gets of the results."""


def alone(work: Work, matrices: list[Tensor], rows: Sequence[int], costs: Sequence[float]) -> list[Tensor]:
    """One process does all."""
    return work(range(len(matrices)), matrices)


def spread(copies: dist.ProcessGroup | None, shards: dist.ProcessGroup | None) -> Spread:
    """Each matrix is done once by the processes that have copies of it, or share its rows out, or both."""

    def over_all(work: Work, matrices: list[Tensor], rows: Sequence[int], costs: Sequence[float]) -> list[Tensor]:
        def over_shards(which: Sequence[int], mine: list[Tensor]) -> list[Tensor]:
            if shards is None:
                return work(which, mine)

            def of_mine(some: Sequence[int], whole: list[Tensor]) -> list[Tensor]:
                return work([which[i] for i in some], whole)

            return among_shards(of_mine, mine, [rows[i] for i in which], [costs[i] for i in which], shards)

        if copies is None:
            return over_shards(range(len(matrices)), matrices)
        return among_copies(over_shards, matrices, costs, copies)

    return over_all


def among_copies(work: Work, matrices: list[Tensor], costs: Sequence[float], group: dist.ProcessGroup) -> list[Tensor]:
    """What becomes of matrices that every process of a group has: each does its share, all get everything.

    costs: (n,), by which the shares are made even.
    """
    owner = shares(costs, dist.get_world_size(group))
    me, sizes = dist.get_rank(group), [0] * dist.get_world_size(group)
    for matrix, process in zip(matrices, owner, strict=True):
        sizes[process] += matrix.numel()
    mine = [i for i, process in enumerate(owner) if process == me]
    sent = matrices[0].new_zeros(max(sizes))
    if mine:
        sent[: sizes[me]] = torch.cat([m.flatten() for m in work(mine, [matrices[i] for i in mine])])
    got = sent.new_empty(len(sizes) * len(sent))
    dist.all_gather_into_tensor(got, sent, group)
    got = got.view(len(sizes), -1)
    places = [0] * len(sizes)
    found = []
    for matrix, process in zip(matrices, owner, strict=True):
        first, places[process] = places[process], places[process] + matrix.numel()
        found.append(got[process, first : places[process]].view_as(matrix))
    return found


def among_shards(
    work: Work, shards: list[Tensor], rows: Sequence[int], costs: Sequence[float], group: dist.ProcessGroup
) -> list[Tensor]:
    """What becomes of matrices whose rows are shared out: each is put together by one process, and shared out again.

    shards: this process's rows, (n,). rows: of the whole matrices, (n,), which the first processes have as many of as
        any (`torch.chunk`). costs: as above.
    """
    size, me = dist.get_world_size(group), dist.get_rank(group)
    owner = shares(costs, size)
    held = [[len(part) for part in _chunks(count, size)] for count in rows]  # (n, processes): rows that each has
    owned = [[i for i, process in enumerate(owner) if process == p] for p in range(size)]
    widths = [shard.shape[1] for shard in shards]
    away = [sum(held[i][me] * widths[i] for i in owned[p]) for p in range(size)]  # numbers for each process
    home = [sum(held[i][p] * widths[i] for i in owned[me]) for p in range(size)]  # numbers from each process
    sent = torch.cat([shards[i].reshape(-1) for p in range(size) for i in owned[p]])
    got = sent.new_empty(sum(home))
    dist.all_to_all_single(got, sent, home, away, group)

    parts = [list(each.split([held[i][p] * widths[i] for i in owned[me]])) for p, each in enumerate(got.split(home))]
    whole = [torch.cat([parts[p][k].view(-1, widths[i]) for p in range(size)]) for k, i in enumerate(owned[me])]
    done = work(owned[me], whole) if whole else []
    pieces = [matrix.split(held[i]) for matrix, i in zip(done, owned[me], strict=True)]
    back = [pieces[k][p].reshape(-1) for p in range(size) for k in range(len(done))]
    answer = torch.empty_like(sent)
    dist.all_to_all_single(answer, torch.cat(back) if back else got, away, home, group)

    found = list(shards)
    order = [i for p in range(size) for i in owned[p]]
    for i, each in zip(order, answer.split([shards[i].numel() for i in order]), strict=True):
        found[i] = each.view_as(shards[i])
    return found


def shares(costs: Sequence[float], processes: int) -> list[int]:
    """Who does what (n,): the dearest first, each to the one that has least to do."""
    load, owner = [0.0] * processes, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owner[i] = load.index(min(load))
        load[owner[i]] += costs[i]
    return owner


def _chunks(count: int, size: int) -> list[range]:
    """The rows that each of `size` processes has."""
    most = -(-count // size)
    return [range(min(p * most, count), min((p + 1) * most, count)) for p in range(size)]
