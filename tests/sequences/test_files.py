import gzip
import os

import fsspec
import pytest

from pluri.errors import DataError, UsageError
from pluri.sequences import expand, read_records


@pytest.fixture
def folder(tmp_path):
    for name in ("b.txt", "a.jsonl", "notes.md", ".hidden.txt", "inner/c.fa.gz", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def test_folder_gives_known_suffixes_sorted_without_hidden(folder):
    assert expand(folder) == [str(folder / name) for name in ("a.jsonl", "b.txt", "inner/c.fa.gz")]


def test_globs_files_and_folders_give_each_file_once(folder):
    sources = [folder / "*.txt", folder / "b.txt", folder / "**/*.gz", folder]
    assert expand(sources) == expand(folder)


def test_relative_sources_stay_relative(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert expand("*.txt") == ["b.txt"]
    assert expand(".") == ["a.jsonl", "b.txt", "inner/c.fa.gz"]


@pytest.mark.parametrize("source", ["missing.txt", "*.parquet", "missing/", "nosuchprotocol://x/y.txt"])
def test_a_source_that_matches_nothing_is_a_usage_error(folder, source):
    with pytest.raises(UsageError) as caught:
        expand(source if "://" in source else folder / source)
    assert source.strip("/") in str(caught.value)


def test_no_sources():
    with pytest.raises(UsageError):
        expand([])


def test_unknown_suffix(folder):
    with pytest.raises(UsageError, match=r"notes\.md.*\.jsonl"):
        list(read_records(str(folder / "notes.md")))


def test_urls_are_listed_and_read():
    fs = fsspec.filesystem("memory")
    fs.pipe("/corpus/one.txt.gz", gzip.compress(b"eins\nzwei\n"))
    try:
        files = expand("memory://corpus")
        assert files == ["memory:///corpus/one.txt.gz"]
        assert [record.text for record in read_records(files[0])] == ["eins", "zwei"]
    finally:
        fs.rm("/corpus", recursive=True)


def test_missing_file():
    with pytest.raises(DataError, match="no such file"):
        list(read_records("/nowhere/a.txt"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(str(path)))
