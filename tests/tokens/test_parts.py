"""Preparing in parts, on as many machines as one likes: the store is that of one process, byte for byte."""

import json
import os
import random
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.errors import StoreError, UsageError
from pluri.tokens import parts
from pluri.tokens import prepare as preparing
from pluri.tokens.prepare import merge_parts, prepare, prepare_part
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

SIZES = (3, 40, 2, 2, 90, 1, 11)  # documents of each file


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(parts, "GROUP_BYTES", 700)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for name, size in zip("abcdefg", SIZES, strict=True):
        texts = (f"Document {name} {i % 30} says {'much ' * (i % 7)}today. And {i} more." for i in range(size))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus, kind="char")


@pytest.fixture
def whole(corpus, tokenizer, tmp_path):
    return content(prepare(corpus, tokenizer, tmp_path / "whole", workers=1, documents_per_shard=8).path)


def content(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def run_part(part, corpus, tokenizer, output, workers=1):
    prepare_part(part, corpus, tokenizer, output, workers=workers, documents_per_shard=8)


@pytest.mark.parametrize("of", [1, 3, 7])
def test_any_number_of_parts_gives_the_store_of_one_process(corpus, tokenizer, tmp_path, whole, of):
    order = [f"{part}/{of}" for part in range(1, of + 1)]
    random.Random(of).shuffle(order)
    for part in order:
        run_part(part, corpus, tokenizer, tmp_path / "s", workers=2 if part == "2/3" else 1)
    made = merge_parts(tmp_path / "s")
    assert content(made.path) == whole
    assert len(made.manifest.shards) == 20
    made.verify()
    run_part(order[0], corpus, tokenizer, tmp_path / "s")  # there is nothing left to do
    assert content(merge_parts(tmp_path / "s").path) == whole


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.integers(1, 9))
def test_each_shard_has_one_writer(sizes, of):
    dealt = [parts.shares(sizes, part, of) for part in range(1, of + 1)]
    for group, files in enumerate(parts.groups(sizes)):
        mine = [share for shares in dealt for share in shares if share.group == group]
        assert {share.files for share in mine} == {files}
        for shard in range(12):
            assert [shard % share.of == share.rank for share in mine].count(True) == 1
            assert 1 <= parts.writer_of(group, shard, sizes, of) <= of
    assert [i for files in parts.groups(sizes) for i in files] == list(range(len(sizes)))


def test_a_part_reads_its_own_files_alone(corpus, tokenizer, tmp_path, monkeypatch):
    seen = []
    read = preparing.read_records
    monkeypatch.setattr(
        preparing, "read_records", lambda file, **more: [seen.append(file[-7]), *read(file, **more)][1:]
    )
    run_part("1/4", corpus, tokenizer, tmp_path / "s")
    assert set(seen) < set("abcd")


def test_a_killed_part_is_given_again(corpus, tokenizer, tmp_path, whole, monkeypatch):
    output = tmp_path / "s"
    child = os.fork()
    if not child:
        write, done = preparing.write_shard, []

        def killed(*given):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(write(*given))
            return done[-1]

        monkeypatch.setattr(preparing, "write_shard", killed)
        run_part("2/3", corpus, tokenizer, output)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    written = {path.name: path.stat().st_mtime_ns for path in output.glob("*.shard")}
    assert len(written) == 2
    for part in ("1/3", "3/3"):
        run_part(part, corpus, tokenizer, output)
    with pytest.raises(StoreError, match=r"1 of 3 parts are missing: 2/3; run them.* --part 2/3"):
        merge_parts(output)
    run_part("2/3", corpus, tokenizer, output)
    assert {name: (output / name).stat().st_mtime_ns for name in written} == written  # finished shards are not redone
    assert content(merge_parts(output).path) == whole


def test_missing_parts_and_shards_are_named(corpus, tokenizer, tmp_path, whole):
    output = tmp_path / "s"
    with pytest.raises(StoreError, match="no token store here"):
        merge_parts(output)
    run_part("4/7", corpus, tokenizer, output)
    with pytest.raises(StoreError, match=r"6 of 7 parts are missing: 1/7, 2/7, 3/7, 5/7, 6/7, 7/7"):
        merge_parts(output)
    for part in (1, 2):  # another number of parts is another way to the same store
        run_part(f"{part}/2", corpus, tokenizer, output)
    gone = sorted(output.glob("*.shard"))[-1]
    gone.unlink()
    with pytest.raises(StoreError, match=rf"the shard {gone.stem} is missing or damaged; run the part 2/2 again"):
        merge_parts(output)
    run_part("2/2", corpus, tokenizer, output)
    assert content(merge_parts(output).path) == whole


def test_one_process_goes_on_with_what_parts_left(corpus, tokenizer, tmp_path, whole):
    run_part("2/3", corpus, tokenizer, tmp_path / "s")
    with pytest.raises(StoreError, match=r"unfinished.*pluri merge"):
        TokenStore.open(tmp_path / "s")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*.shard")}
    made = prepare(corpus, tokenizer, tmp_path / "s", workers=1, documents_per_shard=8)
    assert content(made.path) == whole
    assert before == {name: (made.path / name).stat().st_mtime_ns for name in before}


def test_parts_of_other_input_or_settings_are_refused(corpus, tokenizer, tmp_path):
    run_part("1/2", corpus, tokenizer, tmp_path / "s")
    with pytest.raises(StoreError, match=r"other input: .*g\.jsonl"):
        prepare_part("2/2", sorted(corpus.iterdir())[:-1], tokenizer, tmp_path / "s", documents_per_shard=8)
    with pytest.raises(StoreError, match="documents_per_shard=8, not 9"):
        prepare_part("2/2", corpus, tokenizer, tmp_path / "s", documents_per_shard=9)


def test_a_file_that_changed_between_two_parts(tokenizer, tmp_path):
    file = tmp_path / "t.txt"
    for part, word in (("1/2", "one"), ("2/2", "two")):
        file.write_text(f"today {word}\n" * 400)
        prepare_part(part, file, tokenizer, tmp_path / "s", documents_per_shard=100, workers=1)
    with pytest.raises(StoreError, match="a file was changed between two parts"):
        merge_parts(tmp_path / "s")


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/2/3", "-1/3", ""])
def test_what_is_no_part(corpus, tokenizer, tmp_path, part):
    with pytest.raises(UsageError, match="is no part"):
        run_part(part, corpus, tokenizer, tmp_path / "s")
