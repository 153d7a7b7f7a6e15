import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock

from pluri.errors import DataError, StoreError, UsageError
from pluri.tokens import shard, workers
from pluri.tokens.prepare import prepare
from pluri.tokens.store import Ledger, TokenStore
from pluri.tokens.training import train_tokenizer

TEXTS = [f"Document {i % 50} says {'much ' * (i % 7)}today. And {i % 50} more." for i in range(120)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "t.jsonl"
    path.write_text("".join(json.dumps({"text": text, "body": text.upper()}) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus, kind="char")


def content(store) -> dict[str, bytes]:
    """Every file of a store, but for the names of inputs in the manifest."""
    files = {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}
    return files


def test_the_number_of_workers_does_not_matter(corpus, tokenizer, tmp_path):
    for count in (1, 2, 3):
        prepare(corpus, tokenizer, tmp_path / str(count), workers=count, documents_per_shard=9)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")
    assert not (tmp_path / "2" / "unfinished").exists()
    assert len(TokenStore.open(tmp_path / "2").manifest.shards) == 14


def test_shards_change_nothing_that_is_read(corpus, tokenizer, tmp_path):
    def read(store):
        documents = store.gather(np.arange(store.num_documents), np.zeros(120, np.int64), store.document_lengths)
        return [store.tokenizer.decode(ids) for ids in np.split(documents.ids, documents.offsets[1:-1])]

    few = prepare(corpus, tokenizer, tmp_path / "few")
    many = prepare(corpus, tokenizer, tmp_path / "many", documents_per_shard=1, workers=1)
    assert read(few) == read(many) == TEXTS
    assert few.manifest.ledger == many.manifest.ledger


def test_the_ledger(tmp_path, tokenizer):
    texts = ["today.", "", "today. ", "much", "   ", "today.", "☃ more"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    kept = prepare(tmp_path / "t.jsonl", tokenizer, tmp_path / "all")
    common = {"documents": 7, "empty_documents": 1, "duplicate_documents": 2, "read": 32, "truncated": 0, "unk": 1}
    assert kept.manifest.ledger == Ledger(**common, kept=32, dropped=0)
    unique = prepare(tmp_path / "t.jsonl", tokenizer, tmp_path / "unique", drop_duplicates=True, documents_per_shard=2)
    assert unique.manifest.ledger == Ledger(**common, kept=19, dropped=13)
    assert (kept.num_documents, unique.num_documents) == (6, 4)
    read = unique.gather(np.arange(4), np.zeros(4, np.int64), unique.document_lengths)
    assert [unique.tokenizer.decode(i) for i in np.split(read.ids, read.offsets[1:-1])] == [
        "today.",
        "much",
        "   ",
        " more",
    ]
    assert unique.unigram_counts.sum() == unique.num_tokens == 19


def test_done_it_does_nothing(corpus, tokenizer, tmp_path, monkeypatch):
    prepare(corpus, tokenizer, tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    monkeypatch.setattr("pluri.tokens.prepare.read_records", lambda *_, **__: 1 / 0)
    prepare(corpus, tokenizer, tmp_path / "s")
    moved = tmp_path / "elsewhere.jsonl"
    shutil.copy(corpus, moved)
    prepare(moved, tokenizer, tmp_path / "s")  # the same content under another name
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before


def test_after_a_wrong_setting_the_right_one_begins_anew(corpus, tokenizer, tmp_path):
    with pytest.raises(DataError, match="no column 'absent'"):
        prepare(corpus, tokenizer, tmp_path / "s", text_column="absent")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(corpus.read_text() + "{")
    with pytest.raises(DataError, match="not valid JSON"):
        prepare(broken, tokenizer, tmp_path / "s", documents_per_shard=1, workers=1)
    prepare(corpus, tokenizer, tmp_path / "s")
    prepare(corpus, tokenizer, tmp_path / "other")
    assert content(tmp_path / "s") == content(tmp_path / "other")


@pytest.mark.parametrize("state", ["done", "unfinished"])
def test_another_plan_is_refused(corpus, tokenizer, tmp_path, state, monkeypatch):
    output = tmp_path / "s"
    if state == "unfinished":
        monkeypatch.setattr("pluri.tokens.prepare.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, tokenizer, output)
    else:
        prepare(corpus, tokenizer, output)
    before = content(output)
    other = train_tokenizer(corpus, kind="char", vocab_size=20)
    with pytest.raises(StoreError, match="another tokenizer"):
        prepare(corpus, other, output)
    changed = tmp_path / "t.jsonl"
    changed.write_text(corpus.read_text().replace("today", "todaY"))
    with pytest.raises(StoreError, match=r"other input: .*t\.jsonl"):
        prepare(changed, tokenizer, output)
    with pytest.raises(StoreError, match="text_column='text', not 'body'"):
        prepare(corpus, tokenizer, output, text_column="body")
    with pytest.raises(StoreError, match="drop_duplicates=False, not True"):
        prepare(corpus, tokenizer, output, drop_duplicates=True)
    assert content(output) == before


KILLED = """
import sys, time
from pluri.tokens import workers
from pluri.tokens.prepare import prepare
write = workers.write_shard
if sys.argv[3] == "1":  # slowed down, so that there is something to kill
    import pluri.tokens.prepare as module
    module.write_shard = lambda *a, **k: (time.sleep(0.01), write(*a, **k))[1]
prepare(sys.argv[1], sys.argv[2] + "/tokenizer", sys.argv[2] + "/s", workers=int(sys.argv[3]), documents_per_shard=5,
        progress=lambda documents, tokens: print(documents, flush=True))
"""


@pytest.mark.parametrize("count", ["1", "2"])
def test_killed_at_any_moment_it_goes_on(corpus, tokenizer, tmp_path, count):
    tokenizer.save(tmp_path / "tokenizer")
    expected = content(prepare(corpus, tokenizer, tmp_path / "whole", workers=1, documents_per_shard=5).path)
    chance = random.Random(int(count))
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(corpus), str(tmp_path), count], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        lines = 1 + kills * 3 + chance.randrange(2)
        for _ in range(lines):
            if not process.stdout.readline():
                break
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if (tmp_path / "s" / "manifest.json").exists():
            break
        with pytest.raises(StoreError, match=r"unfinished.*run the same prepare again"):
            TokenStore.open(tmp_path / "s")
    assert kills
    done = len(list((tmp_path / "s" / "unfinished").glob("0*.json")))
    assert done
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("*.shard")}
    signs = {p.stem for p in (tmp_path / "s" / "unfinished").glob("0*.json")}
    prepare(corpus, tokenizer, tmp_path / "s", workers=1, documents_per_shard=5)
    assert content(tmp_path / "s") == expected
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("*.shard")}
    assert all(after[f"{name}.shard"] == before[f"{name}.shard"] for name in signs)  # finished shards are not redone


def test_workers_end_with_a_killed_parent(corpus, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    script = KILLED.replace("print(documents, flush=True)", "(print('x', flush=True), time.sleep(60))")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(corpus), str(tmp_path), "2"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    pids = [int(pid) for pid in children.stdout.split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_finished_shard_that_was_cut_is_made_again(corpus, tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pluri.tokens.prepare.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, tokenizer, tmp_path / "s", documents_per_shard=50, workers=1)
    path = tmp_path / "s" / "00000-00001.shard"
    path.write_bytes(path.read_bytes()[:100])
    prepare(corpus, tokenizer, tmp_path / "s", documents_per_shard=50, workers=1).verify()


def test_two_at_once(corpus, tokenizer, tmp_path):
    (tmp_path / "s" / "unfinished").mkdir(parents=True)
    with FileLock(tmp_path / "s" / "unfinished" / "lock"), pytest.raises(StoreError, match="another process"):
        prepare(corpus, tokenizer, tmp_path / "s")
    prepare(corpus, tokenizer, tmp_path / "s").verify()


@pytest.mark.parametrize("count", [1, 2])
def test_bad_input_in_the_middle_keeps_what_is_written(corpus, tokenizer, tmp_path, count):
    bad = tmp_path / "z.jsonl"
    bad.write_text(corpus.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"z\.jsonl:121: not valid JSON"):
        prepare([corpus, bad], tokenizer, tmp_path / "s", documents_per_shard=20, workers=count)
    assert list((tmp_path / "s").glob("*.shard"))


def test_disk_full(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shard.ShardWriter, "_write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    )
    with pytest.raises(StoreError, match="No space left on device; free space"):
        prepare(corpus, tokenizer, tmp_path / "s", workers=1)
    assert not list((tmp_path / "s").rglob("*.tmp"))
    monkeypatch.undo()
    prepare(corpus, tokenizer, tmp_path / "s", workers=1).verify()


def test_really_full(corpus, tokenizer, tmp_path):
    """A limit on file size stands for a full disk: the error comes from the system, inside a worker."""
    tokenizer.save(tmp_path / "tokenizer")
    limit = (tmp_path / "tokenizer" / "tokenizer.json").stat().st_size + 200
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from pluri.tokens.prepare import prepare; from pluri.errors import StoreError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "folder = sys.argv[2]\n"
        "try: prepare(sys.argv[1], folder + '/tokenizer', folder + '/s', workers=2, documents_per_shard=100)\n"
        "except StoreError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(corpus), str(tmp_path)], capture_output=True, text=True)
    assert "cannot write" in result.stdout, result.stderr
    assert result.stdout.count("\n") == 1


def test_a_worker_that_dies(corpus, tokenizer, tmp_path, monkeypatch):
    start = workers._start

    def doomed(*settings):
        process = start(*settings)
        process.kill()
        return process

    monkeypatch.setattr(workers, "_start", doomed)
    with pytest.raises(StoreError, match="a worker process ended with code -9"):
        prepare(corpus, tokenizer, tmp_path / "s", workers=2, documents_per_shard=20)


def test_a_folder_that_may_not_be_written(corpus, tokenizer, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        prepare(corpus, tokenizer, tmp_path / "file" / "s")


def test_a_folder_with_other_things(corpus, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="no token store"):
        prepare(corpus, tokenizer, corpus.parent)
    with pytest.raises(UsageError, match="no token store"):
        prepare(corpus, tokenizer, corpus)
    assert [path.name for path in corpus.parent.iterdir()] == ["t.jsonl"]


@pytest.mark.parametrize("url", ["s3://bucket/store", "s3:/bucket/store"])  # the second is what a Path makes of it
def test_a_url_is_no_folder(corpus, tokenizer, url):
    with pytest.raises(UsageError, match=f"{url}: a store is prepared in a folder"):
        prepare(corpus, tokenizer, url)


@pytest.mark.parametrize("text", ["", "\n", "​"])
def test_no_text(tokenizer, tmp_path, text):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": text}) + "\n")
    if text:
        store = prepare(tmp_path / "t.jsonl", tokenizer, tmp_path / "s")
        assert store.num_tokens == 1
    else:
        with pytest.raises(DataError, match="no text"):
            prepare(tmp_path / "t.jsonl", tokenizer, tmp_path / "s")


def test_progress(corpus, tokenizer, tmp_path):
    seen = []
    prepare(corpus, tokenizer, tmp_path / "s", documents_per_shard=50, progress=lambda *done: seen.append(done))
    assert [documents for documents, _ in seen][-1] == 120
    assert seen[-1][1] == sum(map(len, TEXTS))


@pytest.mark.parametrize("options", [{"workers": 0}, {"documents_per_shard": 0}])
def test_impossible_options(corpus, tokenizer, tmp_path, options):
    with pytest.raises(UsageError):
        prepare(corpus, tokenizer, tmp_path / "s", **options)


@pytest.mark.parametrize("count", [1, 2])
def test_parts_of_a_long_document_are_in_the_ledger(tokenizer, tmp_path, monkeypatch, count):
    monkeypatch.setattr("pluri.sequences.lines.PIECE", 100)
    monkeypatch.setattr("pluri.sequences.readers.PIECE", 100)
    (tmp_path / "t.txt").write_text("much more today. " * 20 + "\nmuch\n")
    store = prepare(tmp_path / "t.txt", tokenizer, tmp_path / "s", workers=count, documents_per_shard=2)
    ledger = store.manifest.ledger
    assert ledger.documents == store.num_documents == ledger.continued_documents + 2
    assert ledger.continued_documents == 3


def test_the_store_may_lie_among_its_input(corpus, tokenizer, tmp_path):
    shutil.copy(corpus, tmp_path / "t.jsonl")
    made = prepare(tmp_path, tokenizer, tmp_path / "store")
    (tmp_path / "store" / "notes.txt").write_text("not of the corpus")
    assert prepare(tmp_path, tokenizer, tmp_path / "store").manifest == made.manifest


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]"])
def test_a_damaged_sign_of_a_finished_shard_makes_it_again(corpus, tokenizer, tmp_path, monkeypatch, damage):
    monkeypatch.setattr("pluri.tokens.prepare.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tokenizer, tmp_path / "s", documents_per_shard=40, workers=1)
    monkeypatch.undo()
    (tmp_path / "s" / "unfinished" / "00000-00001.json").write_text(damage)
    prepare(corpus, tokenizer, tmp_path / "s", documents_per_shard=40, workers=1).verify()
