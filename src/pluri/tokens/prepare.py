"""Preparing a corpus: readers, tokenizer and processes put together into a token store."""

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pluri.errors import DataError, PluriError, StoreError, UsageError
from pluri.sequences import expand, read_records
from pluri.tokens.finish import finish
from pluri.tokens.parts import (
    GroupRead,
    PartDone,
    Share,
    all_done,
    done_path,
    parse_part,
    shard_name,
    shares,
    writer_of,
)
from pluri.tokens.plan import OTHERWISE, Input, Plan, check_same, hashed_input, sized_input
from pluri.tokens.shard import ShardEntry
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.workers import Part, run_parts, write_error, write_shard, write_text

CHARACTERS_PER_SHARD = 1 << 23
"""A shard is closed at this size: what a worker holds at once, and what is lost when it is killed."""

_FAILED = "failed"
"""The sign, among what is unfinished, that the input or the settings were at fault and not a kill."""

Progress = Callable[[int, int], None]
Sources = Iterable[str | Path] | str | Path


class _Work(NamedTuple):
    output: Path
    plan: Plan
    tokenizer: Tokenizer
    workers: int
    progress: Progress | None

    def shares(self, part: int = 1, of: int = 1) -> list[Share]:
        return shares([each.bytes for each in self.plan.inputs], part, of)


def prepare(
    sources: Sources,
    tokenizer: Tokenizer | str | Path,
    output: str | Path,
    *,
    workers: int | None = None,
    text_column: str = "text",
    language: str = "en",
    drop_duplicates: bool = False,
    documents_per_shard: int = 65_536,
    progress: Progress | None = None,
) -> TokenStore:
    """Encodes files, folders, globs or URLs (sequences.expand) into a token store.

    tokenizer: a Tokenizer or its folder. workers: processes; None = one a core.
    language: ISO 639-1, for sentence boundaries. drop_duplicates: keep only the first of documents with the same text.
    progress: told after each shard how many documents and tokens are done.
    Killed, it goes on where it was when called again in the same way; done, it returns the store at once.
    StoreError: the output holds another store (other tokenizer, input or settings), is being written by another
    process, or cannot be written. UsageError, DataError: as read_records.
    """
    work = _work(
        sources,
        tokenizer,
        output,
        hashed_input,
        workers=workers,
        text_column=text_column,
        language=language,
        drop_duplicates=drop_duplicates,
        documents_per_shard=documents_per_shard,
        progress=progress,
    )
    output, finished = work.output, work.output / "manifest.json"
    if finished.exists():
        return _finished_store(output, work.plan)
    with _writing(output, "lock", seconds=2):  # a worker that a killed run was just starting may hold it yet
        if not finished.exists():
            _begin(work)
            try:
                entries, read = _write_shards(work, work.shares())
                finish(output, work.plan, work.tokenizer, entries, sum(each.continued for each in read))
            except (DataError, UsageError) as error:
                write_text(output / "unfinished" / _FAILED, str(error))
                raise
    return _finished_store(output, work.plan)


def prepare_part(
    part: str, sources: Sources, tokenizer: Tokenizer | str | Path, output: str | Path, **settings: Any
) -> None:
    """One of the parts, such as "3/8", into which `prepare` is cut. settings: those of `prepare`.

    Parts run on any machines that share the input and the output, in any order, at once or not; then `merge_parts`
    makes the store. A part that was killed or failed is called again. Each reads only its own files, and knows those
    of the others by their sizes.
    """
    number, of = parse_part(part)
    work = _work(sources, tokenizer, output, sized_input, **settings)
    if (work.output / "manifest.json").exists():
        return check_same(TokenStore.open(work.output).manifest.plan, work.plan, work.output)
    with _writing(work.output, "lock", seconds=60):  # all parts may begin at the same moment
        _begin(work)
    with _writing(work.output, f"part-{number}-of-{of}.lock", seconds=2):
        mine = work.shares(number, of)
        hashes = {i: hashed_input(work.plan.inputs[i].file).sha256 for share in mine for i in share.files}
        _, read = _write_shards(work, mine, hashes)
        write_text(done_path(work.output, number, of), PartDone(groups=read).model_dump_json())


