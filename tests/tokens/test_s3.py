"""Stores in an object store: moto's server on this machine stands for S3."""

import numpy as np
import pytest

from pluri.errors import StoreError
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

pytest.importorskip("s3fs", reason="s3fs, of the extra `s3`, is not installed")
server = pytest.importorskip("moto.server", reason="moto[server], of the extra `dev`, is not installed")


@pytest.fixture(scope="module")
def endpoint():
    running = server.ThreadedMotoServer("127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def url(endpoint, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setenv("PLURI_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    s3fs.S3FileSystem.clear_instance_cache()
    (tmp_path / "t.txt").write_text("".join(f"River {i} runs deep.\n" for i in range(60)))
    tokenizer = train_tokenizer(tmp_path / "t.txt", kind="char")
    prepare(tmp_path / "t.txt", tokenizer, tmp_path / "store", documents_per_shard=10, workers=1)
    fs = s3fs.S3FileSystem()
    fs.makedirs("bucket", exist_ok=True)
    fs.put(f"{tmp_path}/store/", "bucket/store", recursive=True)
    yield "s3://bucket/store"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket(url, tmp_path, monkeypatch):
    import s3fs

    local, store = TokenStore.open(tmp_path / "store"), TokenStore.open(url)
    store.fetch_ahead(np.arange(60))
    asked = np.arange(60), np.zeros(60, np.int64), local.document_lengths
    np.testing.assert_array_equal(store.gather(*asked).ids, local.gather(*asked).ids)
    store.verify()

    fs = s3fs.S3FileSystem()
    fs.rm("bucket/store/00000-00002.shard")
    fs.pipe_file("bucket/store/00000-00003.shard", b"x" * 100)
    monkeypatch.setenv("PLURI_CACHE", str(tmp_path / "empty"))
    for document, what in ((20, "00002.shard: the file is missing"), (30, "00003.shard: the file was altered")):
        with pytest.raises(StoreError, match=rf"s3://bucket/store/00000-{what}"):
            TokenStore.open(url).gather(np.array([document]), np.array([0]), np.array([1]))


def test_without_credentials(url, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"s3://bucket/store/manifest\.json: .*; give credentials"):
        TokenStore.open(url)
