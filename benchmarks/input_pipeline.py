"""How many tokens a second one core turns from a token store into masked, packed batches. Target: 3 million.

    python benchmarks/input_pipeline.py [--quick] [--json FILE] [--text FILE ...]

peer: transformers' DataCollatorForLanguageModeling on the same sequences, already in memory, padded. Tokens are counted
without padding. `full` is the share of positions that hold a token, `of_target` the rate over 3 million a second.
`per_cpu_second` is the rate by CPU time: what counts where other programs run.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.batches.loader import Batches
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

TARGET = 3e6
TOKENS_A_ROUND = 400_000
CASES = [  # objective, length, tokens a batch
    ({}, 128, 4096),
    ({}, 128, 16384),
    ({}, 512, 16384),
    ({"unit": "word"}, 128, 16384),
    ({"unit": "span"}, 128, 16384),
    ({"pair": "sop"}, 128, 16384),
    ({"pair": "nsp"}, 128, 16384),
]


def pluri(batches: Batches) -> tuple[Callable[[int], float], list[float], list[float]]:
    """Tokens a second in a round of batches, never the same twice; the rate by CPU time; how full each was."""
    step = itertools.count()
    by_cpu: list[float] = []
    full: list[float] = []

    def side(_: int) -> float:
        tokens, start, cpu = 0, time.perf_counter(), time.thread_time()
        while tokens < TOKENS_A_ROUND:
            batch = batches[next(step)]
            tokens += batch.num_tokens
            full.append(batch.num_tokens / batch.input_ids.numel())
        by_cpu.append(tokens / (time.thread_time() - cpu))
        return tokens / (time.perf_counter() - start)

    return side, by_cpu, full


def transformers(store: TokenStore, batches: Batches) -> Callable[[int], float]:
    """Tokens a second of the collator on batches of as many sequences, cut from the same documents."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(store.path / "tokenizer"))
    source = StoreExamples(store, ObjectiveConfig(mask=0, random=0), length=batches.length, seed=0)
    index = np.arange(min(len(source), 20 * batches.sequences_per_batch))
    examples = source.examples(index, np.zeros_like(index))
    ids = [{"input_ids": each.tolist()} for each in np.split(examples.input_ids, examples.offsets[1:-1])]

    def side(_: int) -> float:
        start = time.perf_counter()
        for first in range(0, len(ids), batches.sequences_per_batch):
            collate(ids[first : first + batches.sequences_per_batch])
        return len(examples.input_ids) / (time.perf_counter() - start)

    return side


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        texts = documents(options.text)
        corpus.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
        tokenizer = train_tokenizer([corpus], kind="wordpiece", vocab_size=8000)
        store = prepare([corpus], tokenizer, Path(folder) / "store")
        for objective, length, batch_tokens in CASES:
            config = ObjectiveConfig.parse(objective)
            source = StoreExamples(store, config, length=length, seed=0)
            batches = Batches(source, batch_tokens=batch_tokens, length=length, seed=0)
            ours, by_cpu, full = pluri(batches)
            sides = {"pluri": ours}
            if not objective:
                sides["transformers"] = transformers(store, batches)
            rates = alternate(sides, rounds=3 if options.quick else 9)
            peer = rates.get("transformers")
            rows.append(
                {
                    "case": " ".join(map(str, (objective or {"unit": "token"}).values())) + f" {length}/{batch_tokens}",
                    "tokens_per_second": statistics.median(rates["pluri"]),
                    "per_cpu_second": statistics.median(by_cpu[1:]),
                    "of_target": statistics.median(rates["pluri"]) / TARGET,
                    "full": statistics.mean(full),
                    "peer": "transformers collator, padded" if peer else None,
                    "peer_tokens_per_second": statistics.median(peer) if peer else None,
                    "ratio": median_ratio(rates["pluri"], peer) if peer else None,
                }
            )
    finish(rows, options.json, "store to masked, packed batches, one core")


if __name__ == "__main__":
    main()
