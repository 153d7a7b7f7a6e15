"""Masked-LM pretraining beside transformers, same BERT, data and machine: tokens a second, share of the peak, memory.

    python benchmarks/pretrain_vs_transformers.py [--quick] [--json FILE] [--text FILE ...]

Both sides train BERT (dropout 0.1, AdamW, gradients clipped at 1) on the same documents of natural length, masked anew,
in steps of the same number of tokens. transformers runs as its users run it, padded to the longest of the batch, and in
its best mode without padding, blocks of concatenated text; both in whatever precision is faster on this machine
(bf16 autocast or fp32). Tokens are counted without padding. Alternating A B A B, medians of the ratios round by round.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from measuring import Row, arguments, documents, finish, peak_memory
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.tokens.store import TokenStore
from pretraining import PluriStep, TransformersStep, compared, documents_of, make_store

# (layers, width, vocabulary, length, tokens a step, rounds)
CASES = [(4, 256, 8_000, 128, 4096, 7), (6, 384, 30_000, 256, 4096, 5), (12, 768, 30_522, 128, 2048, 3)]
Case = tuple[int, ...]
# What was measured as `modern`: a variant that Pluri alone opens.
NORMED = {"context": 2, "qk_norm": True, "embedding_norm": True, "token_types": 2}


def pluri(store: TokenStore, case: Case, family: str) -> PluriStep:
    layers, width, _, length, tokens, _ = case
    vocab = store.tokenizer.vocab_size
    sizes = {"vocab_size": vocab, "max_length": length, "num_layers": layers, "hidden_size": width}
    model = Model(preset(family, "mini", **sizes, **(NORMED if family == "modern" else {})), {"masked": vocab})
    source = StoreExamples(store, ObjectiveConfig(), length=length, seed=0)
    return PluriStep(model, "adamw" if family == "bert" else "muon", source, tokens=tokens, length=length)


def transformers(store: TokenStore, case: Case, sequences: int, *, blocks: bool) -> TransformersStep:
    """sequences: of a padded step, whose tokens are then about as many as ours."""
    from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    layers, width, _, length, tokens, _ = case
    sizes: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    sizes |= {"intermediate_size": 4 * width, "max_position_embeddings": length}
    model = BertForMaskedLM(BertConfig(vocab_size=store.tokenizer.vocab_size, **sizes))
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=store.tokenizer.raw, unk_token="[UNK]", **special)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    examples = [{"input_ids": ids} for ids in documents_of(store, length, blocks=blocks)]
    return TransformersStep(model, collate, examples, tokens // length if blocks else sequences)


def measure(store: TokenStore, case: Case) -> list[Row]:
    layers, width, vocabulary, length, _, rounds = case
    ours = {family: pluri(store, case, family) for family in ("bert", "modern")}
    sequences = ours["bert"].batches.sequences_per_batch
    kinds = {"padded": False, "blocks": True}
    peers = {f"transformers {k}": transformers(store, case, sequences, blocks=blocks) for k, blocks in kinds.items()}
    return compared(f"{layers}/{width}/{vocabulary:,}/{length}", ours, {**peers}, rounds)


def memory(store_path: Path, case: Case) -> Row:
    """Peak memory of each side in a process of its own, less what loading everything takes."""
    here = [str(store_path), *map(str, case)]
    floor = peak_memory(["--memory", "nothing", *here])
    ours, theirs = (peak_memory(["--memory", side, *here]) - floor for side in ("pluri", "transformers"))
    return {"peak_mib": ours, "peer_peak_mib": theirs, "memory_ratio": ours / theirs}


def memory_probe(side: str, store_path: str, *numbers: str) -> None:
    """Three steps of one side in a process of its own; "nothing" loads everything and takes no step."""

    store = TokenStore.open(Path(store_path))
    case = tuple(int(n) for n in numbers)
    sequences = round(case[4] / StoreExamples(store, ObjectiveConfig(), length=case[3], seed=0).mean_length)
    if side == "transformers":
        step: Callable[[int], float] = transformers(store, case, sequences, blocks=False)
    else:
        step = pluri(store, case, "bert")
    for turn in range(0 if side == "nothing" else 3):
        step(turn)
    if isinstance(step, PluriStep):
        step.stream.close()


def main() -> None:
    if "--memory" in sys.argv:
        memory_probe(*sys.argv[sys.argv.index("--memory") + 1 :])
        return
    options = arguments(__doc__ or "").parse_args()
    cases = [(*CASES[0][:5], 3)] if options.quick else CASES
    texts = documents(options.text)[: 4_000 if options.quick else 20_000]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            store = make_store(Path(folder) / str(case[2]), texts, case[2])
            measured = measure(store, case)
            if not options.quick:
                measured[0] |= memory(store.path, case)
            rows += measured
    finish(rows, options.json, f"Masked-LM pretraining, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
