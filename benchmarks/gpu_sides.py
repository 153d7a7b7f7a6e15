"""Training on a GPU, a side of a comparison each: Pluri's loop, and the best that its peers can be asked for.

A call does some steps and waits for the device once, at its end; it returns tokens a second, padding not counted.
"""

import contextlib
import importlib
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.batches.example import Examples
from pluri.batches.loader import Batches, Source
from pluri.losses import Loss
from pluri.models.heads import Model
from pluri.models.placing import compile_blocks
from pluri.runtime import pick_device, pick_dtype
from pluri.tokens.ragged import offsets_of
from pluri.training.feed import Figures, fed
from pluri.training.measures import counts, step_flops
from pluri.training.optimizer import MasterOptimizer
from pretraining import update

DEVICE = pick_device()
Inputs = dict[str, Tensor]


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class Ours:
    """What `train` does in a step, save the journal; after a call, `flops` and `seconds` are all that was measured."""

    def __init__(
        self,
        model: Model,
        loss: Loss,
        source: Source,
        *,
        tokens: int,
        length: int,
        optimizer: str,
        compiled: bool,
        steps: int,
    ) -> None:
        dtype = pick_dtype("auto", DEVICE)
        self.model, self.loss, self.steps = model.to(DEVICE).train(), loss, steps
        self.optimizer = MasterOptimizer(model, optimizer, weight_decay=0.01, betas=(0.9, 0.98), dtype=dtype)
        if compiled and DEVICE == "cuda":
            compile_blocks(model)
        self.batches = Batches(source, batch_tokens=tokens, length=length, seed=0)
        self.stream = self.batches.stream(0, 2)
        self.feed = fed(self.stream, model, dtype, 1)
        self.figures = Figures(late=DEVICE == "cuda")
        self.flops = self.seconds = 0.0

    def step(self) -> tuple[int, float]:
        """Tokens and FLOPs of it."""
        batch, parts = next(self.feed)
        labels, sequences = counts(batch)
        loss, _ = self.loss(self.model, parts[0][0], labels, sequences)
        loss.backward()
        self.figures.send(None, {"loss": loss.detach().double(), "norm": self.optimizer.clip(1.0).double()})
        self.optimizer.step(1e-4)
        for _, numbers in self.figures.read():
            assert np.isfinite(numbers["loss"])
        predicted = labels if {"masked", "next"} & set(self.model.heads) else 0
        return batch.num_tokens, step_flops(self.model.config, batch, predicted)

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        tokens, flops = np.sum([self.step() for _ in range(self.steps)], axis=0)
        wait()
        seconds = time.perf_counter() - start
        if turn:
            self.flops += flops
            self.seconds += seconds
        return tokens / seconds


