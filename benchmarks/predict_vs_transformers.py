"""Predicting with a fine-tuned model beside transformers: inputs a second from text to answer.

    python benchmarks/predict_vs_transformers.py [--quick] [--json FILE] [--data FOLDER]

Built-in shopping reviews with a BERT (4 layers, 256 wide), and, with MiniLM-L6: SST-2 sentences, SICK pairs and SQuAD
questions (windows of at most 384 tokens), all of natural length. Both sides open the same folder; its head is new, so
that what it says is of no interest, but that both say the same is: `agreement` is the share of equal answers. Encoding
counts on both sides. The peer sorts by length, pads each batch to its longest, and runs without gradients, in batches
of 8, 32 and 128, of which the fastest is the peer (bf16 where that is faster here). For questions Pluri searches the 20
best valid spans of every window, the peer takes the best one. Alternating A B A B; medians of the ratios by round.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelled import DOC_STRIDE, Case, best_characters, encoded, measured, peer_class
from measuring import Row, alternate, median_ratio
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.runtime import fast_bf16
from pluri.tasks.answer import Answering
from pluri.tasks.fit import Split
from pluri.tasks.predictions import predict
from pluri.tasks.task import Labelled

SETTINGS = Answering(doc_stride=DOC_STRIDE)
SIZES = {"reviews": (1000, 2000), "SST-2": (1000, 1821), "SICK": (1000, 2000), "SQuAD": (100, 400)}
QUICK = {"reviews": (1000, 500), "SST-2": (1000, 500), "SICK": (1000, 500), "SQuAD": (100, 60)}


def pluri(folder: Path, case: Case, said: list[NDArray]) -> Callable[[list[Labelled]], float]:
    """Returns inputs a second."""
    model, tokenizer = load_model(folder)

    def side(records: list[Labelled]) -> float:
        start = time.perf_counter()
        made: dict[str, Any] = {"length": case.length, "truncate": True, "settings": SETTINGS}
        split = Split.of(records, case.task, tokenizer, **made)
        said.append(predict(model, case.task, split.encoded).values)
        return len(records) / (time.perf_counter() - start)

    return side


def transformers(folder: Path, case: Case, at_once: int, said: list[NDArray]) -> Callable[[list[Labelled]], float]:
    """Returns inputs a second."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    model = peer_class(case).from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def side(records: list[Labelled]) -> float:
        start = time.perf_counter()
        found = encoded(tokenizer, case, records, labels=False)
        order = sorted(range(len(found.features)), key=lambda i: len(found.features[i]["input_ids"]))
        logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(order)
        for first in range(0, len(order), at_once):
            some = order[first : first + at_once]
            batch = tokenizer.pad([found.features[i] for i in some], return_tensors="pt")
            output = model(**batch)
            if case.task.kind == "answer":
                values = torch.stack([output.start_logits, output.end_logits], 1)
            else:
                values = output.logits
            for i, value in zip(some, values.float().numpy(), strict=True):
                logits[i] = value
        if case.task.kind == "answer":
            said.append(best_characters(found, logits, SETTINGS.max_answer_length))
        else:
            said.append(np.stack(logits).argmax(-1))
        return len(records) / (time.perf_counter() - start)

    return side


def row(case: Case, work: Path, quick: bool) -> Row:
    folder = work / case.name
    model, tokenizer = load_model(case.checkpoint, heads={case.task.head: case.task.num_outputs})
    save_model(folder, model, tokenizer, labels=case.task.labels or None)
    ours, theirs = list[NDArray](), list[NDArray]()
    mine = pluri(folder, case, ours)
    peers = {str(size): transformers(folder, case, size, theirs) for size in (8, 32, 128)}
    tried = {name: side(case.test[:100]) for name, side in peers.items()}
    best = max(tried, key=lambda name: tried[name])
    sides = {"pluri": lambda _: mine(case.test), best: lambda _: peers[best](case.test)}
    rates = alternate(sides, 3 if quick else 5)
    return {
        "case": f"{case.name}, {len(case.test):,} inputs",
        "peer": f"transformers, {'bf16' if fast_bf16() else 'fp32'}, sorted, batches of {best}",
        "inputs_per_second": float(np.median(rates["pluri"])),
        "peer_inputs_per_second": float(np.median(rates[best])),
        "ratio": median_ratio(rates["pluri"], rates[best]),
        "agreement": float(np.mean(np.all(np.atleast_2d((ours[0] == theirs[-1]).T), axis=0))),
    }


if __name__ == "__main__":
    measured(__doc__ or "", "Predicting, from text to answer", SIZES, QUICK, row)