def merge_parts(output: str | Path) -> TokenStore:
    """The store of what all parts wrote (`prepare_part`), byte for byte that of `prepare`; at once if it is there.

    StoreError: parts or shards are missing, and which. DataError: there is no text in any of them.
    """
    output = Path(output)
    if not (output / "manifest.json").exists() and (output / "unfinished" / "plan.json").exists():
        with _writing(output, "lock", seconds=2):
            plan = _made_plan(output)
            read, of = all_done(output)
            hashes = itertools.chain.from_iterable(each.sha256 for each in read)
            inputs = [each.model_copy(update={"sha256": next(hashes)}) for each in plan.inputs]
            entries: list[ShardEntry] = []
            for each in read:
                for shard in range(each.shards):
                    entry = _finished_shard(output, shard_name(each.group, shard))
                    if entry is None:
                        what = f"the shard {shard_name(each.group, shard)} is missing or damaged"
                        part = writer_of(each.group, shard, [file.bytes for file in inputs], of)
                        raise StoreError(what, where=str(output), do=f"run the part {part}/{of} again")
                    entries.append(entry)
            plan = plan.model_copy(update={"inputs": inputs})
            tokenizer = Tokenizer.load(output / "tokenizer")
            finish(output, plan, tokenizer, entries, sum(each.continued for each in read))
        shutil.rmtree(output / "unfinished", ignore_errors=True)
    return TokenStore.open(output)


def _work(
    sources: Sources,
    tokenizer: Tokenizer | str | Path,
    output: str | Path,
    look: Callable[[str], Input],
    *,
    workers: int | None = None,
    text_column: str = "text",
    language: str = "en",
    drop_duplicates: bool = False,
    documents_per_shard: int = 65_536,
    progress: Progress | None = None,
) -> _Work:
    """What there is to do. look: what to know of a file."""
    if re.match(r"\w{2,}:/", str(output)):
        raise UsageError("a store is prepared in a folder", where=str(output), do="name one, and copy it there later")
    output = Path(output)
    if documents_per_shard < 1 or (workers is not None and workers < 1):
        raise UsageError("workers and documents_per_shard must be at least 1")
    tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer)
    # A folder of input may hold the output, whose own files are none of the input.
    own = output.resolve()
    files = [file for file in expand(sources) if "://" in file or own not in Path(file).resolve().parents]
    plan = Plan(
        tokenizer_hash=tokenizer.hash,
        inputs=[look(file) for file in files],
        text_column=text_column,
        language=language,
        drop_duplicates=drop_duplicates,
        documents_per_shard=documents_per_shard,
    )
    return _Work(output, plan, tokenizer, workers or os.cpu_count() or 1, progress)


@contextlib.contextmanager
def _writing(output: Path, lock: str, *, seconds: float) -> Iterator[None]:
    """Makes output/unfinished and holds a lock there. StoreError: another process holds it, or the disk is full."""
    unfinished = output / "unfinished"
    if output.exists() and not unfinished.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError("is there already and no token store", where=str(output), do="choose another output")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished / lock, timeout=seconds):
            yield
    except Timeout:
        raise StoreError("another process is preparing this store", where=str(output), do="wait for it") from None
    except OSError as error:
        raise write_error(error, output) from None


def _finished_store(output: Path, plan: Plan) -> TokenStore:
    store = TokenStore.open(output)
    check_same(store.manifest.plan, plan, output)
    shutil.rmtree(output / "unfinished", ignore_errors=True)  # a run may be killed just before its own clearing up
    return store


