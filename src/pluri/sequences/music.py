"""Music: what is played, as words, whatever the file was. MIDI and ABC by symusic, Humdrum's **kern by music21.

A note is `n60 d24`: its pitch (MIDI's number) and how long it sounds, in 24ths of a quarter note; `s12` moves on by as
much. Notes that begin together stand beside each other, the highest first; drums are `x36 d6`. What is longer than a
whole note takes several words: `d96 d12`. So there are at most 448 words, each a token of the kind `word`, and no
score is too long. These are the tokens TSD of Fradet et al., "MidiTok" (2021), without tempo and velocity, which ABC
and kern lack; 24 parts hold thirty-second notes and triplets alike.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from pluri.errors import DataError
from pluri.sequences.files import opened
from pluri.sequences.record import Record

Format = Literal["abc", "midi", "kern"]
GRID = 24
"""Parts of a quarter note."""

_LONGEST = 4 * GRID
_TUNE = re.compile(r"^X:.*$", re.MULTILINE)
_TITLE = re.compile(r"^(?:T:|!!!OTL[^:]*:)\s*(.*)$", re.MULTILINE)


class Note(NamedTuple):
    """start, duration: in quarter notes. pitch: MIDI's number, 60 = middle C."""

    start: float
    duration: float
    pitch: int
    drum: bool = False


def read_music(file: str, kind: Format) -> Iterator[Record]:
    """A record a tune of ABC (each begins with X:), else one a file: its words, and meta["title"] if it names one.

    DataError, with file:line: no text or no MIDI, a score that cannot be read, or one without notes.
    """
    with opened(file) as stream:
        content = stream.read()
    if kind == "midi":
        yield Record(music_words(content, kind, file), file)
        return
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        do = "convert it, for example: iconv -f LATIN1 -t UTF-8"
        raise DataError("not UTF-8 text", where=file, do=do) from None
    for score, line in _tunes(text, file) if kind == "abc" else [(text, 1)]:
        where, title = f"{file}:{line}", _TITLE.search(score)
        words = music_words(score, kind, where)
        name = score[2 : score.index("\n")].strip() if kind == "abc" else None
        yield Record(words, where, id=name, meta={"title": title[1].strip()} if title else {})


def music_words(score: str | bytes, kind: Format, where: str = "score") -> str:
    """The words of one score: the content of a MIDI file, an ABC tune, or a kern file. DataError as `read_music`."""
    try:
        notes = list(_from_kern(score) if kind == "kern" else _from_symusic(score))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged score makes them stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"not valid {kind}: {reason}", where=where, do="mend the score, or leave it out") from None
    if not notes:
        raise DataError("the score has no notes", where=where, do="leave it out")
    return " ".join(_words(notes))


def _words(notes: Iterable[Note]) -> Iterator[str]:
    """Times are rounded to the grid before they are subtracted, so that errors never add up."""
    now = 0
    placed = {(round(n.start * GRID), -n.pitch, n.drum, max(1, round(n.duration * GRID))) for n in notes}
    for start, pitch, drum, duration in sorted(placed):
        yield from _steps("s", start - now)
        yield f"{'x' if drum else 'n'}{-pitch}"
        yield from _steps("d", duration)
        now = start


def _steps(name: str, size: int) -> Iterator[str]:
    yield from [f"{name}{_LONGEST}"] * (size // _LONGEST)
    if size % _LONGEST:
        yield f"{name}{size % _LONGEST}"


def _tunes(text: str, file: str) -> Iterator[tuple[str, int]]:
    """Each tune, and the line that it begins in. What stands before the first one holds for all of them."""
    starts = list(_TUNE.finditer(text))
    if not starts:
        raise DataError("no tune begins with X:", where=file, do="is this ABC?")
    header = text[: starts[0].start()].strip()
    for this, after in zip(starts, [*starts[1:], None], strict=True):
        body = text[this.end() : after.start() if after else len(text)].strip("\n")
        yield "\n".join(part for part in (this[0], header, body) if part) + "\n", text.count("\n", 0, this.start()) + 1


def _from_symusic(score: str | bytes) -> Iterator[Note]:
    from symusic import Score

    if isinstance(score, str):
        first, _, rest = score.partition("\n")
        with _told_on_stderr():  # chords above the staff are symbols, and not played
            parsed = Score.from_abc(f"{first}\n%%MIDI gchordoff\n{rest}", ttype="quarter")
    else:
        parsed = Score.from_midi(score, ttype="quarter")
    for track in parsed.tracks:  # pyright: ignore[reportAttributeAccessIssue]
        yield from (Note(note.time, note.duration, note.pitch, track.is_drum) for note in track.notes)


def _from_kern(score: str | bytes) -> Iterator[Note]:
    """Tied notes are one. Repeats are played once (in ABC as often as written)."""
    from music21 import converter, note

    text = score if isinstance(score, str) else score.decode()
    parsed = converter.parse(text, format="humdrum", forceSource=True)
    for played in parsed.stripTies().flatten().notes:
        if not isinstance(played, note.NotRest):
            continue
        for pitch in played.pitches:
            yield Note(float(played.offset), float(played.quarterLength), pitch.midi)


@contextlib.contextmanager
def _told_on_stderr() -> Iterator[None]:
    """What a library's own program prints there does not mix with our output."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
