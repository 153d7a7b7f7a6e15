"""Pretraining GPT-2 on the next token beside transformers and nanoGPT, same sizes and data: tokens a second, share of
the peak.

    python benchmarks/pretrain_gpt_vs_transformers.py [--quick] [--json FILE] [--text FILE ...] [--nanogpt FOLDER]

As pretrain_vs_transformers.py, whose loops these are: transformers padded to the longest of a batch, and in blocks of
concatenated text, where every document sees the ones before it; Pluri packs documents that do not see each other.
nanoGPT is a checkout of github.com/karpathy/nanoGPT: its model and optimizer with what its train.py has by default (no
dropout, no biases, which is less work), on blocks drawn anywhere from the concatenated text; as it is, and compiled,
which takes a C++ compiler and is left out by --quick.
"""

import contextlib
import importlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.batches.loader import Batches
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.runtime import fast_bf16, product_rate
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.optimizer import MasterOptimizer
from pretrain_vs_transformers import Pluri, Transformers, examples

# (layers, width, vocabulary, length, tokens a step, rounds); the last is GPT-2 small, 124 million weights
CASES = [(4, 256, 8_000, 128, 4096, 7), (6, 384, 30_000, 256, 4096, 5), (12, 768, 50_257, 256, 2048, 3)]

Side = Callable[[int], float]
"""One step a call: its tokens a second, padding not counted."""


class PluriNext(Pluri):
    """One step of ours a call: store to packed batch to updated weights."""

    def __init__(self, store: TokenStore, case: tuple[int, ...], family: str) -> None:
        layers, width, _, length, tokens, _ = case
        vocab = store.tokenizer.vocab_size
        sizes: dict[str, Any] = {"vocab_size": vocab, "max_length": length, "num_layers": layers, "hidden_size": width}
        self.model = Model(preset(family, "mini", **sizes, causal=True), {"next": vocab})
        self.dtype = torch.bfloat16 if fast_bf16() else torch.float32
        name = "adamw" if family == "gpt2" else "muon"
        self.optimizer = MasterOptimizer(self.model, name, weight_decay=0.01, betas=(0.9, 0.999), dtype=self.dtype)
        self.batches = Batches(NextTokens(store, length=length), batch_tokens=tokens, length=length, seed=0)
        self.stream = self.batches.stream(0)
        self.flops = 0.0
        self.seconds = 0.0


class TransformersNext(Transformers):
    """One step of transformers a call: collator (labels, pads) to updated weights."""

    def __init__(self, store: TokenStore, case: tuple[int, ...], sequences: int, blocks: bool) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__(store, case, sequences, blocks)
        layers, width, _, length, _, _ = case
        sizes: dict[str, Any] = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_positions": length}
        ids: dict[str, Any] = {"bos_token_id": store.tokenizer.cls_id, "eos_token_id": store.tokenizer.sep_id}
        model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=store.tokenizer.vocab_size, **sizes, **ids))
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.collate.mlm = False


class NanoGPT:
    """One step of nanoGPT's loop a call: blocks of the text to updated weights."""

    def __init__(self, store: TokenStore, case: tuple[int, ...], folder: Path, compiled: bool) -> None:
        sys.path.append(str(folder))
        published: Any = importlib.import_module("model")
        layers, width, _, self.length, tokens, _ = case
        sizes = {"n_layer": layers, "n_head": width // 64, "n_embd": width, "block_size": self.length}
        config = published.GPTConfig(**sizes, vocab_size=store.tokenizer.vocab_size, dropout=0.0, bias=False)
        with contextlib.redirect_stdout(io.StringIO()):  # it says how many parameters it has
            model = published.GPT(config)
            self.optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
        self.model = torch.compile(model) if compiled else model
        self.ids = torch.tensor([token for row in examples(store, self.length, blocks=False) for token in row])
        self.sequences = tokens // self.length

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        at = torch.randint(len(self.ids) - self.length, (self.sequences,)).tolist()
        reads = torch.stack([self.ids[i : i + self.length] for i in at])
        writes = torch.stack([self.ids[i + 1 : i + 1 + self.length] for i in at])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            _, loss = self.model(reads, writes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return reads.numel() / (time.perf_counter() - start)


def measure(store: TokenStore, case: tuple[int, ...], peers: dict[str, Side]) -> list[Row]:
    layers, width, _, length, _, rounds = case
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    ours = {family: PluriNext(store, case, family) for family in ("gpt2", "modern")}
    sequences = ours["gpt2"].batches.sequences_per_batch
    for name in ("padded", "blocks"):
        peers = {**peers, f"transformers {name}": TransformersNext(store, case, sequences, name == "blocks")}
    rates = alternate({**ours, **peers, "peak": lambda _: product_rate(dtype, 2048, 1.0)}, rounds)
    for side in ours.values():
        side.stream.close()
    top = float(np.median(rates["peak"]))
    return [
        {
            "case": f"{layers}/{width}/{store.tokenizer.vocab_size:,}/{length} {family}",
            "peer": f"{peer}, {'bf16 autocast' if fast_bf16() else 'fp32'}",
            "tokens_per_second": float(np.median(rates[family])),
            "peer_tokens_per_second": float(np.median(rates[peer])),
            "ratio": median_ratio(rates[family], rates[peer]),
            "share_of_peak": side.flops / side.seconds / top,
            "peak_gflops": top / 1e9,
        }
        for family, side in ours.items()
        for peer in peers
    ]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="a checkout of karpathy/nanoGPT")
    options = parser.parse_args()
    cases = [(*CASES[1][:5], 2)] if options.quick else CASES
    kinds = {"nanoGPT": False} if options.quick else {"nanoGPT": False, "nanoGPT compiled": True}
    count = 4_000 if options.quick else 20_000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(" ".join(d.split()) for d in documents(options.text)[:count]), encoding="utf-8")
        for case in cases:
            store_path = Path(folder) / f"store-{case[2]}"
            prepare([str(text)], train_tokenizer([str(text)], kind="bpe", vocab_size=case[2]), store_path)
            store, peers = TokenStore.open(store_path), dict[str, Side]()
            if options.nanogpt:
                peers = {name: NanoGPT(store, case, options.nanogpt, compiled) for name, compiled in kinds.items()}
            rows += measure(store, case, peers)
    finish(rows, options.json, f"Next-token pretraining, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
