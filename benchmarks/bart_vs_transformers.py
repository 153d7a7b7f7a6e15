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
from pluri.checkpoints.huggingface import save_model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import Denoise, ObjectiveConfig
from pluri.objectives.denoise import Denoising
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import fast_bf16, keep_freed_memory, sequence_keys
from pluri.tasks.task import Labelled
from pluri.tasks.translate import TextExamples, Writing, write_targets
from pluri.tokens.ragged import Ragged, offsets_of
from pluri.tokens.store import TokenStore
from pretraining import PluriStep, TransformersStep, compared, make_store

LAYERS, WIDTH, VOCABULARY, LENGTH, TOKENS = 4, 256, 16_000, 128, 4096  # layers of the encoder, and of the decoder
INFILL = Denoise(kinds=("infill",))


def bart(store: TokenStore) -> Model:
    vocab = store.tokenizer.vocab_size
    sizes: dict[str, Any] = {"num_layers": LAYERS, "hidden_size": WIDTH, "max_length": LENGTH}
    return Model(preset("bart", "mini", vocab_size=vocab, **sizes), {"next": vocab})


def pluri(store: TokenStore) -> PluriStep:
    source = StoreExamples(store, ObjectiveConfig.parse({"denoise": INFILL}), length=LENGTH, seed=0)
    return PluriStep(bart(store), "adamw", source, tokens=TOKENS, length=LENGTH)


def transformers(folder: Path, made: Examples) -> TransformersStep:
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, DataCollatorForSeq2Seq

    model: Any = BartForConditionalGeneration(BartConfig.from_pretrained(folder))
    assert made.labels is not None
    assert made.source is not None
    sides = {"input_ids": made.source.input_ids, "labels": made.labels}
    cuts = {"input_ids": made.source.offsets[1:-1], "labels": made.offsets[1:-1]}
    split = {name: [part.tolist() for part in np.split(ids, cuts[name])] for name, ids in sides.items()}
    examples = [dict(zip(split, pair, strict=True)) for pair in zip(*split.values(), strict=True)]
    mean = (len(made.input_ids) + len(made.source.input_ids)) / len(made)
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder), model)
    return TransformersStep(model, collate, examples, round(TOKENS / mean))


def blocks(store: TokenStore) -> Examples:
    """The examples of all documents one after another, in full blocks."""
    everything = np.arange(store.num_documents)
    ids = store.gather(everything, np.zeros_like(everything), store.document_lengths).ids
    count, size = len(ids) // (LENGTH - 2), LENGTH - 2
    whole = Ragged(ids[: count * size], offsets_of(np.full(count, size)))
    none = Ragged(ids[:0], np.zeros(count + 1, np.int64))
    return Denoising(INFILL, store.tokenizer)(whole, none, sequence_keys(0, 0, np.arange(count)))


def training(store: TokenStore, folder: Path, rounds: int) -> list[Row]:
    ours, every = pluri(store), np.arange(len(StoreExamples(store, ObjectiveConfig(), length=LENGTH, seed=0)))
    made = {"padded": ours.batches.source.examples(every, np.zeros_like(every)), "blocks": blocks(store)}
    peers = {f"transformers {kind}": transformers(folder, examples) for kind, examples in made.items()}
    case = f"training {LAYERS}+{LAYERS}/{WIDTH}/{store.tokenizer.vocab_size:,}/{LENGTH}"
    return compared(case, {"bart": ours}, {**peers}, rounds)


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
        store, folder = make_store(Path(work), texts, VOCABULARY), Path(work) / "model"
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
