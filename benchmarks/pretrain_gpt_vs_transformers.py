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
from pathlib import Path
from typing import Any

import torch

from measuring import Row, arguments, documents, finish
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.runtime import fast_bf16
from pluri.tokens.store import TokenStore
from pretraining import PluriStep, Side, TransformersStep, compared, documents_of, make_store, update

# (layers, width, vocabulary, length, tokens a step, rounds); the last is GPT-2 small, 124 million weights
CASES = [(4, 256, 8_000, 128, 4096, 7), (6, 384, 30_000, 256, 4096, 5), (12, 768, 50_257, 256, 2048, 3)]
Case = tuple[int, ...]


def pluri(store: TokenStore, case: Case, family: str) -> PluriStep:
    layers, width, _, length, tokens, _ = case
    vocab = store.tokenizer.vocab_size
    sizes: dict[str, Any] = {"vocab_size": vocab, "max_length": length, "num_layers": layers, "hidden_size": width}
    model = Model(preset(family, "mini", **sizes, causal=True), {"next": vocab})
    optimizer = "adamw" if family == "gpt2" else "muon"
    return PluriStep(model, optimizer, NextTokens(store, length=length), tokens=tokens, length=length)


def transformers(store: TokenStore, case: Case, sequences: int, *, blocks: bool) -> TransformersStep:
    """sequences: of a padded step, whose tokens are then about as many as ours."""
    from transformers import DataCollatorForLanguageModeling, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    layers, width, _, length, tokens, _ = case
    sizes: dict[str, Any] = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_positions": length}
    ids: dict[str, Any] = {"bos_token_id": store.tokenizer.cls_id, "eos_token_id": store.tokenizer.sep_id}
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=store.tokenizer.vocab_size, **sizes, **ids))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=store.tokenizer.raw, unk_token="[UNK]", pad_token="[PAD]")
    examples = [{"input_ids": ids} for ids in documents_of(store, length, blocks=blocks)]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return TransformersStep(model, collate, examples, tokens // length if blocks else sequences)


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
        self.ids = torch.tensor([token for row in documents_of(store, self.length) for token in row])
        self.sequences = tokens // self.length

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        at = torch.randint(len(self.ids) - self.length, (self.sequences,)).tolist()
        reads = torch.stack([self.ids[i : i + self.length] for i in at])
        writes = torch.stack([self.ids[i + 1 : i + 1 + self.length] for i in at])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            _, loss = self.model(reads, writes)
        update(self.model, self.optimizer, loss)
        return reads.numel() / (time.perf_counter() - start)


def measure(store: TokenStore, case: Case, peers: dict[str, Side]) -> list[Row]:
    layers, width, _, length, _, rounds = case
    ours = {family: pluri(store, case, family) for family in ("gpt2", "modern")}
    sequences = ours["gpt2"].batches.sequences_per_batch
    for kind, blocks in (("padded", False), ("blocks", True)):
        peers = {**peers, f"transformers {kind}": transformers(store, case, sequences, blocks=blocks)}
    return compared(f"{layers}/{width}/{store.tokenizer.vocab_size:,}/{length}", ours, peers, rounds)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="a checkout of karpathy/nanoGPT")
    options = parser.parse_args()
    cases = [(*CASES[1][:5], 2)] if options.quick else CASES
    kinds = {"nanoGPT": False} if options.quick else {"nanoGPT": False, "nanoGPT compiled": True}
    texts = documents(options.text)[: 4_000 if options.quick else 20_000]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            store, peers = make_store(Path(folder) / str(case[2]), texts, case[2]), dict[str, Side]()
            if options.nanogpt:
                peers = {name: NanoGPT(store, case, options.nanogpt, compiled) for name, compiled in kinds.items()}
            rows += measure(store, case, peers)
    finish(rows, options.json, f"Next-token pretraining, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
