"""Many processes as one run: torchrun starts them, each computes its rows of every batch, DDP or FSDP2 joins the rest.

A process that was started alone is a group of one, and does nothing here.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pluri.batches.batch import Batch
from pluri.batches.packing import deal, take
from pluri.errors import TrainingError
from pluri.losses import Loss
from pluri.models.heads import Model
from pluri.models.transformer import Transformer
from pluri.runtime import rank, world_size

_TIMEOUT = timedelta(hours=2)  # of a collective: `Watch` ends a run that hangs long before, and says why
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether torchrun, or whatever else sets its variables, started this process as one of a group."""
    return all(os.environ.get(name) for name in _ENVIRONMENT)


def restarted() -> bool:
    """Whether torchrun started the group again, since one of its processes had died."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it the processes that were launched together are one group; for one that was started alone, nothing.

    CPU tensors travel by gloo, those of a GPU by NCCL.
    TrainingError: another process of the group is gone.
    """
    if not launched():
        yield
        return
    if dist.is_initialized():  # by whoever called; what one process has written is there for all when they go on
        yield
        meet()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # "cuda" means this one from here on
        backend = "cpu:gloo,cuda:nccl"
    me, size, store = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), group_store("group", minutes=10)
    dist.init_process_group(backend, store=store, rank=me, world_size=size, timeout=_TIMEOUT)
    meet()  # all are connected: who goes away from now on is missed at once
    try:
        yield
    except RuntimeError as error:
        # Not destroyed: that would close connections before anybody has said what is wrong.
        if dist.get_world_size() > 1 and any(words in str(error) for words in ("onnection", "gloo", "NCCL")):
            what = f"process {rank()} lost its connection to another one"
            do = "see which one ended, and why; `torchrun --max-restarts 3` goes on from the last checkpoint by itself"
            raise TrainingError(what, do=do) from error
        raise
    meet()
    dist.destroy_process_group()


def meet() -> None:
    """Waits for all processes of the group."""
    dist.all_reduce(torch.zeros(1))  # a barrier would be one of NCCL, where there is a GPU


def group_store(prefix: str, minutes: float = 1 / 6) -> Store:
    """A connection of its own to the store through which the group finds together, for one thread's keys."""
    store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(minutes=minutes))))
    # On one host torchrun may keep the store, with the addresses of processes that died. On several (c10d) each start
    # has a new one, and the hosts need not agree on how often they have started.
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return PrefixStore(f"pluri/{attempt}/{prefix}", store)


def first_to_fail() -> bool:
    """Whether no process of the group has failed before this one: the first says why, the others follow in silence."""
    if not launched():
        return True
    try:
        return group_store("failure").compare_set("first", "", os.environ["RANK"]).decode() == os.environ["RANK"]
    except (RuntimeError, TimeoutError):  # the store is gone with whoever held it
        return True


def summed(values: dict[str, float]) -> dict[str, float]:
    """The sum of each over all processes, which give the same names; the same to the bit for all."""
    if world_size() == 1:
        return values
    flat = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(flat)
    return dict(zip(values, flat.tolist(), strict=True))


def my_parts(batch: Batch, accumulation: int = 1) -> list[tuple[Batch, float]]:
    """This process's share of a batch, in `accumulation` parts, each with what its loss is multiplied by: 1.

    All processes have as many parts, since some of their work is done together. Where no row is left for a part, it is
    another one times 0.
    """
    hands = deal(batch, world_size() * accumulation)
    rows = hands[rank() :: world_size()]
    return [(take(batch, mine), 1.0) if len(mine) else (take(batch, hands[0]), 0.0) for mine in rows]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, if it is shared out; all processes that share it call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[attr-defined]


class Learner:
    """A model that all processes learn together: each call adds to the gradients, the last of a step sums them up.

    model: `sharded`, or else each process has a copy, and DDP keeps these alike.
    """

    def __init__(self, model: Model, *, shared_out: bool = False) -> None:
        self._model, self._shared_out, self._copies = model, shared_out, None
        if world_size() > 1 and not shared_out:  # all begin with the weights of process 0
            # QANet leaves out layers by chance: not all weights have a gradient in each step.
            unused = not any(isinstance(module, Transformer) for module in model.modules())
            self._copies = DistributedDataParallel(
                _Learning(model), broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=unused
            )

    def __call__(
        self, loss: Loss, part: Batch, times: float, num_labels: int, num_sequences: int, *, last: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a part of the step, and its named parts, of this process alone, `times` as much."""
        model: Any = self._model
        run = model.learn if self._copies is None else self._copies
        if self._shared_out:
            model.set_requires_gradient_sync(last)
        with contextlib.nullcontext() if last or self._copies is None else self._copies.no_sync():
            value, named = run(loss, part, num_labels, num_sequences)
            (value * (times * world_size())).backward()  # DDP and FSDP take the mean over the processes
        return value.detach() * times, {name: each * times for name, each in named.items()}


class _Learning(nn.Module):
    """What DDP wraps: it sums up the gradients of what went through `forward`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, loss: Loss, batch: Batch, num_labels: int, num_sequences: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.learn(loss, batch, num_labels, num_sequences)
