"""A text model on foreign sequences: each symbol becomes a word of its vocabulary, by chance.

Kao and Lee, "Is BERT a cross-disciplinary knowledge learner?" (2021), section 3.2.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.runtime import mix, permuted
from pluri.sequences.alphabets import DNA, PROTEIN
from pluri.tokens.tokenizer import Tokenizer

_UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|madeupword\d+")
_WORDS: dict[str, Any] = {"type": "WhitespaceSplit"}
_LETTER = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
_LETTERS: dict[str, Any] = {"type": "Sequence", "pretokenizers": [_WORDS, _LETTER]}
_STREAM = 2**60  # the counter under which words are drawn: no epoch or sequence has it


def random_words(tokenizer: Tokenizer, texts: Iterable[str], seed: int) -> Tokenizer:
    """A tokenizer that reads each symbol of foreign sequences as one word of a text model's vocabulary.

    Symbols are what stands between blanks; of texts without blanks the characters; of DNA and protein the letters of
    their alphabets, case folded. The words are those that a random permutation of the vocabulary, drawn by the seed,
    gives to the symbols in the order of the alphabet; ids, special tokens too, are the model's.
    texts: in which the symbols are found; what these lack is unknown.
    UsageError: more symbols than words, or no unknown token.
    """
    symbols, spaced, letters = _symbols(texts)
    unknown = tokenizer.unk_id
    words = _words(tokenizer)
    if unknown is None or len(words) < len(symbols):
        what = "no unknown token" if unknown is None else f"{len(words):,} words for {len(symbols):,} symbols"
        raise UsageError(f"the model's vocabulary has {what}", where="symbols", do="take another model")
    drawn = words[permuted(np.arange(len(symbols)), len(words), mix(mix(np.uint64(0), seed), _STREAM)[()])]
    special = dict(zip(tokenizer.tokens(tokenizer.special_ids), tokenizer.special_ids.tolist(), strict=True))
    definition: dict[str, Any] = json.loads(tokenizer.raw.to_str())
    definition |= {
        "added_tokens": [token for token in definition["added_tokens"] if token["content"] in special],
        "normalizer": None,
        "pre_tokenizer": _WORDS if spaced or letters else _LETTERS,
        "decoder": None if spaced else {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": special | dict(zip(symbols, drawn.tolist(), strict=True)),
            "unk_token": tokenizer.tokens([unknown])[0],
        },
    }
    roles = {"pad": tokenizer.pad_id, "unk": unknown, "cls": tokenizer.cls_id, "sep": tokenizer.sep_id}
    roles |= {"mask": tokenizer.mask_id}
    config: dict[str, Any] = {f"{role}_token": tokenizer.tokens([i])[0] for role, i in roles.items() if i is not None}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"kmer": 1} if letters else {})
    return Tokenizer(definition, config)


def meanings(symbols: Tokenizer, text: Tokenizer) -> dict[str, str]:
    """Which word of the text model each symbol is read as."""
    special = set(symbols.special_ids.tolist())
    vocabulary = sorted((name, index) for name, index in symbols.raw.get_vocab().items() if index not in special)
    return dict(zip((n for n, _ in vocabulary), text.tokens([index for _, index in vocabulary]), strict=True))


def _symbols(texts: Iterable[str]) -> tuple[list[str], bool, bool]:
    """The symbols, whether blanks stand between them, and whether they are the letters of an alphabet."""
    words, characters, spaced = set[str](), Counter[str](), False
    for text in texts:
        parts = text.split()
        spaced |= len(parts) > 1
        words.update(parts)
        characters.update(text)
    if spaced:
        return sorted(words), True, False
    letters = "".join(characters)
    for alphabet in (DNA, PROTEIN):
        usual = sum(count for letter, count in characters.items() if alphabet.spelled(letter) in alphabet.common)
        if set(alphabet.spelled(letters)) <= set(alphabet.letters) and 2 * usual > characters.total():
            return list(alphabet.letters), False, True
    return sorted(characters), False, False


def _words(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """The ids that begin a word: no special or unused ones, and none that goes on with the piece before it."""
    kept = ~tokenizer.continues_word
    kept[tokenizer.special_ids] = False
    vocabulary = tokenizer.raw.get_vocab()
    there = np.zeros(len(kept), bool)
    there[[index for piece, index in vocabulary.items() if not _UNUSED.fullmatch(piece)]] = True
    return np.flatnonzero(kept & there)
