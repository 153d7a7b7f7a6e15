"""TokenStore: a corpus as token ids on disk, memory-mapped, with its ledger.

A store is a folder:
    manifest.json         format version, tokenizer hash, dtype, counts, ledger, sha256 of every other file
    tokenizer/            the tokenizer that made it
    00000-00000.shard ... see tokens/shard.py; the numbers of a group of files (tokens/parts.py) and of a shard in it
    documents.npy         int64 [documents, 2]: where each document begins in the ids of all shards, and its length
    unigram_counts.npy    int64 [vocab_size]
While it is being made there is a folder unfinished/ and no manifest.json.
"""

import hashlib
import json
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pluri.config import Config
from pluri.errors import PluriError, StoreError
from pluri.tokens.folder import AGAIN, StoreFolder, open_folder
from pluri.tokens.plan import Plan
from pluri.tokens.ragged import Ragged, offsets_of, slices
from pluri.tokens.shard import ShardEntry
from pluri.tokens.shards import JoinedShards, Shards
from pluri.tokens.tokenizer import Tokenizer

FORMAT_VERSION = 1


class Ledger(Config):
    """Where every token went: read = kept + truncated + dropped.

    documents: read, empty ones included. empty_documents: gave no token. duplicate_documents: same text as an earlier
    one. continued_documents: parts of one longer than 16 MiB, but for its first: it is read as several. read, kept,
    truncated, dropped: tokens; a store never truncates, and drops only duplicates, if asked to.
    unk: unknown tokens among the kept. rare_letters: of DNA and protein, those among the kept that are ambiguous or
    rare, such as N, or a gap.
    """

    documents: int
    empty_documents: int
    duplicate_documents: int
    continued_documents: int = 0
    read: int
    kept: int
    truncated: int
    dropped: int
    unk: int
    rare_letters: int = 0


class Manifest(Config):
    format_version: int
    tokenizer_hash: str
    dtype: str
    vocab_size: int
    documents: int
    tokens: int
    shards: list[ShardEntry]
    ledger: Ledger
    plan: Plan
    sha256: dict[str, str]


