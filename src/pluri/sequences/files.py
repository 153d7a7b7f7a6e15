"""Finding and opening the files that a user names: folders, globs, URLs, compressed or not."""

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import fsspec
import pyarrow as pa

from pluri.errors import DataError, PluriError, UsageError

FORMATS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".fa": "fasta",
    ".fasta": "fasta",
    ".fna": "fasta",
    ".faa": "fasta",
    ".fastq": "fastq",
    ".fq": "fastq",
    ".abc": "abc",
    ".mid": "midi",
    ".midi": "midi",
    ".krn": "kern",
}
COMPRESSIONS = (".gz", ".zst")


def format_of(file: str) -> str | None:
    """The format a file's name stands for, compression put aside; None if the suffix is unknown."""
    name = file.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)


def checked_format(file: str) -> str:
    """As format_of, but a UsageError if the suffix is unknown."""
    kind = format_of(file)
    if kind is None:
        known = " ".join(FORMATS)
        raise UsageError("unknown kind of file", where=file, do=f"name it with one of {known} (also .gz or .zst)")
    return kind


def expand(sources: Iterable[str | Path] | str | Path) -> list[str]:
    """Files, folders (searched through), globs and fsspec URLs to a sorted list of files, each once.

    A folder or a glob gives its files of known suffix, hidden ones left out. UsageError if a source matches nothing.
    """
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    if not named:
        raise UsageError("no input files given", do="name at least one file, folder or glob")
    files: set[str] = set()
    for source in map(str, named):
        found = _matches(source)
        if not found:
            raise UsageError("no readable file matches", where=source, do="check the path; known: " + " ".join(FORMATS))
        files.update(found)
    return sorted(files)


def _matches(source: str) -> list[str]:
    try:
        fs, path = fsspec.core.url_to_fs(source)
        remote = "://" in source
        if fs.isfile(path):
            return [source]
        found = fs.find(path) if fs.isdir(path) else fs.glob(path)
        files = [
            str(name) for name in found if fs.isfile(name) and format_of(str(name)) and not _hidden(str(name), path)
        ]
        return [fs.unstrip_protocol(name) if remote else _as_given(name, source) for name in files]
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"cannot be read: {error}", where=source) from None


def _hidden(name: str, folder: str) -> bool:
    inner = name[len(folder) :] if name.startswith(folder) else Path(name).name
    return any(part.startswith(".") for part in inner.split("/"))


def _as_given(name: str, source: str) -> str:
    """fsspec makes paths absolute; a user who named a relative folder reads relative names."""
    if Path(source).is_absolute():
        return name
    try:
        return str(Path(name).relative_to(Path.cwd()))
    except ValueError:
        return name


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file or URL, as a stream. DataError if it is missing, unreadable or damaged."""
    try:
        with cast(IO[bytes], fsspec.open(file, "rb")) as raw:
            if file.lower().endswith(".gz"):
                with gzip.open(raw) as stream:
                    yield cast(BinaryIO, io.BufferedReader(stream, 1 << 20))
            elif file.lower().endswith(".zst"):
                with pa.CompressedInputStream(raw, "zstd") as stream:
                    yield cast(BinaryIO, io.BufferedReader(stream, 1 << 20))
            else:
                yield cast(BinaryIO, raw)
    except PluriError:
        raise
    except FileNotFoundError:
        raise DataError("no such file", where=file, do="check its path") from None
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:  # pyright: ignore
        raise DataError(f"cannot be read: {error}", where=file, do="check that the file is whole") from None


@contextmanager
def seekable(file: str) -> Iterator[Any]:
    """As opened, but a file that can be read from its end: a compressed one goes through a temporary file."""
    with opened(file) as stream:
        if not file.lower().endswith(COMPRESSIONS):
            yield stream
            return
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(stream, whole, 1 << 20)
            whole.seek(0)
            yield whole
