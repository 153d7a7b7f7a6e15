"""Pretraining GPT-2 on the next token beside transformers, same model and data: tokens a second, share of the peak.

    python benchmarks/pretrain_gpt_vs_transformers.py [--quick] [--json FILE] [--text FILE ...]

As pretrain_vs_transformers.py, whose loops and cases these are: transformers padded to the longest of a batch, and in
blocks of concatenated text, where every document sees the ones before it; Pluri packs documents that do not see each
other.
"""

import tempfile
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
from pretrain_vs_transformers import CASES, Pluri, Transformers


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


def measure(store: TokenStore, case: tuple[int, ...]) -> list[Row]:
    layers, width, vocabulary, length, _, rounds = case
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    ours = {family: PluriNext(store, case, family) for family in ("gpt2", "modern")}
    sequences = ours["gpt2"].batches.sequences_per_batch
    theirs = {name: TransformersNext(store, case, sequences, name == "blocks") for name in ("padded", "blocks")}
    sides: dict[str, Callable[[int], float]] = {**ours, **theirs, "peak": lambda _: product_rate(dtype, 2048, 1.0)}
    rates = alternate(sides, rounds)
    for side in ours.values():
        side.stream.close()
    top = float(np.median(rates["peak"]))
    return [
        {
            "case": f"{layers}/{width}/{vocabulary:,}/{length} {family}",
            "peer": f"transformers {peer}, {'bf16 autocast' if fast_bf16() else 'fp32'}",
            "tokens_per_second": float(np.median(rates[family])),
            "peer_tokens_per_second": float(np.median(rates[peer])),
            "ratio": median_ratio(rates[family], rates[peer]),
            "share_of_peak": side.flops / side.seconds / top,
            "peak_gflops": top / 1e9,
        }
        for family, side in ours.items()
        for peer in theirs
    ]


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    cases = [(*CASES[0][:5], 3)] if options.quick else CASES
    count = 4_000 if options.quick else 20_000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(" ".join(d.split()) for d in documents(options.text)[:count]), encoding="utf-8")
        for case in cases:
            store_path = Path(folder) / f"store-{case[2]}"
            if not store_path.exists():
                prepare([str(text)], train_tokenizer([str(text)], kind="bpe", vocab_size=case[2]), store_path)
            rows += measure(TokenStore.open(store_path), case)
    finish(rows, options.json, f"Next-token pretraining, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
