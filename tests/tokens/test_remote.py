"""Stores behind a URL: fetched shard by shard into a cache that processes share, and checked."""

import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pluri.batches.loader import Batches
from pluri.batches.mixture import Mixture
from pluri.errors import StoreError, UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.tokens.cache import Cache
from pluri.tokens.joined import open_stores
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.journal import read_journal

SHARDS = 12


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> TokenStore:
    folder = tmp_path_factory.mktemp("local")
    lines = [f"River {i} runs {'deep ' * (i % 9)}to the bank. It is {i % 7} old." for i in range(10 * SHARDS)]
    (folder / "t.txt").write_text("\n".join(lines))
    tokenizer = train_tokenizer(folder / "t.txt", kind="char")
    return prepare(folder / "t.txt", tokenizer, folder / "store", documents_per_shard=10, workers=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLURI_CACHE", str(tmp_path))
    return tmp_path / "pluri-stores"


@pytest.fixture
def url(local):
    fs = fsspec.filesystem("memory")
    fs.put(f"{local.path}/", "/bucket/store", recursive=True)
    yield "memory://bucket/store"
    fs.rm("/bucket", recursive=True)


def everything(store: TokenStore):
    count = store.num_documents
    return store.gather(np.arange(count), np.zeros(count, np.int64), store.document_lengths)


def in_cache(cache: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in cache.rglob(pattern))


def test_what_is_read_is_what_the_folder_has(local, url, cache):
    store = TokenStore.open(url)
    assert store.remote
    assert (store.hash, store.where) == (local.hash, url)
    assert in_cache(cache, "*.shard") == []  # opening fetches the index alone
    assert store.tokenizer.hash == local.tokenizer.hash
    one = store.gather(np.array([35]), np.array([2]), np.array([9]))
    np.testing.assert_array_equal(one.ids, local.gather(np.array([35]), np.array([2]), np.array([9])).ids)
    assert in_cache(cache, "*.shard") == ["00000-00003.shard"]
    np.testing.assert_array_equal(everything(store).ids, everything(local).ids)
    where = np.arange(len(local.document_lengths)), np.zeros_like(local.document_lengths), local.document_lengths
    np.testing.assert_array_equal(store.sentence_starts(*where).ids, local.sentence_starts(*where).ids)
    store.verify()
    assert in_cache(cache, "*.tmp") == []


def counted(monkeypatch) -> list[str]:
    """The files that are fetched from now on."""
    fs, fetched = fsspec.filesystem("memory"), list[str]()
    get = fs.get_file

    def slow(remote, *rest, **more):
        fetched.append(remote.rpartition("/")[2])
        time.sleep(0.01)
        return get(remote, *rest, **more)

    monkeypatch.setattr(fs, "get_file", slow)
    return fetched


def test_what_is_in_the_cache_is_fetched_once_for_all(url, monkeypatch):
    fetched = counted(monkeypatch)
    stores = [TokenStore.open(url) for _ in range(4)]  # as four processes would
    threads = [threading.Thread(target=everything, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == len(set(fetched)) == SHARDS + 2


def test_shards_are_fetched_ahead(url, cache, monkeypatch):
    store = TokenStore.open(url)
    store.fetch_ahead(np.arange(0, 60))
    deadline = time.monotonic() + 10
    while len(in_cache(cache, "*.shard")) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_cache(cache, "*.shard") == [f"00000-{i:05d}.shard" for i in range(6)]
    fetched = counted(monkeypatch)
    store.gather(np.arange(60), np.zeros(60, np.int64), store.document_lengths[:60])
    assert fetched == []


def batches(store: TokenStore) -> Batches:
    return Batches(StoreExamples(store, ObjectiveConfig(), length=48, seed=1), batch_tokens=600, length=48, seed=1)


def test_a_stream_fetches_before_the_step_that_needs_it(url, cache):
    stream = batches(TokenStore.open(url)).stream(0)
    next(stream)
    deadline = time.monotonic() + 10
    while len(in_cache(cache, "*.shard")) < SHARDS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(in_cache(cache, "*.shard")) == SHARDS
    stream.close()


def test_batches_of_mixed_remote_stores_are_a_function_of_the_step(local, url):
    def mixed(*places) -> Batches:
        joined = open_stores(dict(zip("ab", places, strict=True)))
        half = local.num_documents
        parts = [np.arange(half), np.arange(half, 2 * half, 3)]
        sources = [
            StoreExamples(joined, ObjectiveConfig(), length=48, seed=i, documents=part) for i, part in enumerate(parts)
        ]
        return Batches(Mixture(sources, alpha=0.3, seed=5), batch_tokens=600, length=48, seed=5)

    here, there = mixed(local.path, local.path), mixed(url, local.path)
    assert there.source.remote  # pyright: ignore[reportAttributeAccessIssue]
    for step in (40, 3, 17):
        np.testing.assert_array_equal(there[step].input_ids, here[step].input_ids)
    stream = there.stream(17, workers=2)
    np.testing.assert_array_equal(next(stream).input_ids, here[17].input_ids)
    np.testing.assert_array_equal(next(stream).input_ids, here[18].input_ids)
    stream.close()


@pytest.mark.parametrize("began", [0, 2])
def test_pretraining_on_a_url_loses_nothing_when_a_shard_is_missing(local, url, cache, tmp_path, began):
    def run(store, name, **options):
        model = {"preset": "modern", "size": "tiny", "hidden_size": 32, "num_layers": 1, "max_length": 32}
        values = {
            "store": store,
            "output": tmp_path / name,
            "model": model,
            "training": {"steps": 4, "batch_tokens": 200},
        }
        pretrain(PretrainConfig.parse(values), progress=False, **options)
        return [event["loss"] for event in read_journal(tmp_path / name / "journal.jsonl") if event["event"] == "step"]

    expected = run(local.path, "local")
    if began:
        run(url, "remote", stop_after=began)
        shutil.rmtree(cache)
    fs, gone = fsspec.filesystem("memory"), "/bucket/store/00000-00005.shard"
    content = fs.cat_file(gone)
    fs.rm(gone)
    with pytest.raises(StoreError, match=r"00000-00005\.shard: the file is missing.*the steps before are saved"):
        run(url, "remote", resume=bool(began))
    steps = read_journal(tmp_path / "remote" / "journal.jsonl")[-1]["step"]
    assert (tmp_path / "remote" / "checkpoints" / f"step-{steps:09d}").exists()
    fs.pipe_file(gone, content)
    assert run(url, "remote", resume=True) == expected


@pytest.mark.parametrize("name", ["00000-00004.shard", "documents.npy", "tokenizer/tokenizer.json"])
def test_an_altered_file_is_named_and_not_kept(url, cache, name):
    fs = fsspec.filesystem("memory")
    data = bytearray(fs.cat_file(f"/bucket/store/{name}"))
    data[len(data) // 2] ^= 1
    fs.pipe_file(f"/bucket/store/{name}", bytes(data))
    with pytest.raises(StoreError, match=rf"{url}/{name}: the file was altered.*copy the store there again"):
        TokenStore.open(url).verify()
    assert in_cache(cache, "*.tmp") == []
    assert Path(name).name not in in_cache(cache, "*")


def test_a_missing_shard_is_named_when_it_is_needed(url):
    fsspec.filesystem("memory").rm("/bucket/store/00000-00004.shard")
    store = TokenStore.open(url)
    store.fetch_ahead(np.arange(120))
    store.gather(np.array([0]), np.array([0]), np.array([5]))
    with pytest.raises(StoreError, match=r"memory://bucket/store/00000-00004\.shard: the file is missing"):
        everything(store)


def test_no_store_and_no_such_file_system(url):
    with pytest.raises(StoreError, match=r"memory://bucket/other/manifest\.json: the file is missing"):
        TokenStore.open("memory://bucket/other")
    with pytest.raises(StoreError, match="nosuch://bucket/store: cannot be reached: Protocol not known"):
        TokenStore.open("nosuch://bucket/store")


def test_what_was_damaged_in_the_cache_is_fetched_again(local, url, cache):
    everything(TokenStore.open(url))
    for path in cache.rglob("0000?-0000[2-5].shard"):
        path.write_bytes(b"x" * path.stat().st_size)
    np.testing.assert_array_equal(everything(TokenStore.open(url)).ids, everything(local).ids)


def test_a_shard_that_was_dropped_is_fetched_again(local, url, cache, monkeypatch):
    monkeypatch.setattr("pluri.tokens.shards._MOST_OPEN", 2)
    store = TokenStore.open(url)
    everything(store)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(everything(store).ids, everything(local).ids)


def test_a_cache_smaller_than_the_store(local, url, cache, monkeypatch):
    monkeypatch.setattr("pluri.tokens.shards._MOST_OPEN", 2)
    monkeypatch.setenv("PLURI_CACHE_GB", "0.000006")
    store = TokenStore.open(url)
    for _ in range(2):
        np.testing.assert_array_equal(everything(store).ids, everything(local).ids)
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) <= 6000
    assert len(in_cache(cache, "*.shard")) < SHARDS


def test_a_process_killed_while_it_fetches_leaves_nothing_in_the_way(local, url, cache, monkeypatch):
    child = os.fork()
    if not child:

        def half(_, aside):
            Path(aside).write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", half)
        TokenStore.open(url)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(in_cache(cache, "*.tmp")) == 1
    np.testing.assert_array_equal(everything(TokenStore.open(url)).ids, everything(local).ids)


def test_a_store_that_was_replaced_is_another(local, url, tmp_path):
    everything(TokenStore.open(url))
    text = tmp_path / "t.txt"
    text.write_text("other words\n" * 30)
    other = prepare(text, local.tokenizer, tmp_path / "other", workers=1)
    fsspec.filesystem("memory").put(f"{other.path}/", "/bucket/store", recursive=True)
    np.testing.assert_array_equal(everything(TokenStore.open(url)).ids, everything(other).ids)


def of_bytes(count: int) -> Callable[[Path], None]:
    def fetch(aside: Path) -> None:
        aside.write_bytes(b"x" * count)

    return fetch


def test_the_least_recently_used_is_dropped(tmp_path):
    cache = Cache(tmp_path / "c", 1000)
    for i in range(40):
        path = tmp_path / "c" / "store" / str(i)
        cache.place(path, of_bytes(100), Path.exists)
        os.utime(path, (i, i))
        cache.touch(tmp_path / "c" / "store" / "0")
        assert sum(file.stat().st_size for file in (tmp_path / "c").rglob("*") if file.is_file()) <= 1000
    kept = sorted(int(file.name) for file in (tmp_path / "c" / "store").iterdir())
    assert kept[0] == 0
    assert kept[1:] == list(range(40 - len(kept) + 1, 40))
    assert len(kept) >= 7


def test_what_a_killed_process_left_goes_and_what_is_being_fetched_stays(tmp_path):
    folder = tmp_path / "c" / "store"
    folder.mkdir(parents=True)
    for name, age in (("old.tmp", 2 * 3600), ("new.tmp", 10)):
        (folder / name).write_bytes(b"x" * 500)
        os.utime(folder / name, (time.time() - age, time.time() - age))
    Cache(tmp_path / "c", 100).place(folder / "a", of_bytes(90), Path.exists)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "new.tmp"]


def test_a_full_disk_is_told_with_the_shard(url, cache):
    """A limit on file size stands for a full disk: the error comes from the system."""
    store = TokenStore.open(url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(StoreError) as caught:
            everything(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "00000-00000.shard: the cache cannot be written: File too large" in str(caught.value)
    assert "PLURI_CACHE" in str(caught.value)
    assert in_cache(cache, "*.tmp") == []
    everything(store)  # and with room again it goes on


def test_a_cache_that_may_not_be_written(url, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLURI_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="the cache cannot be written: Not a directory"):
        TokenStore.open(url)


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan", "inf"])
def test_impossible_sizes(url, monkeypatch, size):
    monkeypatch.setenv("PLURI_CACHE_GB", size)
    with pytest.raises(UsageError, match=r"PLURI_CACHE_GB: .* is no size"):
        TokenStore.open(url)
