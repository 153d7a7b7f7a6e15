"""How a corpus is cut so that machines can share the work: groups of files, and of each group who writes which shard.

A shard never crosses the border of a group, and groups follow from the files alone. So a machine reads its own groups
and no others, and whoever writes a shard writes the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pluri.config import Config
from pluri.errors import PluriError, StoreError, UsageError
from pluri.tokens.plan import OTHERWISE

GROUP_BYTES = 1 << 28
"""A group of files is closed at this size: few enough shards that several machines may share one, at little waste."""


class Share(NamedTuple):
    """Of a group of files the shards whose number leaves `rank` when divided by `of`."""

    group: int
    files: range
    rank: int
    of: int


class GroupRead(Config):
    """A group of files, read to its end. continued: records that go on with another. sha256: of each of its files."""

    group: int
    shards: int
    continued: int
    sha256: list[str]


class PartDone(Config):
    """What a part leaves when it is done, as unfinished/part-I-of-N.json."""

    groups: list[GroupRead]


def parse_part(part: str) -> tuple[int, int]:
    """(3, 8) of "3/8". UsageError: it is no part."""
    number, _, of = part.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"{part!r} is no part", where="part", do="give such as 1/8, and count from 1 to 8")
    return int(number), int(of)


def groups(sizes: Sequence[int]) -> list[range]:
    """Files, by their bytes, in groups of neighbours: closed as soon as they have GROUP_BYTES."""
    found, first, size = list[range](), 0, 0
    for last, each in enumerate(sizes, 1):
        size += each
        if size >= GROUP_BYTES or last == len(sizes):
            found.append(range(first, last))
            first, size = last, 0
    return found


def shares(sizes: Sequence[int], part: int, of: int) -> list[Share]:
    """What part `part` of `of` (from 1) does.

    All bytes stand in a row that is cut into `of` equal stretches; a group belongs to the parts whose stretches it
    touches, and these take its shards in turn. Thus a few large files are shared, and many small ones dealt out.
    """
    whole = [(files, sum(max(sizes[i], 1) for i in files)) for files in groups(sizes)]
    total, begin, found = sum(size for _, size in whole), 0, list[Share]()
    for number, (files, size) in enumerate(whole):
        first, last = begin * of // total, ((begin + size) * of - 1) // total
        if first <= part - 1 <= last:
            found.append(Share(number, files, part - 1 - first, last - first + 1))
        begin += size
    return found


def shard_name(group: int, shard: int) -> str:
    return f"{group:05d}-{shard:05d}"


def writer_of(group: int, shard: int, sizes: Sequence[int], of: int) -> int:
    """Which part of `of`, from 1, writes this shard."""
    mine = ((part, share) for part in range(1, of + 1) for share in shares(sizes, part, of))
    return next(part for part, share in mine if share.group == group and shard % share.of == share.rank)


def done_path(output: Path, part: int, of: int) -> Path:
    return output / "unfinished" / f"part-{part}-of-{of}.json"


def all_done(output: Path) -> tuple[list[GroupRead], int]:
    """Every group in order, and the number of parts. StoreError names parts that are missing, or read other files."""
    cuts = sorted({int(path.stem.rpartition("-")[2]) for path in (output / "unfinished").glob("part-*-of-*.json")})
    if not cuts:
        raise StoreError("no part is done", where=str(output), do="run all parts: pluri prepare ... --part 1/N to N/N")
    found = {of: [_done(done_path(output, part, of)) for part in range(1, of + 1)] for of in cuts}
    of = min(cuts, key=lambda of: found[of].count(None))  # a number of parts that was given up may have left some
    missing = [f"{part}/{of}" for part, done in enumerate(found[of], 1) if done is None]
    if missing:
        what = f"{len(missing)} of {of} parts are missing: {', '.join(missing[:8])}" + ", ..." * (len(missing) > 8)
        raise StoreError(what, where=str(output), do=f"run them, such as pluri prepare ... --part {missing[0]}")
    groups: dict[int, GroupRead] = {}
    for each in (group for done in found[of] if done for group in done.groups):
        if groups.setdefault(each.group, each) != each:
            raise StoreError("a file was changed between two parts", where=str(output), do=OTHERWISE)
    return [groups[number] for number in sorted(groups)], of


def _done(path: Path) -> PartDone | None:
    """None if the part is not done, or what it left is damaged."""
    try:
        return PartDone.parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, PluriError):
        return None
