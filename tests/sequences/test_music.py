"""Scores as words: the same for the same music, whatever the file; no cap on length."""

import json
from pathlib import Path

import pytest

from pluri.errors import DataError
from pluri.sequences import read_records
from pluri.sequences.music import music_words

SCALE = "n60 d24 s24 n62 d24 s24 n64 d48"
ABC = "X:7\nT:A scale\nM:4/4\nL:1/4\nK:C\n{}\n"
KERN = "**kern\t**kern\n*clefF4\t*clefG2\n4c\t4r\n4d\t.\n[4e\t.\n4e]\t4r\n*-\t*-\n"
MUSIC = Path(__file__).parents[2] / ".." / "shared" / "data" / "music"


def midi(notes, *, drums=False):
    symusic = pytest.importorskip("symusic")
    score = symusic.Score(480)
    track = symusic.Track("t", 0, drums)
    for start, duration, pitch in notes:
        track.notes.append(symusic.Note(round(start * 480), round(duration * 480), pitch, 64))
    score.tracks.append(track)
    return score.dumps_midi()


def test_the_same_music_has_the_same_words(tmp_path):
    (tmp_path / "s.mid").write_bytes(midi([(0, 1, 60), (1, 1, 62), (2, 2, 64)]))
    (tmp_path / "s.abc").write_text(ABC.format('"G"C "Am"D E2|'))
    pytest.importorskip("music21")
    (tmp_path / "s.krn").write_text("!!!OTL@EN: A scale\n" + KERN)
    for name in ("s.mid", "s.abc", "s.krn"):
        (record,) = read_records(str(tmp_path / name))
        assert record.text == SCALE, name
        assert record.meta == ({} if name == "s.mid" else {"title": "A scale"})


def test_chords_triplets_and_drums():
    notes = [(0, 1 / 3, 60), (0, 1 / 3, 67), (1 / 3, 1 / 3, 62), (2 / 3, 1 / 3, 64), (1, 5, 60)]
    assert music_words(midi(notes), "midi") == "n67 d8 n60 d8 s8 n62 d8 s8 n64 d8 s8 n60 d96 d24"
    assert music_words(midi([(0, 0.25, 36)], drums=True), "midi") == "x36 d6"


def test_tunes_of_a_file(tmp_path, capfd):
    pytest.importorskip("symusic")
    (tmp_path / "t.abc").write_text("L:1/8\n\n" + ABC.format("C").replace("L:1/4\n", "") + "\n" + ABC.format("D"))
    first, second = read_records(str(tmp_path / "t.abc"))
    assert (first.text, second.text) == ("n60 d12", "n62 d24")
    assert (first.id, first.where, second.where) == ("7", f"{tmp_path}/t.abc:3", f"{tmp_path}/t.abc:9")
    assert capfd.readouterr().out == ""


def test_three_hours_are_read_whole():
    """21,600 quarter notes at 120 a minute, and a rest of an hour before the last."""
    notes = [(i / 2, 0.5, 60 + i % 12) for i in range(43_200)] + [(28_800, 1, 60)]
    words = music_words(midi(notes), "midi").split()
    assert sum(word.startswith("n") for word in words) == 43_201
    assert sum(int(word[1:]) for word in words if word.startswith("s")) == 28_800 * 24


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.mid", b"", ": not valid midi: "),
        ("a.mid", b"RIFF" + b"0" * 40, ": not valid midi: "),
        ("a.abc", b"CDE", ": no tune begins with X:; is this ABC?"),
        ("a.abc", b"X:1\nK:C\n", ":1: the score has no notes; leave it out"),
        ("a.krn", "é".encode("latin-1"), ": not UTF-8 text"),
        ("a.krn", b"**kern\n4r\n*-\n", ":1: the score has no notes"),
        ("a.krn", b"hello\n", ":1: not valid kern"),
    ],
)
def test_what_is_no_score(tmp_path, name, content, said):
    pytest.importorskip("symusic")
    pytest.importorskip("music21")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_records(str(tmp_path / name)))
    assert str(error.value).startswith(f"{tmp_path / name}{said}")


def test_an_empty_midi(tmp_path):
    (tmp_path / "a.mid").write_bytes(midi([]))
    with pytest.raises(DataError, match=r"a\.mid: the score has no notes"):
        list(read_records(str(tmp_path / "a.mid")))


def test_real_scores():
    pytest.importorskip("symusic")
    file = MUSIC / "nottingham" / "nottingham_abc.jsonl.zst"
    if not file.exists():
        pytest.skip("the shared data are not here")
    import pyarrow as pa

    rows = pa.CompressedInputStream(str(file), "zstd").read().decode().splitlines()[:3]
    for row in map(json.loads, rows):
        words = music_words(row["abc"], "abc").split()
        assert len(words) > 60
        assert {word[0] for word in words} == set("nsd")
