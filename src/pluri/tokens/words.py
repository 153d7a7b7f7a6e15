"""Words: how running text falls into them, and which pieces of a vocabulary continue one (for whole-word masking)."""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, decoders, pre_tokenizers

# Scripts that put no spaces between words: Thai and Lao, Tibetan, Myanmar, Khmer, and from the CJK radicals on
# everything but Hangul (Unicode 16, Blocks.txt).
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\ua95f\ua980-\uabff\uf900-\ufaff\ufe30-\uffef\U00020000-\U0003ffff]"
)
_SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(UNSPACED.pattern), "isolated")]
)


def split_words(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The words and signs of a text, in scripts without spaces its characters: each with its first character and the
    one after its last."""
    return _SPLIT.pre_tokenize_str(text)


def spaced(words: Sequence[str]) -> Iterator[str]:
    """Each word as it stands in running text: a space before it, but not at the start or in scripts without spaces.

    Tokenizers that mark spaces (byte-level BPE) know a word by the space before it.
    """
    before = ""
    for word in words:
        apart = before and word and not UNSPACED.match(before[-1]) and not UNSPACED.match(word[0])
        yield f" {word}" if apart else word
        before = word


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
    if not first or UNSPACED.match(first):
        return False
    # U+FFFD: the later bytes of a character that a byte-level piece cuts in two.
    return first == "\ufffd" or unicodedata.category(first)[0] in "LNM"
