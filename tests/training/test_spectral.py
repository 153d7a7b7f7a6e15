"""The closed-form start: better than frequencies alone before any step, and the same every time."""

import numpy as np
import pytest
import torch

from pluri.batches.loader import Batches
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.pretrain import unigram_entropy
from pluri.runtime import permuted
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.measures import mean_loss
from pluri.training.spectral import can_start, spectral_start


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A language in which a token all but tells the next: runs through the alphabet from a random place."""
    folder = tmp_path_factory.mktemp("spectral")
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = [(letters * 2)[start : start + 12] for start in permuted(np.arange(2600), 2600, 5) % 26]
    text = folder / "text.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    return prepare([str(text)], train_tokenizer([str(text)], kind="char", vocab_size=40), folder / "store")


def start(store: TokenStore, documents: np.ndarray) -> Model:
    vocab = store.tokenizer.vocab_size
    config = preset("modern", "tiny", vocab_size=vocab, max_length=32, hidden_size=64, context=2)
    model = Model(config, {"masked": vocab})
    assert can_start(model)
    spectral_start(model, store, documents)
    return model


def test_better_than_frequencies_before_the_first_step(store: TokenStore) -> None:
    train, test = np.arange(2000), np.arange(2000, store.num_documents)
    source = StoreExamples(store, ObjectiveConfig(), length=32, seed=0, documents=test)
    batches = Batches(source, batch_tokens=2048, length=32, seed=0)
    loss = mean_loss(start(store, train), batches.once(), pretraining_loss)["eval_loss"]
    assert loss < 0.6 * unigram_entropy(store.unigram_counts)


def test_the_same_every_time(store: TokenStore) -> None:
    first, second = (start(store, np.arange(500)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_published_families_have_nothing_to_start() -> None:
    assert not can_start(Model(preset("bert", "tiny", vocab_size=20, max_length=16), {"masked": 20}))
