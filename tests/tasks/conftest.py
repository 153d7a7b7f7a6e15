"""Small data that a small model can learn within a second, in a made-up language."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.runtime import mix, uniform
from pluri.tasks.task import Labelled
from pluri.tokens.training import train_tokenizer

LETTERS = "abcdefgh"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sentences(count, seed=0):
    """`count` sentences of 3 to 8 words of 1 to 3 letters."""
    chance = iter(uniform(mix(np.uint64(0), seed), np.arange(count * 64)))

    def word():
        return "".join(LETTERS[int(next(chance) * 8)] for _ in range(1 + int(next(chance) * 3)))

    return [[word() for _ in range(3 + int(next(chance) * 6))] for _ in range(count)]


def tagged(count, seed=0):
    """A word's tag tells its first letter's half of the alphabet."""
    return [
        Labelled(tuple(words), tuple("HIGH" if word[0] > "d" else "LOW" for word in words), f"tags.conll:{i}")
        for i, words in enumerate(sentences(count, seed), 1)
    ]


def classified(count, seed=0):
    """A text is "yes" if its first word begins with a letter of the first half."""
    return [
        Labelled((" ".join(words),), ("yes" if words[0][0] <= "d" else "no",), f"texts.csv:{i}")
        for i, words in enumerate(sentences(count, seed), 2)
    ]


def measured(count, seed=0):
    """A text's number is 100 times the share of its letters that are in the first half, less 300."""
    found = []
    for i, words in enumerate(sentences(count, seed), 2):
        letters = "".join(words)
        share = sum(letter <= "d" for letter in letters) / len(letters)
        found.append(Labelled((" ".join(words),), (f"{100 * share - 300:.3f}",), f"numbers.csv:{i}"))
    return found


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_text("\n".join(" ".join(words) for words in sentences(200)), encoding="utf-8")
    return train_tokenizer([str(corpus)], kind="wordpiece", vocab_size=60)


@pytest.fixture(scope="session")
def small(tokenizer):
    """A two-layer model, 32 wide, that has learned nothing."""
    config = preset("modern", "tiny", vocab_size=tokenizer.vocab_size, max_length=48, hidden_size=32, num_heads=2)
    return Model(config, {"masked": tokenizer.vocab_size}, seed=1)


@pytest.fixture(scope="session")
def made():
    """The makers of labelled data."""
    return SimpleNamespace(tagged=tagged, classified=classified, measured=measured, sentences=sentences)
