"""Preparing a corpus: readers, tokenizer and processes put together into a token store."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pluri.errors import DataError, PluriError, StoreError, UsageError
from pluri.sequences import expand, read_records
from pluri.tokens.ragged import offsets_of
from pluri.tokens.shard import Shard, ShardEntry, file_sha256, ids_dtype
from pluri.tokens.store import FORMAT_VERSION, Input, Ledger, Manifest, Plan, TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.workers import Part, run_parts, write_error, write_shard, write_text

CHARACTERS_PER_SHARD = 1 << 23
"""A shard is closed at this size: what a worker holds at once, and what is lost when it is killed."""

_FAILED = "failed"
"""The sign, among what is unfinished, that the input or the settings were at fault and not a kill."""

_ELSE = "remove that folder, or choose another output"


def prepare(
    sources: Iterable[str | Path] | str | Path,
    tokenizer: Tokenizer | str | Path,
    output: str | Path,
    *,
    workers: int | None = None,
    text_column: str = "text",
    language: str = "en",
    drop_duplicates: bool = False,
    documents_per_shard: int = 65_536,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Encodes files, folders, globs or URLs (sequences.expand) into a token store.

    tokenizer: a Tokenizer or its folder. workers: processes; None = one a core.
    language: ISO 639-1, for sentence boundaries. drop_duplicates: keep only the first of documents with the same text.
    progress: told after each shard how many documents and tokens are done.
    Killed, it goes on where it was when called again in the same way; done, it returns the store at once.
    StoreError: the output holds another store (other tokenizer, input or settings), is being written by another
    process, or cannot be written. UsageError, DataError: as read_records.
    """
    output = Path(output)
    if documents_per_shard < 1 or (workers is not None and workers < 1):
        raise UsageError("workers and documents_per_shard must be at least 1")
    tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer)
    files = _outside(output, expand(sources))
    plan = Plan(
        tokenizer_hash=tokenizer.hash,
        inputs=[_input(file) for file in files],
        text_column=text_column,
        language=language,
        drop_duplicates=drop_duplicates,
        documents_per_shard=documents_per_shard,
    )
    if (output / "manifest.json").exists():
        return _finished_store(output, plan)
    unfinished, cores = output / "unfinished", workers or os.cpu_count() or 1
    if output.exists() and not unfinished.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError("is there already and no token store", where=str(output), do="choose another output")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished / "lock", timeout=2):  # a worker that a killed run was just starting may hold it yet
            if not (output / "manifest.json").exists():
                _begin(unfinished, plan, tokenizer, output)
                try:
                    entries, continued = _write_shards(files, plan, tokenizer, output, cores, progress)
                except (DataError, UsageError) as error:
                    write_text(unfinished / _FAILED, str(error))
                    raise
                _finish(output, plan, tokenizer, entries, continued)
    except Timeout:
        raise StoreError("another process is preparing this store", where=str(output), do="wait for it") from None
    except OSError as error:
        raise write_error(error, output) from None
    return _finished_store(output, plan)


def _outside(folder: Path, files: list[str]) -> list[str]:
    """The files that are not the store's own: a folder of input may hold the output."""
    return [file for file in files if "://" in file or folder.resolve() not in Path(file).resolve().parents]


def _input(file: str) -> Input:
    try:
        if "://" not in file:
            return Input(file=file, bytes=os.path.getsize(file), sha256=file_sha256(Path(file)))
        fs, path = fsspec.core.url_to_fs(file)
        info = fs.info(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=file) from None
    version = json.dumps({key: str(value) for key, value in sorted(info.items()) if key.lower() in _VERSION_KEYS})
    return Input(file=file, bytes=info.get("size") or 0, sha256=hashlib.sha256(version.encode()).hexdigest())


_VERSION_KEYS = {"size", "etag", "mtime", "lastmodified", "last_modified", "md5hash", "sha256", "generation"}


def _finished_store(output: Path, plan: Plan) -> TokenStore:
    store = TokenStore.open(output)
    _same(store.manifest.plan, plan, output)
    shutil.rmtree(output / "unfinished", ignore_errors=True)  # a run may be killed just before its own clearing up
    return store


def _same(made: Plan, asked: Plan, output: Path) -> None:
    """StoreError unless both plans are the same, files known by their content and not their folder."""
    if made.tokenizer_hash != asked.tokenizer_hash:
        raise StoreError("the store was made with another tokenizer", where=str(output), do=_ELSE)
    if [(i.bytes, i.sha256) for i in made.inputs] != [(i.bytes, i.sha256) for i in asked.inputs]:
        changed = {i.sha256 for i in asked.inputs} ^ {i.sha256 for i in made.inputs}
        names = [i.file for i in [*asked.inputs, *made.inputs] if i.sha256 in changed]
        which = f": {names[0]}" if names else ""
        raise StoreError(f"the store was made from other input{which}", where=str(output), do=_ELSE)
    for field in ("text_column", "language", "drop_duplicates", "documents_per_shard"):
        if getattr(made, field) != getattr(asked, field):
            what = f"the store was made with {field}={getattr(made, field)!r}, not {getattr(asked, field)!r}"
            raise StoreError(what, where=str(output), do=_ELSE)