class TokenStore:
    """Documents as ids. Opening reads the manifest and the index; a shard is opened and checked when first read.

    path: the folder; of a store behind a URL, where the cache keeps its files. where: as it was named. remote: whether
    it is behind a URL. manifest: what is in it. tokenizer: the one that made it.
    num_documents, num_tokens: kept, empty and dropped documents not counted.
    """

    def __init__(self, folder: StoreFolder, manifest: Manifest) -> None:
        self._folder, self.path, self.where, self.remote = folder, folder.path, folder.where, folder.remote
        self.manifest = manifest
        self.num_documents, self.num_tokens = manifest.documents, manifest.tokens
        self._shards: Shards | JoinedShards = Shards(folder, manifest.shards, np.dtype(manifest.dtype))
        self._shard_starts = offsets_of(np.array([entry.tokens for entry in manifest.shards], np.int64))
        documents = self._array("documents.npy", (manifest.documents, 2))
        self._document_starts = documents[:, 0]
        self.document_lengths: NDArray[np.int64] = documents[:, 1]
        self.unigram_counts: NDArray[np.int64] = self._array("unigram_counts.npy", (manifest.vocab_size,))

    @classmethod
    def open(cls, place: str | Path) -> Self:
        """place: a folder, or a URL that fsspec knows, such as s3://bucket/store.

        StoreError if there is no store, it is unfinished or damaged (see also `verify`), or it cannot be reached.
        """
        folder = open_folder(place)
        where = folder.where
        try:
            values = json.loads(folder.manifest())
        except ValueError as error:
            raise StoreError(f"manifest.json cannot be read: {error}", where=where, do=AGAIN) from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise StoreError(f"format version {version}, not {FORMAT_VERSION}", where=where, do=AGAIN)
        try:
            return cls(folder, Manifest.parse(values, where=f"{where}/manifest.json"))
        except StoreError:
            raise
        except PluriError as error:
            raise StoreError(error.what, where=error.where, do=AGAIN) from None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        for name, sha256 in self.manifest.sha256.items():
            if name.startswith("tokenizer/"):
                self._folder.open(name, sha256, Path.stat)
        return Tokenizer.load(self.path / "tokenizer")

    @cached_property
    def hash(self) -> str:
        """sha256 over the hashes of all its files: the same for the same documents, tokenizer and shards."""
        hashes = [entry.sha256 for entry in self.manifest.shards], self.manifest.sha256
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def gather(self, documents: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ragged:
        """The tokens [start, start + length) of each document; int64 [n] each; slices must lie inside documents."""
        begins, shards = self._located(documents, starts)
        offsets = offsets_of(lengths)
        ids = np.empty(offsets[-1], np.int32)
        order = np.argsort(shards, kind="stable") if len(self._shards) > 1 else np.arange(len(shards))
        sources = slices(begins[order], lengths[order])
        targets = slices(offsets[:-1][order], lengths[order])
        bounds = offsets_of(np.bincount(shards, lengths, len(self._shards)).astype(np.int64))
        for shard in np.unique(shards):
            part = slice(bounds[shard], bounds[shard + 1])
            ids[targets[part]] = self._shards[shard].ids[sources[part]]
        return Ragged(ids, offsets)

    def sentence_starts(
        self, documents: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Ragged:
        """Where sentences begin inside each slice: positions > 0 and < length, relative to the slice's start."""
        begins, shards = self._located(documents, starts)
        found = np.empty((2, len(begins)), np.int64)
        for shard in np.unique(shards):
            mine = shards == shard
            edges = np.stack([begins[mine] + 1, (begins + lengths)[mine]]).astype(np.uint32)
            found[:, mine] = np.searchsorted(self._shards[shard].sentences, edges)
        counts = np.maximum(found[1] - found[0], 0)
        offsets = offsets_of(counts)
        ids = np.empty(offsets[-1], np.int32)
        for shard in np.unique(shards):
            mine = shards == shard
            absolute = self._shards[shard].sentences[slices(found[0][mine], counts[mine])]
            ids[slices(offsets[:-1][mine], counts[mine])] = absolute - np.repeat(begins[mine], counts[mine])
        return Ragged(ids, offsets)

    @cached_property
    def document_borders(self) -> NDArray[np.int64]:
        """Where the documents of each shard begin: int64 [shards + 1]."""
        return np.searchsorted(self._document_starts, self._shard_starts)

    def fetch_ahead(self, documents: NDArray[np.int64]) -> None:
        """Has the shards of documents that will soon be read, in this order, fetched in the background."""
        if self.remote:
            _, shards = self._located(documents, np.zeros_like(documents))
            numbers, first = np.unique(shards, return_index=True)
            self._shards.fetch_ahead(numbers[np.argsort(first)].tolist())

    def verify(self) -> None:
        """Compares every file with its sha256 in the manifest. StoreError names the first that differs."""
        expected = {entry.name: entry.sha256 for entry in self.manifest.shards} | self.manifest.sha256
        for name, sha256 in expected.items():
            self._folder.open(name, sha256, Path.stat)

    def _located(
        self, documents: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where slices begin in their shards, and the number of the shard: int64 [n] each."""
        absolute = self._document_starts[documents]
        shards = np.searchsorted(self._shard_starts, absolute, side="right") - 1
        return absolute + starts - self._shard_starts[shards], shards

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
        try:
            array = self._folder.open(name, self.manifest.sha256.get(name, ""), partial(np.load, mmap_mode="r"))
        except (OSError, ValueError, EOFError):
            raise StoreError("the file is damaged", where=f"{self.where}/{name}", do=AGAIN) from None
        if array.shape != shape or array.dtype != np.int64:
            what = f"{array.dtype} {array.shape} instead of int64 {shape}"
            raise StoreError(what, where=f"{self.where}/{name}", do=AGAIN)
        return np.asarray(array)
