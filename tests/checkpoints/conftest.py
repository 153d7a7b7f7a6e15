"""A word-level tokenizer as small as the models of these tests."""

import json

import pytest
import tokenizers

from pluri.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    roles = ("pad", "unk", "cls", "sep", "mask")
    words = [f"[{role.upper()}]" for role in roles] + [f"w{i}" for i in range(5, 61)]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    names = {f"{role}_token": f"[{role.upper()}]" for role in roles}
    return Tokenizer(json.loads(raw.to_str()), {"tokenizer_class": "PreTrainedTokenizerFast", **names})
