"""Which pieces of a vocabulary continue a word: what whole-word masking needs to know."""

import json
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import decoders

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Code points of scripts that write no spaces between words: each piece counts as a word."""


def continuing(
    definition: dict[str, Any], vocabulary: dict[str, int], vocab_size: int, special_ids: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """bool [vocab_size]: True where a piece continues the word of the piece before it.

    WordPiece: pieces with the continuing prefix ("##"). Others: pieces that carry no space mark and begin with a
    letter, a digit or a combining mark. Pieces of scripts without spaces (Han, kana, Thai, ...) never continue a word,
    nor do whole-word vocabularies (k-mers).
    definition: the tokenizer.json.
    """
    continues = np.zeros(vocab_size, bool)
    model = definition.get("model", {})
    if model.get("type") == "WordLevel":
        return continues
    prefix = model.get("continuing_subword_prefix") or ""
    byte_level = '"ByteLevel"' in json.dumps([definition.get("pre_tokenizer"), definition.get("decoder")])
    decoder = decoders.ByteLevel()
    for piece, index in vocabulary.items():
        if prefix and not piece.startswith(prefix):
            continue
        text = piece[len(prefix) :]
        if byte_level:
            text = decoder.decode([text])
        continues[index] = _inside_word(text[:1])
    continues[special_ids] = False
    return continues


def _inside_word(first: str) -> bool:
    if not first or any(low <= ord(first) <= high for low, high in _UNSPACED):
        return False
    # U+FFFD: the later bytes of a character that a byte-level piece cuts in two.
    return first == "\ufffd" or unicodedata.category(first)[0] in "LNM"
