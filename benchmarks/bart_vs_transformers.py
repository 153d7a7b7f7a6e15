"""BART beside transformers, same sizes and data: denoising training and writing, tokens a second and share of the peak.

    python benchmarks/bart_vs_transformers.py [--quick] [--json FILE] [--text FILE ...]

Training (dropout 0.1, AdamW, gradients clipped at 1) rebuilds documents of natural length from what text infilling
leaves, in steps of the same number of tokens: those of the source and of the target, padding not counted. transformers
reads examples that were made beforehand, padded to the longest of a batch or, without padding, of blocks of
concatenated text; Pluri makes them as it goes. Writing: the same random weights, whose texts never end; the likeliest
token each time, and 4 beams. `agreement` is the share of texts that are the same on both sides. Both in whatever
precision is faster on this machine (of training, bf16 autocast or fp32). Alternating A B A B; medians, and medians of
the ratios round by round.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.batches.example import Examples
from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import save_model
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import Denoise, ObjectiveConfig
from pluri.objectives.denoise import Denoising
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import fast_bf16, keep_freed_memory, product_rate, sequence_keys
from pluri.tasks.task import Labelled
from pluri.tasks.translate import TextExamples, Writing, write_targets
from pluri.tokens.prepare import prepare
from pluri.tokens.ragged import Ragged, offsets_of
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.optimizer import MasterOptimizer
from pluri.training.trainer import counts, step_flops

LAYERS, WIDTH, VOCABULARY, LENGTH, TOKENS = 4, 256, 16_000, 128, 4096  # layers of the encoder, and of the decoder
INFILL = Denoise(kinds=("infill",))


def bart(store: TokenStore) -> Model:
    vocab = store.tokenizer.vocab_size
    sizes: dict[str, Any] = {"num_layers": LAYERS, "hidden_size": WIDTH, "max_length": LENGTH}
    return Model(preset("bart", "mini", vocab_size=vocab, **sizes), {"next": vocab})


class Pluri:
    """One step of ours a call: store to broken, packed batch to updated weights."""

    def __init__(self, store: TokenStore) -> None:
        self.model = bart(store).train()
        self.dtype = torch.bfloat16 if fast_bf16() else torch.float32
        self.optimizer = MasterOptimizer(self.model, "adamw", weight_decay=0.01, betas=(0.9, 0.999), dtype=self.dtype)
        source = StoreExamples(store, ObjectiveConfig.parse({"denoise": INFILL}), length=LENGTH, seed=0)
        self.batches = Batches(source, batch_tokens=TOKENS, length=LENGTH, seed=0)
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


class Transformers:
    """One step of transformers a call: collator (pads) to updated weights."""

    def __init__(self, store: TokenStore, folder: Path, examples: Examples) -> None:
        from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, DataCollatorForSeq2Seq

        self.model: Any = BartForConditionalGeneration(BartConfig.from_pretrained(folder)).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.collate: Any = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), self.model)
        assert examples.labels is not None
        assert examples.source is not None
        sides = {"input_ids": examples.source.input_ids, "labels": examples.labels}
        cuts = {"input_ids": examples.source.offsets[1:-1], "labels": examples.offsets[1:-1]}
        split = {name: [part.tolist() for part in np.split(ids, cuts[name])] for name, ids in sides.items()}
        self.examples = [dict(zip(split, pair, strict=True)) for pair in zip(*split.values(), strict=True)]
        mean = (len(examples.input_ids) + len(examples.source.input_ids)) / len(examples)
        self.sequences = round(TOKENS / mean)
        self.order = np.random.default_rng(0)

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        chosen = [self.examples[i] for i in self.order.integers(0, len(self.examples), self.sequences)]
        batch = self.collate([dict(example) for example in chosen])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sum(len(ids) for example in chosen for ids in example.values()) / (time.perf_counter() - start)


def blocks(store: TokenStore) -> Examples:
    """The examples of all documents one after another, in full blocks."""
    everything = np.arange(store.num_documents)
    ids = store.gather(everything, np.zeros_like(everything), store.document_lengths).ids
    count, size = len(ids) // (LENGTH - 2), LENGTH - 2
    whole = Ragged(ids[: count * size], offsets_of(np.full(count, size)))
    none = Ragged(ids[:0], np.zeros(count + 1, np.int64))
    return Denoising(INFILL, store.tokenizer)(whole, none, sequence_keys(0, 0, np.arange(count)))


def training(store: TokenStore, folder: Path, rounds: int) -> list[Row]:
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    ours, every = Pluri(store), np.arange(len(StoreExamples(store, ObjectiveConfig(), length=LENGTH, seed=0)))
    made = {"padded": ours.batches.source.examples(every, np.zeros_like(every)), "blocks": blocks(store)}
    theirs = {name: Transformers(store, folder, examples) for name, examples in made.items()}
    rates = alternate({"pluri": ours, **theirs, "peak": lambda _: product_rate(dtype, 2048, 1.0)}, rounds)
    ours.stream.close()
    top = float(np.median(rates["peak"]))
    return [
        {
            "case": f"training {LAYERS}+{LAYERS}/{WIDTH}/{store.tokenizer.vocab_size:,}/{LENGTH}",
            "peer": f"transformers {name}, {'bf16 autocast' if fast_bf16() else 'fp32'}",
            "tokens_per_second": float(np.median(rates["pluri"])),
            "peer_tokens_per_second": float(np.median(rates[name])),
            "ratio": median_ratio(rates["pluri"], rates[name]),
            "share_of_peak": ours.flops / ours.seconds / top,
            "peak_gflops": top / 1e9,
        }
        for name in theirs
    ]


def endless(model: Model, end: int) -> Model:
    """Random weights whose texts are of many words, which sharp attention and positions do, and never end."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                factor = 16 if "positions" in name else 8 if ".q" in name else 1
                parameter.normal_(0.0, factor / parameter.shape[1] ** 0.5, generator=generator)
        bias: Any = model.heads["next"].bias
        bias[0, end] = -1e4
    return model.eval()


