import gzip
import re

import pytest

from pluri.errors import DataError
from pluri.sequences import fasta, read_records


def test_records(tmp_path):
    path = tmp_path / "g.fna"
    path.write_bytes(b"\n>chr1 the first\r\nACGT\r\nac gt\r\n\r\n>\nNN-*\n>empty\n>last\nMKV")
    records = list(read_records(str(path)))
    assert [record.text for record in records] == ["ACGTacgt", "NN-*", "", "MKV"]
    assert [record.id for record in records] == ["chr1", None, "empty", "last"]
    assert [record.where for record in records] == [f"{path}:{line}" for line in (2, 6, 8, 9)]
    assert records[0].meta == {"description": "the first"}


def test_a_long_record_comes_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "PIECE", 100)
    path = tmp_path / "g.fa"
    path.write_text(">g\n" + "ACGTACGTAC\n" * 33)
    records = list(read_records(str(path)))
    assert [len(record.text) for record in records] == [100, 100, 100, 30]
    assert {record.id for record in records} == {"g"}
    assert [record.continued for record in records] == [False, True, True, True]
    path.write_text(">g\n" + "ACGTACGTAC\n" * 10 + ">h\nAC\n>i\n")
    assert [(r.text[:2], r.continued) for r in read_records(str(path))] == [("AC", False), ("AC", False), ("", False)]


def test_reads_with_qualities(tmp_path):
    path = tmp_path / "r.fq.gz"
    path.write_bytes(gzip.compress(b"@r1 first\r\nACgN\r\n+\r\nIII#\r\n@r2\nAC\n+r2\nII\n"))
    first, second = read_records(str(path))
    assert (first.text, first.id, first.where) == ("ACgN", "r1", f"{path}:1")
    assert first.meta == {"description": "first", "qualities": "III#"}
    assert (second.text, second.where) == ("AC", f"{path}:5")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("@r1\nACG\n+\nII\n", ":4: not valid FASTQ: Length of sequence and qualities differ"),
        ("@r1\nAC\n+\nII\n@r2\nACG\n", ":7: not valid FASTQ: Premature end"),
        ("", ": the file is empty"),
        (">a\nACG\n>b\nC\n", ":1: not valid FASTQ"),
    ],
)
def test_what_is_no_fastq(tmp_path, content, said):
    path = tmp_path / "r.fastq"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{path}{said}")):
        list(read_records(str(path)))
