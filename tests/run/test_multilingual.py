"""Pretraining on several stores: shares, a loss of each, a tokenizer in common, and resuming to the bit."""

from pathlib import Path

import numpy as np
import pytest

from pluri.errors import StoreError, UsageError
from pluri.run.folder import read_run
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.run.verify import verify_resume
from pluri.tokens.joined import JoinedStore, open_stores
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.journal import read_journal

TEXTS = {
    "en": (["the", "river", "bank", "money", "of", "water", "lends", "runs", "deep", "old", "house"], 300),
    "la-tin": (["arma", "virumque", "cano", "troiae", "qui", "primus", "ab", "oris", "italiam", "fato"], 40),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("languages")
    generator = np.random.default_rng(0)
    for name, (words, count) in TEXTS.items():
        lines = [" ".join(generator.choice(words, 5 + i % 12)) + "." for i in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = [str(folder / f"{name}.txt") for name in TEXTS]
    tokenizer = train_tokenizer(files, vocab_size=100)
    return {name: prepare([file], tokenizer, folder / name).path for name, file in zip(TEXTS, files, strict=True)}


def config(stores: dict[str, Path], output: Path, **values: object) -> PretrainConfig:
    model = {"preset": "modern", "size": "tiny", "hidden_size": 32, "num_layers": 1, "max_length": 32}
    training = {"steps": 6, "batch_tokens": 300, "eval_steps": 3}
    given = {"store": stores, "output": output, "model": model, "training": training, "validation": 0.1}
    return PretrainConfig.parse({**given, "sampling": 0.3, **values})


def test_joined_stores_hold_the_documents_of_each(stores: dict[str, Path]):
    joined = open_stores(stores)
    assert isinstance(joined, JoinedStore)
    joined.verify()
    parts = [TokenStore.open(path) for path in stores.values()]
    assert joined.bounds.tolist() == [0, 300, 340]
    assert joined.num_tokens == sum(part.num_tokens for part in parts) == joined.unigram_counts.sum()
    assert joined.manifest.ledger.read == sum(part.manifest.ledger.read for part in parts)
    asked = np.array([339, 0, 300, 12])
    for store, documents in ((parts[1], [39, 0]), (parts[0], [0, 12])):
        there = np.array(documents)
        lengths = store.document_lengths[there]
        expected = store.gather(there, np.zeros_like(lengths), lengths)
        own = asked[[0, 2]] if store is parts[1] else asked[[1, 3]]
        np.testing.assert_array_equal(joined.document_lengths[own], lengths)
        found = joined.gather(own, np.zeros_like(lengths), lengths)
        np.testing.assert_array_equal(found.ids, expected.ids)
        both = (joined.sentence_starts(own, np.zeros_like(lengths), lengths),
                store.sentence_starts(there, np.zeros_like(lengths), lengths))  # fmt: skip
        np.testing.assert_array_equal(both[0].ids, both[1].ids)
    swapped = open_stores(dict(reversed(stores.items())))
    assert swapped.hash != joined.hash


def test_each_language_has_its_share_and_its_loss(stores: dict[str, Path], tmp_path: Path):
    pretrain(config(stores, tmp_path / "run"), progress=False)
    journal = read_journal(tmp_path / "run" / "journal.jsonl")
    sampled = journal[0]["sampled"]
    assert sampled["en"] / sampled["la-tin"] == pytest.approx((270 / 36) ** 0.3, rel=0.1)
    last = [event for event in journal if event["event"] == "validation"][-1]
    weighted = sum(share * last[f"eval_loss_{name}"] for name, share in sampled.items())
    assert last["eval_loss"] == pytest.approx(weighted, rel=1e-6)
    assert last["eval_loss_en"] != last["eval_loss_la-tin"]
    assert set(read_run(tmp_path / "run").stores) == {path.resolve() for path in stores.values()}


def test_resuming_a_mixture_is_exact(stores: dict[str, Path], tmp_path: Path):
    verdict = verify_resume(config(stores, tmp_path / "unused"), steps=6)
    assert verdict.equal, verdict.differences


def test_other_shares_are_another_run(stores: dict[str, Path], tmp_path: Path):
    pretrain(config(stores, tmp_path / "run"), stop_after=2, progress=False)
    with pytest.raises(UsageError, match=r"sampling is now 0\.5 but the run began with 0\.3"):
        pretrain(config(stores, tmp_path / "run", sampling=0.5), resume=True, progress=False)
    with pytest.raises(UsageError, match="not the one that the run began with"):
        pretrain(config(dict(reversed(stores.items())), tmp_path / "run"), resume=True, progress=False)


def test_stores_share_a_tokenizer(stores: dict[str, Path], tmp_path: Path):
    text = tmp_path / "other.txt"
    text.write_text("altera lingua.\n" * 20, encoding="utf-8")
    other = prepare([str(text)], train_tokenizer([str(text)], kind="char"), tmp_path / "other").path
    with pytest.raises(StoreError, match="was made with another tokenizer than"):
        pretrain(config({**stores, "other": other}, tmp_path / "run"), progress=False)


@pytest.mark.parametrize("values", [{}, {"validation": 0.999999}])
def test_impossible_mixtures_are_told(stores: dict[str, Path], tmp_path: Path, values: dict[str, float]):
    few = stores if values else {}
    message = "no document of .* is left to train on" if values else "no store is named"
    with pytest.raises(UsageError, match=message):
        pretrain(config(few, tmp_path / "run", **values), progress=False)


def test_a_rare_language_weighs_more_in_a_tokenizer_trained_with_sampling(stores: dict[str, Path], tmp_path: Path):
    for name, count in (("much", 3000), ("little", 30)):
        words = [f"{name[0]}{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10]}" for i in range(100)]
        lines = [" ".join(words[(7 * i + j) % 100] for j in range(8)) for i in range(count)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = [tmp_path / "much.txt", tmp_path / "little.txt"]
    pieces = {}
    for sampling in (1.0, 0.0):
        vocabulary = train_tokenizer(files, kind="bpe", vocab_size=150, sampling=sampling).raw.get_vocab()
        pieces[sampling] = sum(piece.lstrip("▁").startswith("l") and len(piece) > 3 for piece in vocabulary)
    assert pieces[0.0] > 2 * max(pieces[1.0], 5)
