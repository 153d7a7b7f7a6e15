"""The end of preparing a store: duplicates, the index of documents, the counts, and last the manifest."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pluri.errors import DataError
from pluri.tokens.plan import Plan
from pluri.tokens.ragged import offsets_of
from pluri.tokens.shard import Shard, ShardEntry, file_sha256, ids_dtype
from pluri.tokens.store import FORMAT_VERSION, Ledger, Manifest
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.workers import write_text


def finish(output: Path, plan: Plan, tokenizer: Tokenizer, entries: list[ShardEntry], continued: int) -> None:
    """Makes a store of shards, whose entries come in any order.

    Memory grows with the documents, not the tokens: 40 bytes each. DataError: there is no token in any of them.
    """
    entries = sorted(entries, key=_place)
    if not any(entry.tokens for entry in entries):
        where = next((each.file for each in plan.inputs), str(output))
        raise DataError("there is no text in the input", where=where, do="check the files and the text column")
    lengths = np.concatenate([shard.lengths.copy() for shard in _opened(output, entries, tokenizer)])
    first = _first_of_their_text(np.concatenate([shard.hashes.copy() for shard in _opened(output, entries, tokenizer)]))
    keep = first if plan.drop_duplicates else np.ones(len(lengths), bool)
    documents = np.stack([offsets_of(lengths)[:-1][keep], lengths[keep]], axis=1)
    counts = _unigram_counts(_opened(output, entries, tokenizer), keep, tokenizer.vocab_size)
    np.save(output / "documents.npy", documents)
    np.save(output / "unigram_counts.npy", counts)
    read, kept = int(lengths.sum()), int(documents[:, 1].sum())
    empty = sum(entry.empty for entry in entries)
    ledger = Ledger(
        documents=len(lengths) + empty,
        empty_documents=empty,
        duplicate_documents=int(np.count_nonzero(~first)),
        continued_documents=continued,
        read=read,
        kept=kept,
        truncated=0,
        dropped=read - kept,
        unk=0 if tokenizer.unk_id is None else int(counts[tokenizer.unk_id]),
        rare_letters=int(counts[tokenizer.rare_ids].sum()),
    )
    others = ["documents.npy", "unigram_counts.npy", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        tokenizer_hash=tokenizer.hash,
        dtype=ids_dtype(tokenizer.vocab_size).str,
        vocab_size=tokenizer.vocab_size,
        documents=len(documents),
        tokens=kept,
        shards=entries,
        ledger=ledger,
        plan=plan,
        sha256={name: file_sha256(output / name) for name in others},
    )
    write_text(output / "manifest.json", manifest.model_dump_json(indent=2))


def _place(entry: ShardEntry) -> list[int]:
    """Where a shard stands among all: by the number of its group of files, and its own in that group."""
    return [int(number) for number in entry.name.removesuffix(".shard").split("-")]


def _opened(output: Path, entries: list[ShardEntry], tokenizer: Tokenizer) -> Iterator[Shard]:
    """One after the other: each may be let go before the next, since there may be more than can be open at once."""
    dtype = ids_dtype(tokenizer.vocab_size)
    return (Shard(output / entry.name, entry, dtype) for entry in entries)


def _first_of_their_text(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    first = np.zeros(len(hashes), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def _unigram_counts(shards: Iterator[Shard], keep: NDArray[np.bool_], vocab_size: int) -> NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    begin = 0
    for shard in shards:
        kept = keep[begin : begin + len(shard.lengths)]
        begin += len(shard.lengths)
        ids = shard.ids if kept.all() else shard.ids[np.repeat(kept, shard.lengths)]
        counts += np.bincount(ids, minlength=vocab_size)
    return counts
