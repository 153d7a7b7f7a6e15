import csv
import gzip
import io
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.errors import DataError, UsageError
from pluri.sequences import lines as lines_module
from pluri.sequences import read_records, read_rows

ROWS = [
    {"text": 'He said "ja", twice', "label": "a"},
    {"text": "zwei\nZeilen", "label": "b"},
    {"text": "三", "label": ""},
]


def packed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return pa.compress(data, codec="zstd", asbytes=True) if suffix == ".zst" else data


def write(tmp_path, name: str, data: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(packed(data, path.suffix))
    return str(path)


def texts(file: str, **options) -> list[str]:
    return [record.text for record in read_records(file, **options)]


def as_csv(rows) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


TABLES = {
    "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "csv": as_csv(ROWS),
    "parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", list(TABLES))
def test_tables_in_every_packing(tmp_path, kind, packing):
    file = write(tmp_path, f"t.{kind}{packing}", TABLES[kind])
    assert [row for row, _ in read_rows(file)] == ROWS
    records = list(read_records(file))
    assert [record.text for record in records] == [row["text"] for row in ROWS]
    assert [dict(record.meta) for record in records] == [{"label": row["label"]} for row in ROWS]
    assert [where.removeprefix(file + ":") for _, where in read_rows(file)] == {
        "jsonl": ["1", "2", "3"],
        "csv": ["2", "3", "5"],  # the second row is two lines long
        "parquet": ["1", "2", "3"],
    }[kind]


def test_tsv_quotes_are_ordinary(tmp_path):
    file = write(tmp_path, "t.tsv", b'text\tn\r\n"Open quote\t1\r\nsay ""\t2\r\n')
    assert [row for row, _ in read_rows(file)] == [{"text": '"Open quote', "n": "1"}, {"text": 'say ""', "n": "2"}]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_text_a_document_a_line(tmp_path, packing):
    file = write(tmp_path, f"t.txt{packing}", "\ufeffone\r\nzwei\n三\u2028x".encode())
    records = list(read_records(file))
    assert [record.text for record in records] == ["one", "zwei", "三\u2028x"]
    assert records[2].where == f"{file}:3"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_with_blank_lines_is_blocks(tmp_path, newline):
    data = newline.join(["", "a", "b", " \t", "", "c", "", "", "d", "e", ""])
    records = list(read_records(write(tmp_path, "t.txt", data.encode())))
    assert [record.text for record in records] == ["a\nb", "c", "d\ne"]
    assert [record.where.rsplit(":")[-1] for record in records] == ["2", "6", "9"]


def test_blank_lines_at_the_ends_do_not_make_blocks(tmp_path):
    assert texts(write(tmp_path, "t.txt", b"\n\na\nb\n\n\n")) == ["a", "b"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_jsonl_round_trip(tmp_path_factory, values):
    file = str(tmp_path_factory.mktemp("j") / "t.jsonl")
    with open(file, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": value}) + "\n" for value in values)
    assert texts(file) == values


def test_a_line_longer_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "PIECE", 1000)
    monkeypatch.setattr("pluri.sequences.readers.PIECE", 1000)
    line = "".join("aé三😀"[i % 4] for i in range(10_001))
    file = write(tmp_path, "t.txt", f"{line}\nend".encode())
    records = list(read_records(file))
    assert "".join(record.text for record in records) == line + "end"
    assert max(len(record.text) for record in records) <= 1000
    assert {record.where for record in records} == {f"{file}:1", f"{file}:2"}
    assert [record.continued for record in records] == [False] + [True] * (len(records) - 2) + [False]
    assert texts(write(tmp_path, "t.jsonl", json.dumps({"text": line}).encode())) == [line]
    monkeypatch.setattr(lines_module, "MAX_LINE", 5000)
    with pytest.raises(DataError, match=r"t\.jsonl:1: a line longer"):
        texts(str(tmp_path / "t.jsonl"))


def test_a_block_longer_than_a_piece_is_put_together_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "PIECE", 1000)
    monkeypatch.setattr("pluri.sequences.readers.PIECE", 1000)
    long = "三" * 900  # 2,700 bytes: three pieces of one line
    blocks = ["a\nb", f"c\n{long}\nd", "\n".join(["e" * 99] * 25), "f"]
    records = list(read_records(write(tmp_path, "t.txt", "\n\n".join(blocks).encode())))
    found = []
    for record in records:
        if record.continued:
            found[-1].append(record.text)
        else:
            found.append([record.text])
    assert found[0] == ["a\nb"]
    assert "".join(found[1]) == blocks[1]
    assert len(found[2]) > 1
    assert "\n".join(found[2]) == blocks[2]
    assert found[3] == ["f"]


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "PIECE", 1 << 16)
    monkeypatch.setattr("pluri.sequences.readers.PIECE", 1 << 16)

    def peak(lines: int) -> int:
        file = write(tmp_path, "t.txt.gz", (b"some words in a line " * 100 + b"\n") * lines)
        tracemalloc.start()
        for _ in read_records(file):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    few = peak(2_000)
    assert peak(8_000) < few + 500_000  # the larger file has 12,600,000 bytes more


