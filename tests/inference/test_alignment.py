"""Ranks of translations, orthogonal maps, and the mean vectors of words and phrases."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pluri.errors import DataError
from pluri.inference import alignment
from pluri.inference.alignment import SIMILARITIES, directions, mean_sentences, mean_vectors, procrustes, ranks
from pluri.inference.word_vectors import word_vectors
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.dictionary import Entries, read_dictionary, written
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

TEXTS = ["New York is old. new York grows!", "I like old New things", "我在中国北京。中间", "中国"] * 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Tokenizer]:
    file = tmp_path_factory.mktemp("alignment") / "text.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    tokenizer = train_tokenizer([file], vocab_size=80)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=16, num_layers=2, max_length=16)
    return Model(config, seed=3), tokenizer


def some(count: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_ranks_are_those_of_the_definition(similarity: str, monkeypatch: pytest.MonkeyPatch):
    source, target = some(40, 6, 0), some(55, 6, 1)
    pairs = np.unique(np.random.default_rng(2).integers(0, (30, 50), (45, 2)), axis=0)
    monkeypatch.setattr(alignment, "_BLOCK", 200)  # several blocks
    found = ranks(source, target, pairs, similarity)  # pyright: ignore[reportArgumentType]
    cosine = (source @ target.T).double().numpy()
    if similarity == "csls":  # Conneau et al. 2018, equation 3, with both corrections
        near = np.sort(cosine, 1)[:, -10:].mean(1), np.sort(cosine, 0)[-10:].mean(0)
        cosine = 2 * cosine - near[0][:, None] - near[1][None]
    for side, scores in enumerate((cosine, cosine.T)):
        for i, rank in enumerate(found[side]):
            gold = {int(pair[1 - side]) for pair in pairs if pair[side] == i}
            if not gold:
                assert np.isnan(rank)
                continue
            best = max(scores[i, j] for j in gold)
            assert rank == 1 + sum(scores[i, j] > best for j in range(scores.shape[1]) if j not in gold)


def test_what_is_all_the_same_is_not_found():
    same = torch.ones(9, 4) / 2
    forward, backward = ranks(same, same, np.repeat(np.arange(9)[:, None], 2, axis=1), "raw")
    assert forward.tolist() == backward.tolist() == [5.0] * 9


def test_an_orthogonal_map_is_found_again_and_a_constant_is_taken_away():
    source = some(300, 12, 0)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1))).Q
    torch.testing.assert_close(procrustes(source[:150], (source @ rotation)[:150]), rotation, atol=1e-4, rtol=0)
    pairs = np.repeat(np.arange(300)[:, None], 2, axis=1)
    apart = some(1, 12, 2)
    one, other = (source - apart).numpy(), (source + apart).numpy()
    raw, centred = (ranks(directions(one, s), directions(other, s), pairs, s)[0].mean() for s in ("raw", "centred"))
    assert centred == 1 < 2 < raw


def test_means_of_words_and_phrases(trained: tuple[Model, Tokenizer]):
    model, tokenizer = trained
    entries = Entries([("new", "york"), ("new",), ("old",), ("中", "国"), ("中",), ("never",)])
    found = mean_vectors(model, tokenizer, TEXTS, entries)
    assert found.counts.tolist() == [6, 3, 6, 6, 3, 0]  # 中国 is not also 中, New York not also new
    (chunk,) = word_vectors(model, tokenizer, TEXTS)
    names = np.array(chunk.words)
    np.testing.assert_allclose(found.vectors[:, 2], chunk.vectors[:, names == "old"].mean(1), atol=1e-5)
    halves = [chunk.vectors[:, names == name] for name in ("York",)]
    york = np.flatnonzero(names == "York")
    both = (halves[0] + chunk.vectors[:, york - 1]) / 2
    np.testing.assert_allclose(found.vectors[:, 0], both.mean(1), atol=1e-5)
    assert not found.vectors[:, 5].any()
    assert found.words == len(names)
    np.testing.assert_allclose(found.mean, chunk.vectors.mean(1), atol=1e-5)
    sentences = mean_sentences(model, tokenizer, ["", *TEXTS[:2]])
    assert not sentences[:, 0].any()
    np.testing.assert_allclose(sentences[:, 2], chunk.vectors[:, chunk.text == 1].mean(1), atol=1e-5)


def test_what_is_beyond_the_models_length_is_counted_and_no_occurrence(trained: tuple[Model, Tokenizer]):
    text = " ".join(["things"] * 13) + " New York"
    found = mean_vectors(*trained, [text, "New York"], Entries([("new", "york"), ("things",)]))
    assert found.cut > 0
    assert found.counts.tolist() == [1, 13]


def test_a_dictionary_accounts_for_every_line(tmp_path: Path):
    file = tmp_path / "dictionary.txt"
    file.write_text("will 将\nwill 要\n\nwill 将\nNew York\t纽约\nice cream 冰淇淋\nalone\nhave\t\n", encoding="utf-8")
    found = read_dictionary(str(file))
    assert [tuple(map(written, pair)) for pair in found.pairs] == [("will", "将"), ("will", "要"), ("New York", "纽约")]
    assert (found.read, found.repeated, found.phrases, len(found.left_out)) == (7, 1, 1, 3)
    assert found.read == len(found.pairs) + found.repeated + len(found.left_out)
    assert found.left_out[0] == f"{file}:6: 'ice cream 冰淇淋' is not two columns"
    file.write_text("a;b\nc;d\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dictionary\.txt:1: 'a;b' is not two columns; write a word, a tab"):
        read_dictionary(str(file))


def test_a_word_is_taken_as_it_is_written_else_in_lower_case():
    entries = Entries([("wille",), ("Wille",), ("haben",)])
    assert entries.find(["Wille", "wille", "Haben", "HABEN", "x"]) == [(0, 1, 1), (1, 2, 0), (2, 3, 2), (3, 4, 2)]
