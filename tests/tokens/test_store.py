import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.errors import StoreError
from pluri.sequences import split_sentences
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer

TEXTS = [f"Text {i} is here. " * (i % 5 + 1) + "三个字。" * (i % 3) for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    tokenizer = train_tokenizer(folder / "t.jsonl", kind="char")
    prepare(folder / "t.jsonl", tokenizer, folder / "store", documents_per_shard=7, workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def store(folder):
    return TokenStore.open(folder)


def everything(store):
    return np.arange(store.num_documents), np.zeros(store.num_documents, np.int64), store.document_lengths


def test_what_goes_in_comes_out(store):
    assert len(store.manifest.shards) == 6
    documents = store.gather(*everything(store))
    decoded = [store.tokenizer.decode(ids) for ids in np.split(documents.ids, documents.offsets[1:-1])]
    assert decoded == TEXTS
    assert store.num_documents == len(TEXTS)
    assert store.num_tokens == sum(map(len, TEXTS)) == store.document_lengths.sum()
    assert np.array_equal(store.unigram_counts, np.bincount(documents.ids, minlength=store.tokenizer.vocab_size))


def test_sentences(store):
    found = store.sentence_starts(*everything(store))
    for text, starts in zip(TEXTS, np.split(found.ids, found.offsets[1:-1]), strict=True):
        assert starts.tolist() == np.cumsum([len(s) for s in split_sentences(text)])[:-1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_slices(store, data):
    n = data.draw(st.integers(0, 12))
    documents = np.array(data.draw(st.lists(st.integers(0, len(TEXTS) - 1), min_size=n, max_size=n)), np.int64)
    ends = [data.draw(st.integers(0, len(TEXTS[d]))) for d in documents]
    starts = np.array([data.draw(st.integers(0, end)) for end in ends], np.int64)
    lengths = np.array(ends, np.int64) - starts
    got = store.gather(documents, starts, lengths)
    assert got.ids.dtype == np.int32
    assert got.offsets.tolist() == [0, *np.cumsum(lengths)]
    boundaries = store.sentence_starts(documents, starts, lengths)
    for i, (document, start, end) in enumerate(zip(documents, starts, ends, strict=True)):
        text = TEXTS[document]
        assert store.tokenizer.decode(got.ids[got.offsets[i] : got.offsets[i + 1]]) == text[start:end]
        expected = [b - start for b in np.cumsum([len(s) for s in split_sentences(text)])[:-1] if start < b < end]
        assert boundaries.ids[boundaries.offsets[i] : boundaries.offsets[i + 1]].tolist() == expected


def test_two_byte_ids_where_they_fit_and_four_where_not(folder, tmp_path):
    assert TokenStore.open(folder).manifest.dtype == "<u2"
    text = "".join(map(chr, [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0x20000, 0x2A000)]))
    (tmp_path / "t.txt").write_text(text)
    store = prepare(
        tmp_path / "t.txt", train_tokenizer(tmp_path / "t.txt", kind="char", vocab_size=70_000), tmp_path / "s"
    )
    assert store.manifest.dtype == "<u4"
    assert store.tokenizer.decode(store.gather(*everything(store)).ids) == text


def copied(folder, tmp_path):
    for path in folder.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "name", ["00000-00003.shard", "documents.npy", "unigram_counts.npy", "tokenizer/tokenizer.json"]
)
def test_an_altered_byte_is_found_and_named(folder, tmp_path, name):
    store = copied(folder, tmp_path)
    TokenStore.open(store).verify()
    data = bytearray((store / name).read_bytes())
    data[-3] ^= 1
    (store / name).write_bytes(data)
    with pytest.raises(StoreError, match=f"{name}: the file is missing or was altered"):
        TokenStore.open(store).verify()


@pytest.mark.parametrize("name", ["00000-00003.shard", "documents.npy", "unigram_counts.npy"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_short_or_missing_file_is_found_when_it_is_read(folder, tmp_path, name, damage):
    store = copied(folder, tmp_path)
    data = (store / name).read_bytes()
    (store / name).unlink()
    if damage == "cut":
        (store / name).write_bytes(data[:-8])
    with pytest.raises(StoreError, match=f"{name}: the file is missing or was altered"):
        TokenStore.open(store).gather(*everything(TokenStore.open(folder)))


def test_another_tokenizer_inside(folder, tmp_path):
    store = copied(folder, tmp_path)
    (tmp_path / "t.txt").write_text("abc")
    train_tokenizer(tmp_path / "t.txt", kind="char").save(store / "tokenizer")
    with pytest.raises(StoreError, match=r"tokenizer\.json: the file is missing or was altered"):
        _ = TokenStore.open(store).tokenizer


@pytest.mark.parametrize(
    ("manifest", "what"),
    [
        (None, "no token store here.*pluri prepare"),
        ("{", "cannot be read"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "format version 99, not 1"),
        ('{"format_version": 1}', "manifest.json"),
    ],
)
def test_bad_manifests(tmp_path, manifest, what):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StoreError, match=what):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("name", ["documents.npy", "unigram_counts.npy"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\x93NUMPY"])
def test_a_damaged_array_is_a_damaged_store(tmp_path, name, content):
    (tmp_path / "t.txt").write_text("some words\nand more\n")
    made = prepare(tmp_path / "t.txt", train_tokenizer(tmp_path / "t.txt", kind="char"), tmp_path / "s")
    (made.path / name).unlink()
    (made.path / name).write_bytes(content)
    with pytest.raises(StoreError, match=rf"{name}: the file is missing or was altered; remove the store"):
        TokenStore.open(made.path)
