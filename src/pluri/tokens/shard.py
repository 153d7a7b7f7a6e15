"""Shard: one file of a token store.

Little-endian, one section after the other, each padded to 8 bytes:
    ids         uint16 or uint32 [tokens]
    lengths     int64 [documents]     tokens of each document
    hashes      uint64 [documents]    of each document's text, to find duplicates
    sentences   uint32 [sentences]    positions in ids where a sentence begins inside a document
"""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pluri.config import Config
from pluri.errors import StoreError
from pluri.tokens.encoding import Encoded


class ShardEntry(Config):
    """What the manifest says of a shard. empty: documents that gave no token and are not in the shard."""

    name: str
    documents: int
    empty: int
    tokens: int
    sentences: int
    bytes: int
    sha256: str


def ids_dtype(vocab_size: int) -> np.dtype:
    """The smallest dtype that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Writes a shard under a temporary name; `finish` moves it into place. Left without, it leaves nothing behind.

    dtype: of the ids. OSError where the disk is full or may not be written.
    """

    def __init__(self, path: Path, temporary: Path, dtype: np.dtype) -> None:
        self._path, self._temporary, self._dtype = path, temporary, dtype
        self._stream = temporary.open("wb")
        self._digest = hashlib.sha256()
        self._lengths: list[int] = []
        self._hashes: list[int] = []
        self._sentences: list[NDArray[np.int64]] = []
        self._tokens = self._empty = 0

    def add(self, texts: list[str], documents: Encoded) -> None:
        """Documents without a token are counted and left out."""
        self._write(documents.ids.astype(self._dtype))
        self._sentences.append(documents.sentences + self._tokens)
        self._tokens += len(documents.ids)
        for text, length in zip(texts, documents.lengths.tolist(), strict=True):
            if length:
                self._lengths.append(length)
                self._hashes.append(_text_hash(text))
            else:
                self._empty += 1

    def finish(self) -> ShardEntry:
        self._pad()
        sentences = np.concatenate([np.zeros(0, np.int64), *self._sentences])
        for section in (np.array(self._lengths, "<i8"), np.array(self._hashes, "<u8"), sentences.astype("<u4")):
            self._write(section)
            self._pad()
        size = self._stream.tell()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._temporary.replace(self._path)
        return ShardEntry(
            name=self._path.name,
            documents=len(self._lengths),
            empty=self._empty,
            tokens=self._tokens,
            sentences=len(sentences),
            bytes=size,
            sha256=self._digest.hexdigest(),
        )

    def _write(self, section: NDArray) -> None:
        data = section.tobytes()
        self._digest.update(data)
        self._stream.write(data)

    def _pad(self) -> None:
        self._write(np.zeros(-self._stream.tell() % 8, np.uint8))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()  # writes what is buffered, which fails again on a full disk
        finally:
            self._temporary.unlink(missing_ok=True)


class Shard:
    """A shard, memory-mapped: ids [tokens], lengths and hashes [documents], sentences [sentences], read-only.

    FileNotFoundError: it is not there. StoreError: it is shorter or longer than it was.
    """

    def __init__(self, path: Path, entry: ShardEntry, dtype: np.dtype) -> None:
        size = path.stat().st_size
        if size != entry.bytes:
            what = f"the shard is damaged: {size} bytes instead of {entry.bytes}"
            raise StoreError(what, where=str(path), do="remove the store and prepare it again")
        self._bytes = _mapped(path, size)
        self._end = 0
        self.ids = self._section(dtype, entry.tokens)
        self.lengths = self._section(np.dtype("<i8"), entry.documents)
        self.hashes = self._section(np.dtype("<u8"), entry.documents)
        self.sentences = self._section(np.dtype("<u4"), entry.sentences)

    def _section(self, dtype: np.dtype, count: int) -> NDArray:
        start = self._end
        self._end = start + -(-count * dtype.itemsize // 8) * 8
        return self._bytes[start : start + count * dtype.itemsize].view(dtype)


def _mapped(path: Path, size: int) -> NDArray[np.uint8]:
    """The bytes of a file. numpy's memmap would keep it open, and a process may have few open files (ulimit -n)."""
    if not size:
        return np.zeros(0, np.uint8)
    import torch  # not by the workers, which only write and are to start at once

    try:
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError:
        path.stat()  # FileNotFoundError, if it was deleted just now
        raise
    mapped.flags.writeable = False
    return mapped


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.strip().encode(), digest_size=8).digest(), "little")
