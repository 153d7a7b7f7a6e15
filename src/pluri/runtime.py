"""The machine and chance: device, precision, thread count, and randomness that is a pure function of its counters.

Randomness never comes from a generator with a state. Every draw is `hash(seed, epoch, index, position, stream)`, so
that a mask is dynamic over epochs, yet the same whatever the batch size, the number of workers, or a restart.
The hash is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, figure 16), applied to counters as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011.
"""

import contextlib
import ctypes
import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray

Keys = NDArray[np.uint64]
Item = TypeVar("Item")
Made = TypeVar("Made")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = np.float64(2.0**-53)


def mix(keys: ArrayLike, counter: ArrayLike) -> Keys:
    """A new 64-bit key for each (key, counter): shapes broadcast; counters are integers >= 0."""
    counters = np.array(counter, np.uint64, ndmin=1, copy=None)  # numpy warns of overflow in scalars, not in arrays
    z = np.asarray(keys, np.uint64) + (counters + np.uint64(1)) * _GOLDEN
    z ^= z >> np.uint64(30)
    z *= _MIX_1
    z ^= z >> np.uint64(27)
    z *= _MIX_2
    z ^= z >> np.uint64(31)
    return z if np.ndim(keys) or np.ndim(counter) else z[0]


def sequence_keys(seed: int, epoch: ArrayLike, index: ArrayLike) -> Keys:
    """One key for each sequence: all its chance in this epoch follows from it."""
    return mix(mix(mix(np.uint64(0), seed), epoch), index)


def uniform(keys: ArrayLike, counter: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each (key, counter)."""
    return (mix(keys, counter) >> np.uint64(11)) * _TO_UNIT


def permuted(index: ArrayLike, n: int, key: ArrayLike) -> NDArray[np.int64]:
    """Where a random permutation of range(n) sends each index, without building the permutation: O(1) an index.

    Eight rounds of a Feistel network on pairs (left, right) of range(a) x range(b), with a * b hardly above n, walked
    until it falls inside (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 3 and 5).
    n: 1 to 2**62. key: one.
    """
    x = np.array(index, np.uint64, ndmin=1)
    a = math.isqrt(n - 1) + 1
    sides = np.uint64(a), np.uint64(-(-n // a))
    keys = mix(key, np.arange(8))
    todo = np.arange(x.size)
    while todo.size:
        right, left = np.divmod(x[todo], sides[0])
        for r in (0, 2, 4, 6):
            left = (left + mix(keys[r], right) % sides[0]) % sides[0]
            right = (right + mix(keys[r + 1], left) % sides[1]) % sides[1]
        x[todo] = right * sides[0] + left
        todo = todo[x[todo] >= np.uint64(n)]
    return x.astype(np.int64).reshape(np.shape(index))


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h

Precision = Literal["auto", "fp32", "bf16"]


def product_rate(dtype: torch.dtype, size: int = 512, seconds: float = 0.05, device: str = "cpu") -> float:
    """FLOP/s of a square matrix product: the median of the repetitions that fit into `seconds`, after a first one."""
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    if device == "cuda":  # equal numbers take less power, and so are faster than a model's
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    _timed_product(a, b)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        times.append(_timed_product(a, b))
    return 2 * size**3 / statistics.median(times)


def _timed_product(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@functools.cache
def fast_bf16(device: str = "cpu") -> bool:
    """Whether bf16 products pay here: measured (at least 1.5 times the fp32 rate), not guessed from flags."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    size = 256  # a machine without bf16 units needs 0.1 s for this product, not minutes
    return product_rate(torch.bfloat16, size) > 1.5 * product_rate(torch.float32, size)


@functools.cache
def keep_freed_memory() -> None:
    """Lets glibc keep freed blocks of up to 32 MiB for the next step, instead of unmapping and faulting them in again.

    Elementwise passes over fresh memory took 10 to 20% longer without. Nothing happens where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has its own ways
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 64 << 20)):
            libc.mallopt(parameter, value)


def release_freed_memory() -> None:
    """Gives the blocks that glibc keeps back to the system, once in a while.

    Tensors of unlike sizes leave holes between them, and the heap grows from step to step (docs/log.md).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def rank() -> int:
    """The number of this process among those that work together, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Its number among those on the same host."""
    return int(os.environ.get("LOCAL_RANK", rank())) if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together: 1 unless they were launched so."""
    return dist.get_world_size() if dist.is_initialized() else 1


def each_once(work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """What `work` makes of each item, in order. In a group each is done by one process, and all get what was made.

    All processes go through the same items. What is made is no tensor of a GPU.
    """
    if world_size() == 1:
        yield from map(work, items)
        return
    items = iter(items)
    while some := list(itertools.islice(items, world_size())):
        made: list[Any] = [None] * world_size()
        dist.all_gather_object(made, work(some[rank()]) if rank() < len(some) else None)
        yield from made[: len(some)]


def pick_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(precision: Precision, device: str) -> torch.dtype:
    """The dtype of weights and activations in training: bf16 keeps fp32 masters in the optimizer."""
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32