BROKEN = [
    ("t.txt", b"", "", "empty"),
    ("t.txt.gz", b"", "", "empty"),
    ("t.txt.zst", b"", "", "empty"),
    ("t.txt", b"\n \n", "", "only blank lines"),
    ("t.txt", b"ok\nbin\0ary", ":2", "binary"),
    ("t.txt", b"ok\ncaf\xe9", ":2", "0xe9.*iconv"),
    ("t.txt", "text".encode("utf-16"), ":1", "UTF-16"),
    ("t.jsonl", b'{"text": "a"}\n{"text": \n', ":2", "not valid JSON"),
    ("t.jsonl", b'[{"text": "a"},\n{"text": "b"}]', ":1", "jq"),
    ("t.jsonl", b'"a"', ":1", "not an object"),
    ("t.jsonl", b'{"other": "a"}', ":1", "no column 'text'.*'other'"),
    ("t.jsonl", b'{"text": null}', ":1", "null"),
    ("t.jsonl", b'{"text": 3}', ":1", "not text: 3"),
    ("t.jsonl", b'{"text": "\\ud800"}', ":1", "surrogate"),
    ("t.jsonl", b"\n", "", "no rows"),
    ("t.csv", b"text,label\n", "", "no rows"),
    ("t.csv", b"text,label\na,b,c\n", ":2", "3 fields.*2"),
    ("t.csv", b'text,label\nx,y\n"open,b\n', ":3", "not valid CSV"),
    ("t.csv", b"text,text\na,b\n", ":1", "named twice"),
    ("t.tsv", b"text\tn\na\rb\t1\n", ":2", "mend the quotes or line ends"),
    ("t.csv", b"text\tlabel\na, b\t1\n", ":1", "separated by tabs; name the file .tsv"),
    ("t.csv", b"a,b\n1,2\n", ":2", "no column 'text'.*'a', 'b'"),
    ("t.parquet", b"PAR1 nonsense", "", "not valid Parquet"),
    ("t.fa", b"ACGT\n", ":1", "no '>' header"),
    ("t.fa", b">a\nACGT\nAC1T\n", ":3", "'1' is no sequence letter"),
    ("t.fa", b"\n\n", "", "only blank lines"),
]


@pytest.mark.parametrize(("name", "data", "line", "what"), BROKEN)
def test_broken_files_are_told_by_file_and_line(tmp_path, name, data, line, what):
    file = write(tmp_path, name, data)
    with pytest.raises(DataError, match=what) as caught:
        list(read_records(file))
    assert str(caught.value).startswith(f"{file}{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(".gz", "cut"), (".zst", "cut"), (".gz", "altered"), (".gz", "not packed"), (".zst", "not packed")],
)
def test_damaged_packing(tmp_path, suffix, damage):
    path = tmp_path / f"t.txt{suffix}"
    data = bytearray(packed("".join(f"line {i}\n" for i in range(9999)).encode(), suffix))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "altered":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"plain text\n")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read|not UTF-8|binary"):
        list(read_records(str(path)))


def test_an_error_in_the_consumer_is_not_taken_for_one_of_the_file(tmp_path):
    records = read_records(write(tmp_path, "t.txt", b"a\nb\n"))
    next(records)
    with pytest.raises(OSError, match="mine"):
        records.throw(OSError("mine"))  # pyright: ignore[reportAttributeAccessIssue]


def test_rows_of_a_text_file(tmp_path):
    with pytest.raises(UsageError, match="not a table"):
        list(read_rows(write(tmp_path, "t.txt", b"a")))
