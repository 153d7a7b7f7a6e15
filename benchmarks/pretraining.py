"""What the benchmarks of pretraining share: a store of real documents, a timed step of each side, and their table."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import Row, alternate, median_ratio
from pluri.batches.loader import Batches, Source
from pluri.losses import pretraining_loss
from pluri.models.heads import Model
from pluri.runtime import fast_bf16, product_rate
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.measures import counts, step_flops
from pluri.training.optimizer import MasterOptimizer

Side = Callable[[int], float]
"""One step a call, from examples to updated weights: its tokens a second, padding not counted."""


def make_store(folder: Path, texts: Sequence[str], vocab_size: int) -> TokenStore:
    """The texts as a store in `folder`, with a BPE tokenizer trained on them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(each.split()) for each in texts), encoding="utf-8")
    tokenizer = train_tokenizer([str(text)], kind="bpe", vocab_size=vocab_size)
    return prepare([str(text)], tokenizer, folder / "store")


class PluriStep:
    """A Side: store to examples to packed batch to updated weights."""

    def __init__(self, model: Model, optimizer: str, source: Source, *, tokens: int, length: int) -> None:
        self.model = model.train()
        self.dtype = torch.bfloat16 if fast_bf16() else torch.float32
        self.optimizer = MasterOptimizer(model, optimizer, weight_decay=0.01, betas=(0.9, 0.999), dtype=self.dtype)
        self.batches = Batches(source, batch_tokens=tokens, length=length, seed=0)
        self.stream = self.batches.stream(0)
        self.flops = self.seconds = 0.0

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        batch = next(self.stream)
        loss, _ = pretraining_loss(self.model, batch, *counts(batch))
        loss.backward()
        self.optimizer.clip(1.0)
        self.optimizer.step(1e-4)
        seconds = time.perf_counter() - start
        if turn:
            self.flops += step_flops(self.model.config, batch, counts(batch)[0])
            self.seconds += seconds
        return batch.num_tokens / seconds


class TransformersStep:
    """A Side: examples drawn at random to a collator's batch to updated weights, as transformers' Trainer does it.

    model: of transformers. examples: its keyword arguments, as lists of ids. sequences: of a step.
    """

    def __init__(self, model: Any, collate: Any, examples: Sequence[dict[str, list[int]]], sequences: int) -> None:
        self.model, self.collate, self.examples, self.sequences = model.train(), collate, examples, sequences
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.order = np.random.default_rng(0)

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        chosen = [self.examples[i] for i in self.order.integers(0, len(self.examples), self.sequences)]
        batch = self.collate([dict(example) for example in chosen])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            loss = self.model(**batch).loss
        update(self.model, self.optimizer, loss)
        return sum(len(ids) for example in chosen for ids in example.values()) / (time.perf_counter() - start)


def update(model: Any, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Backward, clip at 1, step: what every peer does with its loss."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def documents_of(store: TokenStore, length: int, *, blocks: bool = False) -> list[list[int]]:
    """The store's documents as lists of ids, cut at `length`; or all of it concatenated, in full blocks."""
    lengths = store.document_lengths
    everything = np.arange(store.num_documents)
    ids = store.gather(everything, np.zeros_like(everything), lengths)
    cls, sep = store.tokenizer.cls_id, store.tokenizer.sep_id
    rows = []
    for i in range(len(everything)):
        document = ids.ids[ids.offsets[i] : ids.offsets[i + 1]].tolist()
        rows += [[cls, *document[at : at + length - 2], sep] for at in range(0, len(document), length - 2)]
    if not blocks:
        return rows
    flat = [token for row in rows for token in row]
    return [flat[at : at + length] for at in range(0, len(flat) - length + 1, length)]


def compared(case: str, ours: dict[str, PluriStep], peers: dict[str, Side], rounds: int) -> list[Row]:
    """A row for each of ours beside each peer. All sides in turn, A B A B; and products, whose rate is the peak."""
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    rates = alternate({**ours, **peers, "peak": lambda _: product_rate(dtype, 2048, 1.0)}, rounds)
    for side in ours.values():
        side.stream.close()
    top = float(np.median(rates["peak"]))
    return [
        {
            "case": f"{case} {name}",
            "peer": f"{peer}, {'bf16 autocast' if fast_bf16() else 'fp32'}",
            "tokens_per_second": float(np.median(rates[name])),
            "peer_tokens_per_second": float(np.median(rates[peer])),
            "ratio": median_ratio(rates[name], rates[peer]),
            "share_of_peak": side.flops / side.seconds / top,
            "peak_gflops": top / 1e9,
        }
        for name, side in ours.items()
        for peer in peers
    ]