class Theirs:
    """A model of another library: autocast to bf16, fused AdamW, compiled; its batches lie ready in pinned memory.

    batches: of each step, its micro-batches, as keyword arguments of the model, and its tokens.
    """

    def __init__(
        self,
        model: Any,
        batches: Sequence[tuple[list[Inputs], int]],
        *,
        steps: int,
        compiled: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.model = model.to(DEVICE).train()
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        if compiled and DEVICE == "cuda":
            self.model = torch.compile(self.model, dynamic=True)
        if DEVICE == "cuda":
            batches = [([{k: v.pin_memory() for k, v in p.items()} for p in parts], n) for parts, n in batches]
        self.batches, self.steps = itertools.cycle(batches), steps

    def step(self) -> tuple[int, float]:
        parts, tokens = next(self.batches)
        for number, part in enumerate(parts):
            inputs = {name: value.to(DEVICE, non_blocking=True) for name, value in part.items()}
            with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
                said = self.model(**inputs)
                loss = said[1] if isinstance(said, tuple) else said.loss
            if number < len(parts) - 1:
                (loss / len(parts)).backward()
            else:
                update(self.model, self.optimizer, loss / len(parts))
        return tokens, 0.0

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        tokens = sum(self.step()[0] for _ in range(self.steps))
        wait()
        return tokens / (time.perf_counter() - start)


class Labelled:
    """A Source of sequences with a class each."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = [np.array(row, np.int32) for row in rows]
        self.mean_length = float(np.mean([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.rows)

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        rows = [self.rows[i] for i in index]
        lengths = np.array([len(row) for row in rows])
        return Examples(np.concatenate(rows), offsets_of(lengths), sequence_labels=index % 2)


def padded(rows: Sequence[Sequence[int]], multiple: int = 64) -> Inputs:
    """input_ids and attention_mask, padded to the longest, to a multiple of 64, so that few shapes are met."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids, mask = torch.zeros(len(rows), length, dtype=torch.int64), torch.zeros(len(rows), length, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def masked(inputs: Inputs, mask_id: int, seed: int) -> Inputs:
    """15% of the tokens to be predicted, all of them shown as a mask: for speed 80/10/10 is the same."""
    chosen = torch.rand(inputs["input_ids"].shape, generator=torch.Generator().manual_seed(seed)) < 0.15
    chosen &= inputs["attention_mask"].bool()
    labels = inputs["input_ids"].masked_fill(~chosen, -100)
    return inputs | {"input_ids": inputs["input_ids"].masked_fill(chosen, mask_id), "labels": labels}


def grouped(rows: Sequence[Sequence[int]], sequences: int, *, by_length: bool) -> Iterator[list[Sequence[int]]]:
    """Batches of so many, drawn at random; by_length: of fifty batches, those of like length together."""
    order = np.random.default_rng(0).permutation(len(rows))
    pool = 50 * sequences if by_length else len(rows)
    for first in range(0, len(order), pool):
        some = order[first : first + pool]
        if by_length:
            some = some[np.argsort([-len(rows[i]) for i in some], kind="stable")]
        for at in range(0, len(some) - sequences + 1, sequences):
            yield [rows[i] for i in some[at : at + sequences]]


def nanogpt(folder: Path, ids: Tensor, sizes: dict[str, int], batches: int, steps: int) -> Theirs:
    """A checkout of github.com/karpathy/nanoGPT, with its recipe for 124 million weights: 5 times 12 blocks a step."""
    sys.path.append(str(folder))
    published: Any = importlib.import_module("model")
    torch.backends.cuda.matmul.allow_tf32 = True  # as its train.py does; it touches no product in bf16
    config = published.GPTConfig(**sizes, vocab_size=50304, dropout=0.0, bias=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many parameters it has
        model = published.GPT(config).to(DEVICE)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), DEVICE)
    length, drawn = sizes["block_size"], torch.Generator().manual_seed(0)

    def blocks() -> Inputs:
        at = torch.randint(len(ids) - length, (12,), generator=drawn).tolist()
        reads, writes = (torch.stack([ids[i + shift : i + shift + length] for i in at]) for shift in (0, 1))
        return {"idx": reads, "targets": writes}

    ready = [([blocks() for _ in range(5)], 5 * 12 * length) for _ in range(batches)]
    return Theirs(model, ready, steps=steps, optimizer=optimizer)


def memory(side: Ours | Theirs) -> float | None:
    """Bytes a token that a step takes besides weights and the optimizer's state; None without a GPU."""
    if DEVICE != "cuda":
        return None
    wait()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    tokens, _ = side.step()
    wait()
    return (torch.cuda.max_memory_allocated() - before) / tokens


# What kernels are by their names: the first group that knows one has it.
_GROUPS = {
    "attention": ("flash", "fmha"),
    "compiled": ("triton",),
    "products": ("gemm", "nvjet", "cutlass", "wgmma", "mm_", "_mm", "linear"),
    "optimizer": ("multi_tensor", "adam", "foreach"),
    "copies": ("memcpy", "memset", "copy"),
}


def kernels(step: Callable[[], object]) -> dict[str, float]:
    """The share of each group of kernels in the time of a step, and of the time that the device is busy at all."""
    activity = torch.profiler.ProfilerActivity
    wait()
    with torch.profiler.profile(activities=[activity.CUDA if DEVICE == "cuda" else activity.CPU]) as profile:
        start = time.perf_counter()
        step()
        wait()
        seconds = time.perf_counter() - start
    found = dict.fromkeys([*_GROUPS, "other"], 0.0)
    for event in profile.key_averages():
        spent = event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total  # microseconds
        name = event.key.lower()
        group = next((g for g, names in _GROUPS.items() if any(n in name for n in names)), "other")
        found[group] += spent / 1e6 / seconds
    return {**found, "busy": sum(found.values())}
