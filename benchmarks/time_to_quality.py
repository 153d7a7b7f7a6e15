"""How long Pluri takes to the validation loss that a tuned transformers BERT reaches in 10 minutes.

    python benchmarks/time_to_quality.py [--quick] [--json FILE] [--text FILE ...] [--minutes 10]

transformers: BERT 4 layers, 256 wide, AdamW, warm-up and linear decay over its minutes, padded batches of natural
length, in whatever precision is faster here; of three learning rates the one that is best after an eighth of the time.
Pluri: `modern` with an embedding of the neighbours, which is made for a low loss soon, and the defaults of `pluri
pretrain` otherwise, with growing budgets until the peer's loss is reached, the schedule over each budget; reading the
counts for the start is part of its time. Same tokenizer, training documents, validation masks.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from measuring import Row, arguments, documents, finish
from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.batches.loader import Batches
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.pretrain import PretrainConfig, pretrain, split_documents
from pluri.runtime import fast_bf16
from pluri.tokens.store import TokenStore
from pluri.training.journal import read_journal
from pluri.training.schedule import learning_rate_factor
from pretraining import make_store, update

LENGTH, SEQUENCES = 128, 64
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
TUNING = 1 / 8  # share of the peer's minutes that each learning rate gets before one is chosen
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # Pluri's budgets, as shares of the peer's minutes
CASE = "4/256/8,000/128"
VALIDATION = 0.02
MODEL = {"preset": "modern", "context": 2, "qk_norm": True, "embedding_norm": True, "token_types": 2}


def source(store: TokenStore, documents: np.ndarray) -> StoreExamples:
    return StoreExamples(store, ObjectiveConfig(), length=LENGTH, seed=0, documents=documents)


def padded(batches: Batches) -> list[Batch]:
    return list(batches.once())


def forward(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The summed loss of a transformers model on one of our padded batches."""
    assert batch.labels is not None
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        logits = model(input_ids=batch.input_ids, attention_mask=(batch.sequence_ids > 0).long()).logits
    flat = logits.flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(flat, batch.labels.flatten(), ignore_index=IGNORE, reduction="sum")


def transformers_loss(store: TokenStore, rate: float, minutes: float) -> tuple[float, int]:
    """Validation loss, and tokens seen, of transformers' BERT after `minutes` at this peak learning rate."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=store.tokenizer.vocab_size,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            max_position_embeddings=LENGTH,
        )
    )
    train_on, hold_out = split_documents(store.num_documents, VALIDATION, 0)
    examples = source(store, train_on)
    tokens = round(SEQUENCES * examples.mean_length)
    batches = Batches(examples, batch_tokens=tokens, length=LENGTH, seed=0, packed=False).stream(0)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    spent, seen = 0.0, 0
    while spent < 60 * minutes:
        start = time.perf_counter()
        batch = next(batches)
        factor = learning_rate_factor(max(spent / 60 / minutes, 1e-3), "linear", warmup=0.05, decay=1)
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        model.train()
        update(model, optimizer, forward(model, batch) / (batch.labels != IGNORE).sum())
        spent += time.perf_counter() - start
        seen += batch.num_tokens
    batches.close()  # type: ignore[attr-defined]
    model.eval()
    held_out = padded(Batches(source(store, hold_out), batch_tokens=tokens, length=LENGTH, seed=0, packed=False))
    with torch.inference_mode():
        total = sum(forward(model, batch).item() for batch in held_out)
    predicted = sum(int((batch.labels != IGNORE).sum()) for batch in held_out if batch.labels is not None)
    return total / predicted, seen


def pluri_loss(store: TokenStore, minutes: float, folder: Path) -> tuple[float, int]:
    """Validation loss, and tokens seen, of Pluri's model after `minutes`."""
    values = {"store": store.path, "output": folder, "validation": VALIDATION, "training": {"minutes": minutes}}
    pretrain(PretrainConfig.parse(values | {"model": MODEL}), progress=False)
    last = [event for event in read_journal(folder / "journal.jsonl") if event["event"] == "validation"][-1]
    return last["eval_loss"], last["tokens"]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, help="the peer's budget (default 10; with --quick 0.8)")
    options = parser.parse_args()
    minutes = options.minutes or (0.8 if options.quick else 10.0)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), documents(options.text), 8_000)
        short = {rate: transformers_loss(store, rate, minutes * TUNING) for rate in LEARNING_RATES}
        best = min(short, key=lambda rate: short[rate][0])
        runs = [(rate, minutes * TUNING, *outcome) for rate, outcome in short.items()]
        runs.append((best, minutes, *transformers_loss(store, best, minutes)))
        for rate, spent, loss, tokens in runs:
            peer = f"transformers, learning rate {rate:g}"
            rows.append({"case": CASE, "peer": peer, "minutes": spent, "eval_loss": loss, "tokens": tokens})
        goal = runs[-1][2]
        for share in SHARES:
            start = time.perf_counter()
            loss, tokens = pluri_loss(store, share * minutes, Path(folder) / f"run-{share}")
            spent = (time.perf_counter() - start) / 60  # the start's counts, validation and saving included
            row = {"case": CASE, "peer": "pluri", "minutes": spent, "eval_loss": loss, "tokens": tokens}
            rows.append(row | ({"ratio": minutes / spent} if loss <= goal else {}))
            if loss <= goal:
                break
    finish(
        rows, options.json, "Validation masked-LM loss (nats) against minutes; ratio = times faster to the peer's best"
    )


if __name__ == "__main__":
    main()