def _begin(work: _Work) -> None:
    """Writes the plan, or checks it against that of the run which was interrupted.

    A run that its input or settings made fail may be followed by one with others, which begins anew.
    """
    unfinished = work.output / "unfinished"
    path, failed = unfinished / "plan.json", unfinished / _FAILED
    if failed.exists() and (not path.exists() or path.read_text(encoding="utf-8") != work.plan.model_dump_json()):
        for file in (*unfinished.glob("*.json"), *work.output.glob("*.shard")):
            file.unlink()
    failed.unlink(missing_ok=True)
    if path.exists():
        return check_same(_made_plan(work.output), work.plan, work.output)
    work.tokenizer.save(work.output / "tokenizer")
    write_text(path, work.plan.model_dump_json())


def _made_plan(output: Path) -> Plan:
    path = output / "unfinished" / "plan.json"
    try:
        return Plan.parse(json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (ValueError, PluriError):
        raise StoreError("the plan of the unfinished store is damaged", where=str(path), do=OTHERWISE) from None


def _write_shards(
    work: _Work, mine: list[Share], hashes: dict[int, str] | None = None
) -> tuple[list[ShardEntry], list[GroupRead]]:
    """Every shard of these shares that is not there yet. The entries of all, and what was read of each group."""
    entries, read = list[ShardEntry](), list[GroupRead]()
    documents = tokens = 0

    def finished(entry: ShardEntry) -> None:
        nonlocal documents, tokens
        entries.append(entry)
        documents, tokens = documents + entry.documents, tokens + entry.tokens
        if work.progress:
            work.progress(documents, tokens)

    def todo() -> Iterator[Part]:
        for share in mine:
            texts = _Texts(work, share.files)
            shards = 0
            for number, part in enumerate(_cut(texts, work.plan.documents_per_shard)):
                shards = number + 1
                if number % share.of != share.rank:
                    continue
                name = shard_name(share.group, number)
                entry = _finished_shard(work.output, name)
                if entry is None:
                    yield name, part
                else:
                    finished(entry)
            sha256 = [hashes[i] for i in share.files] if hashes else []
            read.append(GroupRead(group=share.group, shards=shards, continued=texts.continued, sha256=sha256))

    parts = todo()
    first = list(itertools.islice(parts, 2))
    parts = itertools.chain(first, parts)
    if work.workers == 1 or len(first) < 2:  # one shard is not worth a process
        for part in parts:
            finished(write_shard(part, work.tokenizer, work.output, work.plan.language))
    else:
        run_parts(parts, work.workers, work.output, work.plan.language, finished)
    return entries, read


class _Texts:
    """The texts of some of the files. continued: how many so far go on with another."""

    def __init__(self, work: _Work, files: range) -> None:
        self._work, self._files, self.continued = work, [work.plan.inputs[i].file for i in files], 0

    def __iter__(self) -> Iterator[str]:
        alphabet, column = self._work.tokenizer.alphabet, self._work.plan.text_column
        for record in itertools.chain.from_iterable(read_records(file, text_column=column) for file in self._files):
            self.continued += record.continued
            if alphabet:
                alphabet.check(record.text, record.where)
            yield record.text


def _cut(texts: Iterable[str], most: int) -> Iterator[list[str]]:
    """Consecutive texts, shard by shard. A function of the plan alone, so that a restart cuts alike."""
    part, size = list[str](), 0
    for text in texts:
        part.append(text)
        size += len(text)
        if len(part) >= most or size >= CHARACTERS_PER_SHARD:
            yield part
            part, size = [], 0
    if part:
        yield part


def _finished_shard(output: Path, name: str) -> ShardEntry | None:
    """What the sign of a finished shard says; None if there is none, or it or the shard is damaged."""
    try:
        sign = (output / "unfinished" / f"{name}.json").read_text(encoding="utf-8")
        entry = ShardEntry.parse(json.loads(sign))
        return entry if (output / entry.name).stat().st_size == entry.bytes else None
    except (OSError, ValueError, PluriError):
        return None
