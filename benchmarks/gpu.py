"""On a GPU: tokens a second beside peers, share of the bf16 product rate, memory a token, and where the time goes.

    python benchmarks/gpu.py --only bert modern [--text FILE ...] [--minutes 4] [--nanogpt FOLDER] [--json FILE]

| case | ours | beside |
|---|---|---|
| bert, modern | masked LM, base size, length 512, whole documents | transformers: BERT, EuroBERT, padded, blocks |
| gpt2 | next token, 124 million weights, length 1,024 | transformers' GPT-2, blocks; nanoGPT, if there is a FOLDER |
| finetune | two classes, BERT-base, 32 lines of text a step | transformers' BERT, batches of like length |
| embed | vectors of lines, BERT-base | transformers' BERT, sorted by length, batches of 128 |

Peers compute in bf16 (autocast; for vectors bf16 weights) with SDPA and, where it is installed, flash attention; they
are compiled and their batches lie ready in pinned memory, while ours are drawn and packed on the way. "blocks" is text
concatenated and cut, without padding. All sides in turn in one process, A B A B, medians of the ratios round by round;
after --minutes a case begins no new round. --tiny: the same on small models in seconds, on a CPU too, to see it run.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_sides import DEVICE, Labelled, Ours, Theirs, grouped, kernels, masked, memory, nanogpt, padded, wait
from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.inference.embeddings import embed_texts
from pluri.losses import classification_loss, pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import pick_dtype, product_rate
from pluri.tokens.store import TokenStore
from pretraining import documents_of, make_store

Sides = dict[str, Callable[[int], float]]


@dataclass(frozen=True)
class Scale:
    """length: of masked LM; long: of the next token; line: of fine-tuning and vectors. tokens: of a step. steps: of a
    turn. lines: of text, at most. product: the size of the matrices whose product is the peak."""

    layers: int = 12
    width: int = 768
    length: int = 512
    long: int = 1024
    vocabulary: int = 30_522
    causal_vocabulary: int = 50_257
    tokens: int = 64 * 1024
    steps: int = 8
    rounds: int = 5
    lines: int = 20_000
    product: int = 8192
    line: int = 128


TINY = Scale(2, 64, 64, 64, 400, 400, 512, 1, 1, 64, 256, 32)


@dataclass(frozen=True)
class Given:
    scale: Scale
    store: TokenStore
    lines: list[str]
    minutes: float
    nanogpt: Path | None

    def sizes(self, length: int, vocabulary: int) -> dict[str, Any]:
        scale = self.scale
        return {
            "num_layers": scale.layers,
            "hidden_size": scale.width,
            "max_length": length,
            "vocab_size": max(vocabulary, self.store.tokenizer.vocab_size),
        }

    def ids(self) -> list[list[int]]:
        return [each.ids[: self.scale.line] for each in self.store.tokenizer.encode_batch(self.lines) if each.ids]


def peer(kind: str, family: str, sizes: dict[str, Any], attention: str, **more: Any) -> Any:
    """A model of transformers with random weights. kind: MaskedLM, CausalLM, SequenceClassification, or none."""
    import transformers

    names = {"bert": "BertConfig", "modern": "EuroBertConfig", "gpt2": "GPT2Config"}
    width, layers = sizes["hidden_size"], sizes["num_layers"]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    shape |= {"intermediate_size": sizes.get("inner", 4 * width), "max_position_embeddings": sizes["max_length"]}
    if family == "gpt2":
        shape = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_positions": sizes["max_length"]}
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    special |= {"mask_token_id": 3} if family == "modern" else {}
    config = getattr(transformers, names[family])(vocab_size=sizes["vocab_size"], **shape, **special, **more)
    auto = getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel")
    return auto.from_config(config, attn_implementation=attention)


def attentions() -> list[str]:
    import importlib.util

    return ["sdpa"] + ["flash_attention_2"] * (DEVICE == "cuda" and importlib.util.find_spec("flash_attn") is not None)


def masked_lm(given: Given, family: str) -> list[Row]:
    scale, store, tokenizer = given.scale, given.store, given.store.tokenizer
    sizes = given.sizes(scale.length, scale.vocabulary)
    model = Model(preset(family, "base", **sizes), {"masked": sizes["vocab_size"]})
    source = StoreExamples(store, ObjectiveConfig(), length=scale.length, seed=0)
    step: dict[str, Any] = {"tokens": scale.tokens, "length": scale.length, "compiled": True, "steps": scale.steps}
    ours = Ours(model, pretraining_loss, source, optimizer="adamw" if family == "bert" else "muon", **step)
    shape = sizes | {"inner": model.config.intermediate_size}
    sides: dict[str, Theirs] = {}
    for blocks in (False, True):
        rows = documents_of(store, scale.length, blocks=blocks)
        sequences = max(1, scale.tokens // scale.length if blocks else ours.batches.sequences_per_batch)
        batches = []
        for number, some in enumerate(islice(grouped(rows, sequences, by_length=not blocks), 16)):
            inputs = masked(padded(some), tokenizer.mask_id or 0, number)
            if blocks:
                del inputs["attention_mask"]
            batches.append(([inputs], sum(map(len, some))))
        for attention in attentions():
            name = f"transformers, {attention}, {'blocks' if blocks else 'padded'}"
            sides[name] = Theirs(peer("MaskedLM", family, shape, attention), batches, steps=scale.steps)
    return rows_of(given, f"{family} masked LM, length {scale.length}", ours, sides)


def causal(given: Given) -> list[Row]:
    scale, store = given.scale, given.store
    sizes = given.sizes(scale.long, scale.causal_vocabulary)
    model = Model(preset("gpt2", "base", **sizes, dropout=0.0, attention_dropout=0.0), {"next": sizes["vocab_size"]})
    step: dict[str, Any] = {"tokens": scale.tokens, "length": scale.long, "compiled": True, "steps": scale.steps}
    ours = Ours(model, pretraining_loss, NextTokens(store, length=scale.long), optimizer="adamw", **step)
    rows = documents_of(store, scale.long, blocks=True)
    sequences = max(1, scale.tokens // scale.long)
    batches = []
    for some in islice(grouped(rows, sequences, by_length=False), 16):
        ids = torch.tensor(some)
        batches.append(([{"input_ids": ids, "labels": ids}], ids.numel()))
    quiet = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sides = {
        f"transformers, {attention}, blocks": Theirs(
            peer("CausalLM", "gpt2", sizes, attention, **quiet), batches, steps=scale.steps
        )
        for attention in attentions()
    }
    if given.nanogpt is not None:
        flat = torch.tensor([token for row in rows for token in row])
        shape = {"n_layer": scale.layers, "n_head": scale.width // 64, "n_embd": scale.width, "block_size": scale.long}
        sides["nanoGPT, compiled"] = nanogpt(given.nanogpt, flat, shape, 4, scale.steps)
    return rows_of(given, f"gpt2 next token, length {scale.long}", ours, sides)


def finetune(given: Given) -> list[Row]:
    scale, rows = given.scale, given.ids()
    sizes = given.sizes(scale.length, scale.vocabulary)
    source = Labelled(rows)
    step: dict[str, Any] = {"tokens": round(32 * source.mean_length), "length": scale.line, "steps": 5 * scale.steps}
    model = Model(preset("bert", "base", **sizes), {"classify": 2})
    ours = Ours(model, classification_loss(), source, optimizer="adamw", compiled=False, **step)
    batches = []
    for some in islice(grouped(rows, 32, by_length=True), 200):
        inputs = padded(some, 8) | {"labels": torch.arange(len(some)) % 2}
        batches.append(([inputs], sum(map(len, some))))
    np.random.default_rng(0).shuffle(batches)  # type: ignore[arg-type]
    sides = {
        f"transformers, {attention}{', compiled' * compiled}": Theirs(
            peer("SequenceClassification", "bert", sizes, attention), batches, steps=5 * scale.steps, compiled=compiled
        )
        for attention in attentions()
        for compiled in (False, True)
    }
    return rows_of(given, "bert fine-tuning, 32 lines a step", ours, sides)


def embed(given: Given) -> list[Row]:
    scale, sizes = given.scale, given.sizes(given.scale.length, given.scale.vocabulary)
    model, lines, tokenizer = Model(preset("bert", "base", **sizes), {}), given.lines, given.store.tokenizer

    def ours(turn: int) -> float:
        start = time.perf_counter()
        for _ in embed_texts(model, tokenizer, lines, max_length=scale.line):
            pass
        return len(lines) / (time.perf_counter() - start)

    def theirs(attention: str) -> Callable[[int], float]:
        other = peer("", "bert", sizes, attention).to(DEVICE, pick_dtype("auto", DEVICE)).eval()
        compiled = torch.compile(other, dynamic=True) if DEVICE == "cuda" else other

        @torch.inference_mode()
        def side(_: int) -> float:
            start = time.perf_counter()
            ids = sorted(given.ids(), key=len, reverse=True)
            for first in range(0, len(ids), 128):
                inputs = {k: v.to(DEVICE, non_blocking=True) for k, v in padded(ids[first : first + 128], 8).items()}
                mask = inputs["attention_mask"].unsqueeze(-1)
                (compiled(**inputs).last_hidden_state * mask).sum(1).div(mask.sum(1)).float().cpu()
            return len(lines) / (time.perf_counter() - start)

        return side

    sides: Sides = {f"transformers, {attention}, sorted": theirs(attention) for attention in attentions()}
    rates = alternate({"pluri": ours, **sides}, scale.rounds, given.minutes)
    return [_row(f"embed {len(lines):,} lines", "texts", rates, name) for name in sides]


def rows_of(given: Given, case: str, ours: Ours, sides: dict[str, Theirs]) -> list[Row]:
    """A row beside each peer; that of the first has what is known of ours alone."""
    dtype, product = pick_dtype("auto", DEVICE), given.scale.product
    peak: Sides = {"peak": lambda _: product_rate(dtype, product, 0.5, DEVICE)}
    rates = alternate({"pluri": ours, **sides, **peak}, given.scale.rounds, given.minutes)
    top, taken = float(np.median(rates["peak"])), memory(ours)
    rows = [_row(case, "tokens", rates, name) for name in sides]
    for row, side in zip(rows, sides.values(), strict=True):
        theirs = memory(side)
        if taken is not None and theirs is not None:
            row |= {"kib_a_token": taken / 1024, "peer_kib": theirs / 1024, "memory_ratio": taken / theirs}
    rows[0] |= {"share_of_peak": ours.flops / ours.seconds / top, "peak_tflops": top / 1e12}
    rows[0]["kernels"] = kernels(ours.step)
    ours.stream.close()
    return rows


def _row(case: str, what: str, rates: dict[str, list[float]], name: str) -> Row:
    ours, theirs = rates["pluri"], rates[name]
    medians = {"rate": float(np.median(ours)), "of": f"{what}/s", "peer": name, "peer_rate": float(np.median(theirs))}
    return {"case": case, **medians, "ratio": median_ratio(ours, theirs), "rounds": len(ours)}


CASES: dict[str, Callable[[Given], list[Row]]] = {
    "bert": lambda given: masked_lm(given, "bert"),
    "modern": lambda given: masked_lm(given, "modern"),
    "gpt2": causal,
    "finetune": finetune,
    "embed": embed,
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--minutes", type=float, default=4, help="of a case, before its last round; compiling besides")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--tiny", action="store_true", help="small models, one round")
    options = parser.parse_args()
    scale = TINY if options.tiny or DEVICE == "cpu" else Scale()
    texts = documents(options.text)[: scale.lines]
    lines = [line for text in texts for line in text.splitlines() if line.strip()][: scale.lines]
    rows: list[Row] = []
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), texts, min(8_000, scale.vocabulary))
        given = Given(scale, store, lines, options.minutes, options.nanogpt)
        for name in options.only:
            began = time.monotonic()
            rows += CASES[name](given)
            wait()
            title = f"{device}, torch {torch.__version__}; {name} took {time.monotonic() - began:.0f} s"
            finish([{k: v for k, v in row.items() if k != "kernels"} for row in rows], None, title)
            shares = [{"case": row["case"], **row["kernels"]} for row in rows if "kernels" in row]
            finish(shares, None, "What of the time of a step kernels take")
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            if DEVICE == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
