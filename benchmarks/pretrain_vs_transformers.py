"""Masked-LM pretraining beside transformers, same BERT, data and machine: tokens a second, share of the peak, memory.

    python benchmarks/pretrain_vs_transformers.py [--quick] [--json FILE] [--text FILE ...]

Both sides train BERT (dropout 0.1, AdamW, gradients clipped at 1) on the same documents of natural length, masked anew,
in steps of the same number of tokens. transformers runs as its users run it, padded to the longest of the batch, and in
its best mode without padding, blocks of concatenated text; both in whatever precision is faster on this machine
(bf16 autocast or fp32). Tokens are counted without padding. Alternating A B A B, medians of the ratios round by round.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from measuring import Row, alternate, arguments, documents, finish, median_ratio, peak_memory
from pluri.batches.loader import Batches
from pluri.losses import pretraining_loss
from pluri.models.config import preset, train_flops
from pluri.models.heads import Model
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import fast_bf16, product_rate
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.optimizer import MasterOptimizer
from pluri.training.trainer import counts

# (layers, width, vocabulary, length, tokens a step, rounds)
CASES = [(4, 256, 8_000, 128, 4096, 7), (6, 384, 30_000, 256, 4096, 5), (12, 768, 30_522, 128, 2048, 3)]
# What was measured as `modern`: a variant that Pluri alone opens.
NORMED = {"context": 2, "qk_norm": True, "embedding_norm": True, "token_types": 2}


class Pluri:
    """One step of ours a call: store to masked, packed batch to updated weights."""

    def __init__(self, store: TokenStore, case: tuple[int, ...], family: str) -> None:
        layers, width, _, length, tokens, _ = case
        vocab = store.tokenizer.vocab_size
        sizes = {"vocab_size": vocab, "max_length": length, "num_layers": layers, "hidden_size": width}
        config = preset(family, "mini", **sizes, **(NORMED if family == "modern" else {}))
        self.model = Model(config, {"masked": vocab})
        self.dtype = torch.bfloat16 if fast_bf16() else torch.float32
        name = "adamw" if family == "bert" else "muon"
        self.optimizer = MasterOptimizer(self.model, name, weight_decay=0.01, betas=(0.9, 0.999), dtype=self.dtype)
        source = StoreExamples(store, ObjectiveConfig(), length=length, seed=0)
        self.batches = Batches(source, batch_tokens=tokens, length=length, seed=0)
        self.stream = self.batches.stream(0)
        self.flops = 0.0
        self.seconds = 0.0

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        batch = next(self.stream)
        self.model.train()
        loss, _ = pretraining_loss(self.model, batch, *counts(batch))
        loss.backward()
        self.optimizer.clip(1.0)
        self.optimizer.step(1e-4)
        seconds = time.perf_counter() - start
        if turn:
            squares, predicted = int((batch.lengths**2).sum()), counts(batch)[0]
            self.flops += train_flops(self.model.config, batch.num_tokens, predicted, predicted, squares)
            self.seconds += seconds
        return batch.num_tokens / seconds


class Transformers:
    """One step of transformers a call: collator (masks, pads) to updated weights."""

    def __init__(self, store: TokenStore, case: tuple[int, ...], sequences: int, blocks: bool) -> None:
        from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

        layers, width, _, length, tokens, _ = case
        t = store.tokenizer
        config = BertConfig(
            vocab_size=t.vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            max_position_embeddings=length,
        )
        self.model = BertForMaskedLM(config)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=t.raw, unk_token="[UNK]", **special)
        self.collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        self.examples = examples(store, length, blocks)
        self.sequences = tokens // length if blocks else sequences
        self.order = np.random.default_rng(0)

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        chosen = self.order.integers(0, len(self.examples), self.sequences)
        batch = self.collate([{"input_ids": self.examples[i]} for i in chosen])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sum(len(self.examples[i]) for i in chosen) / (time.perf_counter() - start)


def examples(store: TokenStore, length: int, blocks: bool) -> list[list[int]]:
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


def measure(store: TokenStore, case: tuple[int, ...]) -> list[Row]:
    layers, width, vocabulary, length, _, rounds = case
    name = f"{layers}/{width}/{vocabulary:,}/{length}"
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    ours = Pluri(store, case, "bert")
    modern = Pluri(store, case, "modern")
    sequences = ours.batches.sequences_per_batch
    peaks: list[float] = []

    def peak(turn: int) -> float:
        peaks.append(product_rate(dtype, 2048, seconds=1.0))
        return peaks[-1]

    sides: dict[str, Callable[[int], float]] = {
        "pluri bert": ours,
        "transformers padded": Transformers(store, case, sequences, blocks=False),
        "pluri modern": modern,
        "transformers blocks": Transformers(store, case, sequences, blocks=True),
        "peak": peak,
    }
    rates = alternate(sides, rounds)
    top = float(np.median(rates["peak"]))
    rows: list[Row] = []
    for side in (ours, modern):
        side.stream.close()  # type: ignore[attr-defined]
    for family, side in (("bert", ours), ("modern", modern)):
        for peer in ("padded", "blocks"):
            rows.append(
                {
                    "case": f"{name} {family}",
                    "peer": f"transformers {peer}, {'bf16 autocast' if fast_bf16() else 'fp32'}",
                    "tokens_per_second": float(np.median(rates[f"pluri {family}"])),
                    "peer_tokens_per_second": float(np.median(rates[f"transformers {peer}"])),
                    "ratio": median_ratio(rates[f"pluri {family}"], rates[f"transformers {peer}"]),
                    "share_of_peak": side.flops / side.seconds / top,
                    "peak_gflops": top / 1e9,
                }
            )
    return rows


def memory(store_path: Path, case: tuple[int, ...]) -> Row:
    """Peak memory of each side in a process of its own, less what loading everything takes."""
    here = [str(store_path), *map(str, case)]
    floor = peak_memory(["--memory", "nothing", *here])
    ours, theirs = (peak_memory(["--memory", side, *here]) - floor for side in ("pluri", "transformers"))
    return {"peak_mib": ours, "peer_peak_mib": theirs, "memory_ratio": ours / theirs}


def memory_probe(side: str, store_path: str, *numbers: str) -> None:
    """Three steps of one side in a process of its own; "nothing" loads everything and takes no step."""
    import transformers  # noqa: F401  (so that its import weighs the same on both sides)

    store = TokenStore.open(Path(store_path))
    case = tuple(int(n) for n in numbers)
    sequences = round(case[4] / StoreExamples(store, ObjectiveConfig(), length=case[3], seed=0).mean_length)
    if side == "transformers":
        step: Callable[[int], float] = Transformers(store, case, sequences, blocks=False)
    else:
        step = Pluri(store, case, "bert")
    for turn in range(0 if side == "nothing" else 3):
        step(turn)
    if isinstance(step, Pluri):
        step.stream.close()  # type: ignore[attr-defined]


def main() -> None:
    if "--memory" in sys.argv:
        memory_probe(*sys.argv[sys.argv.index("--memory") + 1 :])
        return
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
                tokenizer = train_tokenizer([str(text)], kind="bpe", vocab_size=case[2])
                prepare([str(text)], tokenizer, store_path)
            measured = measure(TokenStore.open(store_path), case)
            if not options.quick:
                measured[0] |= memory(store_path, case)
            rows += measured
    finish(rows, options.json, f"Masked-LM pretraining, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
