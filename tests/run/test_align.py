"""Two languages whose words have the same vectors by construction, aligned from end to end; and what cannot be."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pluri.__main__ import main
from pluri.checkpoints.huggingface import save_model
from pluri.errors import DataError, UsageError
from pluri.inference.language_vectors import languages_of, masked, predictions, shifted
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.align import MODEL, RANDOM_START, STATIC, align
from pluri.tasks.static import StaticVectors
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

WORDS = 60
KEY = (STATIC, "p@1")


def named(language: str, number: int) -> str:
    return language + "bcdfghjklm"[number % 10] + "aeiouy"[number // 10]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """en.txt, xx.txt (as many sentences, word for word), dictionary.txt, and a model with one vector for both words."""
    folder = tmp_path_factory.mktemp("align")
    numbers = np.random.default_rng(0).integers(0, WORDS, (150, 6))
    for language, name in (("p", "en"), ("q", "xx")):
        lines = [" ".join(named(language, number) for number in row) + "." for row in numbers.tolist()]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    lines = [f"{named('p', i)} {named('q', i)}" for i in range(WORDS)]
    (folder / "dictionary.txt").write_text("\n".join([*lines, "pnever qnever"]), encoding="utf-8")
    tokenizer = train_tokenizer([folder / "en.txt", folder / "xx.txt"], vocab_size=400)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=2, max_length=24)
    model = Model(config, {"masked": tokenizer.vocab_size}, seed=1)
    ids = [[tokenizer.raw.token_to_id(named(language, i)) for i in range(WORDS)] for language in "pq"]
    assert None not in ids[0] + ids[1]
    with torch.no_grad():
        table = model.body.embeddings.tokens.weight
        table.mul_(20)
        table[ids[1]] = table[ids[0]]
    save_model(folder / "model", model, tokenizer)
    return folder


def files(made: Path, *names: str) -> tuple[str, str]:
    first, second = (str(made / name) for name in names)
    return first, second


def test_equal_vectors_are_found_and_random_ones_are_not(made: Path, tmp_path: Path):
    both = files(made, "en.txt", "xx.txt")
    found = align(made / "model", str(made / "dictionary.txt"), both, parallel=both)
    assert found.names == ("en", "xx")
    about = found.about
    assert about["pairs"] == WORDS + 1
    assert about["pairs that occur in both corpora"] == WORDS
    assert about["en: entries that never occur"] == about["xx: entries that never occur"] == 1
    assert about["en: their occurrences"] == 150 * 6
    assert any("never occur" in note and "pnever" in note for note in found.notes)

    def value(task: str, method: str, similarity: str = "raw", metric: str = "mrr") -> list[float]:
        keys = {"task": task, "method": method, "similarity": similarity, "metric": metric}
        return [row["value"] for row in found.rows if all(row[key] == wanted for key, wanted in keys.items())]

    assert min(value("words", MODEL)) > 0.99
    assert value("sentences", MODEL)[-1] > 0.99
    chance = np.mean(1 / np.arange(1, WORDS + 1))
    assert max(value("words", RANDOM_START)) < 4 * chance
    assert len(value("words", STATIC)) == 2
    for row in found.rows:
        assert row["low"] <= row["value"] <= row["high"]
    words = [row for row in found.rows if row["task"] == "words"]
    assert {row["queries"] for row in words} == {WORDS // 2}
    assert {row["candidates"] for row in words} == {WORDS}
    assert all(less["low"] > 0 for less in found.differences if less["what"] == RANDOM_START)
    assert [shift.direction for shift in found.shifts] == ["en to xx", "xx to en"]
    for shift in found.shifts:
        for layer in (None, 0, 1, 2):
            shares = [row["value"] for row in shift.shares if row["layer"] == layer]
            assert sum(shares) == pytest.approx(1)


def test_static_sentences_are_mapped_as_their_words_are(made: Path, monkeypatch: pytest.MonkeyPatch):
    chance = np.random.default_rng(0)
    rotation = np.linalg.qr(chance.normal(size=(8, 8)))[0]
    drawn: dict[str, NDArray[np.float64]] = {}

    def vectors(texts: Iterable[list[str]]) -> StaticVectors:
        """Of the first language random ones, of the second the same ones turned: `named` numbers both alike."""
        words = sorted({word for text in texts for word in text})
        turned = bool(drawn)
        rows = [drawn.setdefault(word, chance.normal(size=8)) for word in words]
        table = np.stack(rows) @ (rotation if turned else np.eye(8))
        found = np.concatenate([np.zeros((1, 8)), table]).astype(np.float32)
        return StaticVectors({word: i + 1 for i, word in enumerate(words)}, found)

    monkeypatch.setattr("pluri.run.align.static_vectors", vectors)
    both = files(made, "en.txt", "xx.txt")
    rows = align(made / "model", str(made / "dictionary.txt"), both, parallel=both).rows
    found = {(row["task"], row["direction"]): row["value"] for row in rows if (row["method"], row["metric"]) == KEY}
    assert len(found) == 4
    assert min(found.values()) > 0.99


def test_the_verb_writes_a_report(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmp_path / "report.html"
    options = ["--model", str(made / "model"), "--dictionary", str(made / "dictionary.txt")]
    options += ["--corpus", *files(made, "en.txt", "xx.txt"), "--parallel", *files(made, "en.txt", "xx.txt")]
    assert main(["align", *options, "-o", str(report), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == ["en", "xx"]
    page = report.read_text(encoding="utf-8")
    for part in ("Words, layer by layer", "Sentences, layer by layer", "The vector en to xx", "pluri align --model"):
        assert part in page
    assert main(["align", *options, "-o", str(report)]) == 2  # it is there already


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpora": ("xx.txt", "en.txt")}, "its columns are in the other order: 60 of 61 pairs"),
        ({"corpora": ("few.txt", "xx.txt")}, r"of its 61 pairs occur in both the 2 sentences of .*few.txt and the 150"),
        ({"parallel": ("en.txt", "few.txt")}, r"few.txt: 2 lines, where .*en.txt has 150"),
    ],
)
def test_bad_input_is_told(made: Path, change: dict[str, tuple[str, str]], message: str):
    (made / "few.txt").write_text("pba pca pda.\npba pfa.\n", encoding="utf-8")
    given = {"corpora": ("en.txt", "xx.txt"), "parallel": ("en.txt", "xx.txt"), **change}
    with pytest.raises(DataError, match=message):
        align(
            made / "model",
            str(made / "dictionary.txt"),
            files(made, *given["corpora"]),
            parallel=files(made, *given["parallel"]),
        )


def loaded(made: Path) -> tuple[Model, Tokenizer]:
    from pluri.checkpoints.huggingface import load_model

    return load_model(made / "model")


@pytest.mark.parametrize("family", ["bert", "modern", "albert"])
def test_a_vector_is_added_at_its_layer(family: str):
    """A model whose layer gives other states, and all the layers above it what follows from these."""
    from pluri.batches.example import Examples
    from pluri.batches.packing import pack

    config = preset(family, "tiny", vocab_size=50, hidden_size=32, num_layers=3, max_length=16, dropout=0.0)
    model = Model(config, {"masked": 50}).eval()
    batch = pack(Examples(np.arange(5, 15, dtype=np.int32), np.array([0, 10])), 16)
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32)
    with torch.inference_mode():
        before = model.body(batch, layers=True)
        for layer in range(4):
            with shifted(model, layer, vector):
                after = model.body(batch, layers=True)
            for i in range(4):
                same = torch.equal(before[i], after[i])
                assert same if i < layer else not same, (layer, i)
            moved = after[layer] - before[layer]
            torch.testing.assert_close(moved[0, :10], torch.from_numpy(vector).expand(10, -1), atol=1e-5, rtol=0)
        assert torch.equal(model.body(batch), before[-1])  # the hooks are gone


def test_masks_are_always_the_same_and_each_text_has_one(made: Path):
    model, tokenizer = loaded(made)
    texts = ["pba pca pda pfa", "pba", "qba qca"]
    first, again = masked(tokenizer, texts, 24), masked(tokenizer, texts, 24)
    np.testing.assert_array_equal(first.at, again.at)
    assert set(first.text.tolist()) == {0, 1, 2}
    flat = np.concatenate(first.pieces)
    assert set(flat[first.at].tolist()) == {tokenizer.mask_id}
    alone = masked(tokenizer, texts[:1], 24)
    np.testing.assert_array_equal(
        predictions(model, first, precision="fp32")[: len(alone.at)], predictions(model, alone, precision="fp32")
    )


def test_a_token_is_of_the_language_that_has_it_ten_times_as_often():
    kinds = languages_of(np.array([100, 0, 50, 4, 0]), np.array([0, 200, 60, 100, 0]))
    assert kinds.tolist() == [0, 1, 2, 1, 2]


def test_a_missing_package_is_said_before_the_work(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)  # as if it were not there
    both = files(made, "en.txt", "xx.txt")
    with pytest.raises(UsageError, match=r"gensim.*pip install 'pluri\[understand\]'"):
        align(made / "no model", str(made / "dictionary.txt"), both)
