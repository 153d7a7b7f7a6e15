"""ESM's tokenizer, which is published as a list of letters alone: the tokenizer.json that does the same."""

import re
from pathlib import Path
from typing import Any

from pluri.errors import DataError

_NAMES = {"cls": "<cls>", "pad": "<pad>", "eos": "<eos>", "unk": "<unk>", "mask": "<mask>"}


def from_letters(vocab_file: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of tokenizer.json and tokenizer_config.json for a vocab.txt, a token a line.

    A letter of the vocabulary is a token, a stretch of other letters one unknown token. DataError: it is no such file.
    """
    try:
        tokens = [line.strip() for line in vocab_file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(vocab_file), do="restore the file") from None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if lacking := [name for name in _NAMES.values() if name not in vocabulary]:
        raise DataError(f"lacks {', '.join(lacking)}", where=str(vocab_file), do="restore the file")
    letters = "".join(re.escape(token) for token in tokens if len(token) == 1)
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token, index) for token, index in vocabulary.items() if len(token) > 1],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Split", "pattern": {"Regex": f"[{letters}]"}, "behavior": "Isolated", "invert": False},
            ],
        },
        "post_processor": _framed(vocabulary),
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    names = {f"{role}_token": name for role, name in _NAMES.items()}
    return definition, names | config | {"tokenizer_class": "PreTrainedTokenizerFast"}


def _added(token: str, index: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": token, "special": token in _NAMES.values()} | plain


def _framed(vocabulary: dict[str, int]) -> dict[str, Any]:
    """<cls> A <eos>, or <cls> A <eos> B <eos>."""

    def special(token: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    single = [special("<cls>"), sequence("A"), special("<eos>")]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B"), special("<eos>")],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in ("<cls>", "<eos>")
        },
    }
