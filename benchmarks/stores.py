"""How soon a store of many shards gives its first batch, and any other. Target: 10 s to the first step at 10,000.

    python benchmarks/stores.py [--quick] [--json FILE] [--text FILE ...] [--shards 10000] [--documents 1000]

The store has one small shard under 10,000 names (--quick: 500), of as many documents of 8 tokens, so that what is
measured is what grows with shards and documents. `start` is from opening the store to its first batch: index, held-out
documents, pieces, order. `resume` is the same at step 100,000, with what is in the cache by then. `seek` is the time of
a batch far away over that of one of the first, medians: 1 where a seek costs nothing. `fetched` is the MB of shards
that came with the first batch. `command` is all of `pluri pretrain` with one step, as the shell sees it.
file:// and memory:// stand for an object store without its distance: what it costs to go through the cache. (The
latter looks through all of its names for each file.)
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np

from measuring import Row, arguments, documents, finish
from pluri.batches.loader import Batches
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.pretrain import split_documents
from pluri.tokens.prepare import prepare
from pluri.tokens.shard import file_sha256
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

FAR = 100_000
TOKENS, LENGTH, BATCH_TOKENS = 8, 128, 16_384


def store_of(folder: Path, texts: list[str], shards: int, per_shard: int) -> Path:
    """A store of one shard, which then gets `shards` names."""
    source = folder / "corpus.txt"
    words = [word for text in texts for word in text.split()] or ["word"]
    source.write_text("\n".join(words[i % len(words)][:TOKENS].ljust(TOKENS, "x") for i in range(per_shard)))
    made = prepare(source, train_tokenizer(source, kind="char"), folder / "store", workers=1)
    (entry,) = made.manifest.shards
    entries = []
    for i in range(shards):
        entries.append(entry.model_copy(update={"name": f"00000-{i:05d}.shard"}))
        if i:
            os.link(made.path / entry.name, made.path / entries[-1].name)
    index = np.load(made.path / "documents.npy")
    starts = np.arange(shards)[:, None] * entry.tokens + index[:, 0]
    np.save(made.path / "documents.npy", np.stack([starts.ravel(), np.tile(index[:, 1], shards)], axis=1))
    sha256 = {**made.manifest.sha256, "documents.npy": file_sha256(made.path / "documents.npy")}
    many = {"documents": len(index) * shards, "tokens": entry.tokens * shards, "shards": entries, "sha256": sha256}
    (made.path / "manifest.json").write_text(made.manifest.model_copy(update=many).model_dump_json())
    return made.path


def opened(place: str | Path) -> tuple[TokenStore, Batches]:
    """As `pretrain` does it."""
    store = TokenStore.open(place)
    train_on, _ = split_documents(store.num_documents, 0.01, 0, store.document_borders)
    source = StoreExamples(store, ObjectiveConfig(), length=LENGTH, seed=0, documents=train_on)
    return store, Batches(source, batch_tokens=BATCH_TOKENS, length=LENGTH, seed=0)


def first_batch(place: str | Path, step: int) -> tuple[float, Batches]:
    start = time.perf_counter()
    _, batches = opened(place)
    stream = batches.stream(step)
    next(stream)
    seconds = time.perf_counter() - start
    stream.close()
    return seconds, batches


def seek(batches: Batches) -> float:
    """Time of a batch far away over that of the first ones, both of shards that are open."""
    places = [list(range(20)), [FAR + 1000 * i for i in range(20)]]
    near, far = ([timed(batches, step) for step in steps for _ in range(2)][1::2] for steps in places)
    return statistics.median(far) / statistics.median(near)


def timed(batches: Batches, step: int) -> float:
    start = time.perf_counter()
    batches[step]
    return time.perf_counter() - start


def command(store: Path, folder: Path) -> float:
    (folder / "config.toml").write_text(f"""
store = "{store}"
output = "{folder}/run"
[model]
size = "tiny"
[training]
steps = 1
batch_tokens = {BATCH_TOKENS}
""")
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pluri", "pretrain", folder / "config.toml"], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shards", type=int, help="default 10000")
    parser.add_argument("--documents", type=int, help="a shard; default 1000")
    options = parser.parse_args()
    shards = options.shards or (500 if options.quick else 10_000)
    per_shard = options.documents or (50 if options.quick else 1000)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = store_of(folder, documents(options.text), shards, per_shard)
        fsspec.filesystem("memory").put(f"{store}/", "/store", recursive=True)
        for place in (store, f"file://{store}", "memory://store"):
            cache = folder / f"cache-{len(rows)}"
            os.environ["PLURI_CACHE"] = str(cache)
            start, batches = first_batch(place, 0)
            fetched = sum(path.stat().st_size for path in cache.rglob("*.shard"))
            resume, batches = first_batch(place, FAR)
            rows.append(
                {
                    "store": place.partition("//")[0] if isinstance(place, str) else "local",
                    "shards": shards,
                    "sequences": len(batches.source),
                    "start_seconds": start,
                    "fetched": fetched / 1e6 if isinstance(place, str) else None,
                    "resume_seconds": resume,
                    "seek": seek(batches),
                    "command_seconds": None if isinstance(place, str) else command(store, folder),
                }
            )
    finish(rows, options.json, "stores of many shards")


if __name__ == "__main__":
    main()