class Writer:
    """Writes `new` tokens of each source a call, by ours or by transformers; returns tokens a second."""

    def __init__(self, write: Callable[[], list[str]], tokens: int) -> None:
        self.write, self.tokens = write, tokens
        self.texts: list[str] = []

    def __call__(self, turn: int) -> float:
        start = time.perf_counter()
        self.texts = self.write()
        return self.tokens / (time.perf_counter() - start)


def writing(model: Model, peer: Any, examples: TextExamples, beams: int, new: int, rounds: int) -> Row:
    settings = Writing(beams=beams, max_new_tokens=new)
    sources = np.split(examples.sources.ids, examples.sources.offsets[1:-1])
    pad: int = peer.config.pad_token_id

    def ours() -> list[str]:
        return write_targets(model, examples, settings)

    def theirs() -> list[str]:
        width = max(len(ids) for ids in sources)
        ids = torch.tensor([[*ids.tolist(), *[pad] * (width - len(ids))] for ids in sources])
        options = {"max_new_tokens": new, "num_beams": beams, "do_sample": False, "length_penalty": 1.0}
        written = peer.generate(ids, attention_mask=(ids != pad).long(), **options)
        return [examples.tokenizer.decode(row).strip() for row in written.tolist()]

    sides = {name: Writer(write, new * len(examples)) for name, write in (("pluri", ours), ("transformers", theirs))}
    rates = alternate({**sides}, rounds)
    lengths = examples.sources.lengths
    return {
        "case": f"writing, {len(examples)} of {lengths.min()} to {lengths.max()} tokens, {new} new, {beams} beams",
        "peer": f"transformers, {'bf16' if fast_bf16() else 'fp32'}",
        "tokens_per_second": float(np.median(rates["pluri"])),
        "peer_tokens_per_second": float(np.median(rates["transformers"])),
        "ratio": median_ratio(rates["pluri"], rates["transformers"]),
        "agreement": float(np.mean([a == b for a, b in zip(*(side.texts for side in sides.values()), strict=True)])),
    }


def main() -> None:
    from transformers import BartForConditionalGeneration

    options = arguments(__doc__ or "").parse_args()
    keep_freed_memory()
    texts = [" ".join(text.split()) for text in documents(options.text)[: 4_000 if options.quick else 20_000]]
    rounds, new = (3, 16) if options.quick else (7, 64)
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    with tempfile.TemporaryDirectory() as work:
        text, folder = Path(work) / "text.txt", Path(work) / "model"
        text.write_text("\n".join(texts), encoding="utf-8")
        prepare([str(text)], train_tokenizer([str(text)], kind="bpe", vocab_size=VOCABULARY), Path(work) / "store")
        store = TokenStore.open(Path(work) / "store")
        assert store.tokenizer.sep_id is not None
        model = endless(bart(store), store.tokenizer.sep_id)
        save_model(folder, model, store.tokenizer)
        rows = training(store, folder, rounds)
        peer: Any = BartForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        peer.generation_config.forced_eos_token_id = None
        model = model.to(dtype)
        for count, beams in ((1, 1), (16, 1), (16, 4)):
            records = [Labelled((each,), (), "") for each in texts[:count]]
            examples = TextExamples(records, store.tokenizer, length=LENGTH, truncate=True)
            rows.append(writing(model, peer, examples, beams, new, rounds))
    finish(rows, options.json, f"BART, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
