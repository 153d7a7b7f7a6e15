"""Sentences of a text in any language, by the rules of the sentencex library."""

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]

_WINDOW = 1 << 12
"""Characters handed to sentencex at once: its time grows with the square of some inputs (long runs of quotes)."""


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text, each with the spaces that follow it: joined they are the text again.

    language: ISO 639-1 code; only its abbreviations matter, and unknown ones fall back to English rules.
    A stretch of more than 4,096 characters with no sentence end counts as one sentence.
    """
    if len(text) <= _WINDOW:
        return _segmented(text, language)
    sentences: list[str] = []
    start, unfinished = 0, ""
    while start < len(text):
        window = unfinished + text[start : start + _WINDOW]
        start += _WINDOW
        found = _segmented(window, language)
        # The last sentence of a window may go on in the next one.
        unfinished = found.pop() if start < len(text) and len(found) > 1 else ""
        sentences.extend(found)
    return sentences


def _segmented(text: str, language: str) -> list[str]:
    """As sentencex, but blank pieces join their neighbours."""
    pieces = segment(language, text)
    if not any(map(str.isspace, pieces)):
        return pieces
    sentences: list[str] = []
    lead = ""
    for piece in pieces:
        if not piece.strip():
            if sentences:
                sentences[-1] += piece
            else:
                lead += piece
        else:
            sentences.append(lead + piece)
            lead = ""
    return sentences if not lead else [lead]