def _begin(unfinished: Path, plan: Plan, tokenizer: Tokenizer, output: Path) -> None:
    """Writes the plan, or checks it against that of the run which was interrupted.

    A run that its input or settings made fail may be followed by one with others, which begins anew.
    """
    path, failed = unfinished / "plan.json", unfinished / _FAILED
    if failed.exists() and (not path.exists() or path.read_text(encoding="utf-8") != plan.model_dump_json()):
        for file in (*unfinished.glob("*.json"), *output.glob("*.shard")):
            file.unlink()
    failed.unlink(missing_ok=True)
    if path.exists():
        try:
            made = Plan.parse(json.loads(path.read_text(encoding="utf-8")), where=str(path))
        except (ValueError, PluriError):
            raise StoreError("the plan of the unfinished store is damaged", where=str(path), do=_ELSE) from None
        return _same(made, plan, output)
    tokenizer.save(output / "tokenizer")
    write_text(path, plan.model_dump_json())


def _write_shards(
    files: list[str],
    plan: Plan,
    tokenizer: Tokenizer,
    output: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ShardEntry], int]:
    """Every shard that is not there yet. The entries of all, in order, and how many documents go on with another."""
    entries: list[ShardEntry] = []
    documents = tokens = continued = 0

    def finished(entry: ShardEntry) -> None:
        nonlocal documents, tokens
        entries.append(entry)
        documents, tokens = documents + entry.documents, tokens + entry.tokens
        if progress:
            progress(documents, tokens)

    def texts() -> Iterator[str]:
        nonlocal continued
        for record in itertools.chain.from_iterable(read_records(file, text_column=plan.text_column) for file in files):
            continued += record.continued
            if tokenizer.alphabet:
                tokenizer.alphabet.check(record.text, record.where)
            yield record.text

    todo = _todo(_parts(texts(), plan.documents_per_shard), output, finished)
    first = list(itertools.islice(todo, 2))
    if workers == 1 or len(first) < 2:  # one shard is not worth a process
        for part in itertools.chain(first, todo):
            finished(write_shard(part, tokenizer, output, plan.language))
    else:
        run_parts(itertools.chain(first, todo), workers, output, plan.language, finished)
    if not tokens:
        where = next(iter(files), str(output))
        raise DataError("there is no text in the input", where=where, do="check the files and the text column")
    return sorted(entries, key=lambda entry: (len(entry.name), entry.name)), continued


def _parts(texts: Iterator[str], most: int) -> Iterator[Part]:
    """The corpus in consecutive parts, one a shard. A function of the plan alone, so that a restart cuts alike."""
    number, part, size = 0, list[str](), 0
    for text in texts:
        part.append(text)
        size += len(text)
        if len(part) >= most or size >= CHARACTERS_PER_SHARD:
            yield number, part
            number, part, size = number + 1, [], 0
    if part:
        yield number, part


def _todo(parts: Iterator[Part], output: Path, finished: Callable[[ShardEntry], None]) -> Iterator[Part]:
    """The parts whose shards are not finished; `finished` is told of the others."""
    for number, texts in parts:
        entry = _finished_shard(output, number)
        if entry is None:
            yield number, texts
        else:
            finished(entry)


def _finished_shard(output: Path, number: int) -> ShardEntry | None:
    """What the sign of a finished shard says; None if there is none, or it or the shard is damaged."""
    try:
        sign = (output / "unfinished" / f"{number:05d}.json").read_text(encoding="utf-8")
        entry = ShardEntry.parse(json.loads(sign))
        return entry if (output / entry.name).stat().st_size == entry.bytes else None
    except (OSError, ValueError, PluriError):
        return None


def _finish(output: Path, plan: Plan, tokenizer: Tokenizer, entries: list[ShardEntry], continued: int) -> None:
    """Finds duplicates, writes the document index, the counts and, last, the manifest."""
    dtype = ids_dtype(tokenizer.vocab_size)
    shards = [Shard(output / entry.name, entry, dtype) for entry in entries]
    lengths = np.concatenate([shard.lengths for shard in shards])
    first = _first_of_their_text(np.concatenate([shard.hashes for shard in shards]))
    keep = first if plan.drop_duplicates else np.ones(len(lengths), bool)
    documents = np.stack([offsets_of(lengths)[:-1][keep], lengths[keep]], axis=1)
    counts = _unigram_counts(shards, keep, tokenizer.vocab_size)
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
        dtype=dtype.str,
        vocab_size=tokenizer.vocab_size,
        documents=len(documents),
        tokens=kept,
        shards=entries,
        ledger=ledger,
        plan=plan,
        sha256={name: file_sha256(output / name) for name in others},
    )
    write_text(output / "manifest.json", manifest.model_dump_json(indent=2))


def _first_of_their_text(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    first = np.zeros(len(hashes), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def _unigram_counts(shards: list[Shard], keep: NDArray[np.bool_], vocab_size: int) -> NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    begin = 0
    for shard in shards:
        kept = keep[begin : begin + len(shard.lengths)]
        begin += len(shard.lengths)
        ids = shard.ids if kept.all() else shard.ids[np.repeat(kept, shard.lengths)]
        counts += np.bincount(ids, minlength=vocab_size)
    return counts
