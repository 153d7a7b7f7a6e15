"""The plan of a store: what it is made of, and how."""

import hashlib
import json
import os
from pathlib import Path

import fsspec

from pluri.config import Config
from pluri.errors import DataError, StoreError
from pluri.tokens.shard import file_sha256

OTHERWISE = "remove that folder, or choose another output"


class Input(Config):
    """A file that went into a store. sha256: of its content; for a URL, of what its file system says of its version."""

    file: str
    bytes: int
    sha256: str


class Plan(Config):
    """What a store is made of, and how: the same plan gives the same store, byte for byte."""

    tokenizer_hash: str
    inputs: list[Input]
    text_column: str
    language: str
    drop_duplicates: bool
    documents_per_shard: int


def hashed_input(file: str) -> Input:
    sized = sized_input(file)
    if sized.sha256:
        return sized
    try:
        return sized.model_copy(update={"sha256": file_sha256(Path(file))})
    except OSError as error:
        raise _unreadable(file, error) from None


def sized_input(file: str) -> Input:
    """As hashed_input, without reading the file: of a local one the hash is left out."""
    try:
        if "://" not in file:
            return Input(file=file, bytes=os.path.getsize(file), sha256="")
        fs, path = fsspec.core.url_to_fs(file)
        info = fs.info(path)
    except OSError as error:
        raise _unreadable(file, error) from None
    version = json.dumps({key: str(value) for key, value in sorted(info.items()) if key.lower() in _VERSION_KEYS})
    return Input(file=file, bytes=info.get("size") or 0, sha256=hashlib.sha256(version.encode()).hexdigest())


_VERSION_KEYS = {"size", "etag", "mtime", "lastmodified", "last_modified", "md5hash", "sha256", "generation"}


def _unreadable(file: str, error: OSError) -> DataError:
    return DataError(f"cannot be read: {error.strerror or error}", where=file)


def check_same(made: Plan, asked: Plan, output: Path) -> None:
    """StoreError unless both plans are the same, files known by their content (or, in parts, size) and not folder."""
    if made.tokenizer_hash != asked.tokenizer_hash:
        raise StoreError("the store was made with another tokenizer", where=str(output), do=OTHERWISE)
    hashed = all(each.sha256 for each in [*made.inputs, *asked.inputs])
    known = [[(each.bytes, each.sha256 if hashed else "") for each in plan.inputs] for plan in (asked, made)]
    if known[0] != known[1]:
        changed = set(known[0]) ^ set(known[1])
        inputs = zip([*known[0], *known[1]], [*asked.inputs, *made.inputs], strict=True)
        which = next((f": {each.file}" for key, each in inputs if key in changed), "")
        raise StoreError(f"the store was made from other input{which}", where=str(output), do=OTHERWISE)
    for field in ("text_column", "language", "drop_duplicates", "documents_per_shard"):
        if getattr(made, field) != getattr(asked, field):
            what = f"the store was made with {field}={getattr(made, field)!r}, not {getattr(asked, field)!r}"
            raise StoreError(what, where=str(output), do=OTHERWISE)
