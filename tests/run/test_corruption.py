"""What denoising makes of the user's own lines."""

import json
from pathlib import Path

import pytest

import pluri
from pluri.__main__ import main
from pluri.errors import DataError
from pluri.run.corruption import corruption_text

LINES = ["The cat sat on the mat. It slept all day. Then it ate a fish.", "Dogs bark at the moon. They run far away."]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def test_each_line_is_broken_in_every_way(file: Path):
    shown = pluri.show_corruption(file)
    assert [each.where for each in shown[::8]] == [f"{file}:1", f"{file}:2"]
    first = {"+".join(each.kinds): each for each in shown[:8]}
    assert list(first) == ["mask", "delete", "infill", "permute", "rotate", "mass", "sentinel", "infill+permute"]
    words = first["mask"].text.split()
    assert "".join(words) == LINES[0].replace(" ", "")
    assert len(first["mask"].reads.split()) == len(words)
    assert "[MASK]" in first["mask"].reads
    assert 0 < len(first["delete"].reads.split()) < len(words)
    for kind in ("permute", "rotate"):
        assert sorted(first[kind].reads.split()) == sorted(words)
        assert first[kind].reads != first[kind].text
    assert first["infill"].writes == f"[CLS] {first['infill'].text} [SEP]"
    assert first["mass"].writes in first["mass"].text
    assert first["sentinel"].writes.startswith("<extra_id_0> ")
    assert pluri.show_corruption(file) == shown


def test_with_a_tokenizer_and_without_sentinels(file: Path, tmp_path: Path):
    pluri.train_tokenizer(file, kind="kmer", k=2).save(tmp_path / "kmers")
    shown = pluri.show_corruption(file, tmp_path / "kmers", lines=1)
    assert len(shown) == 7
    assert shown[0].text.startswith("TH HE EC CA AT")
    store = pluri.prepare(file, tmp_path / "kmers", tmp_path / "store", workers=1)
    assert pluri.show_corruption(file, store.path, lines=1) == shown
    with pytest.raises(DataError, match="no such file"):
        pluri.show_corruption(file, tmp_path)


def test_the_doctor_shows_it(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--show-corruption", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.rstrip() == corruption_text(pluri.show_corruption(file))
    assert text.count("whole") == 2
    assert text.count("to write") == 4
    assert main(["doctor", "--show-corruption", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 16
