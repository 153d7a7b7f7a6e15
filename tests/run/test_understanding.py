"""compare and layers from files to a report, with a tiny model of random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from pluri.__main__ import main
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import DataError, UsageError
from pluri.inference.fill import fill_blanks
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.report.layers import headline
from pluri.run import layers as layers_module
from pluri.run.contexts import compare
from pluri.run.corpus import Corpus, occurrences, sampled
from pluri.run.layer_words import Occurrence, PseudoWords, by_prediction
from pluri.run.layers import Layers, Row, layers
from pluri.tokens.training import train_tokenizer
from pluri.tokens.words import split_words

pytest.importorskip("gensim")
FRUIT = ["I ate an apple and a pear", "she cut the apple for the cake", "a red apple fell from the tree"]
COMPANY = ["shares of Apple rose again", "Apple sold phones", "they work at Apple today"]
OTHERS = ["the cat sat on the mat", "a dog ran for the tree", "我喜歡蘋果和貓", "蘋果很紅", "the cake sat on the tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("understand")
    lines = [*FRUIT, *COMPANY, *OTHERS]
    (root / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    (root / "many.txt").write_text("\n".join(f"{line} {i}." for i in range(12) for line in lines), encoding="utf-8")
    tokenizer = train_tokenizer([root / "corpus.txt"], vocab_size=150)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=32, hidden_size=32, num_heads=2)
    config = config.model_copy(update={"initializer_range": 0.3})
    save_model(root / "model", Model(config, {"masked": tokenizer.vocab_size}, seed=3), tokenizer)
    tagged = "\n\n".join(
        "\n".join(
            f"{i + 1}\t{word}\t_\t{'DET' if len(word) < 4 else 'NOUN'}" + "\t_" * 6
            for i, word in enumerate(line.split())
        )
        for line in lines * 2
    )
    (root / "tags.conllu").write_text(tagged + "\n\n", encoding="utf-8")
    return root


def test_a_word_is_compared_in_each_of_its_sentences(folder):
    found = compare("apple", folder / "corpus.txt", folder / "model")
    assert sorted(each.sentence for each in found.occurrences) == sorted(FRUIT + COMPANY)
    assert {each.sentence[each.start : each.end] for each in found.occurrences} == {"apple", "Apple"}
    assert found.cosines.shape == (3, 6, 6)
    np.testing.assert_allclose(found.cosines[:, range(6), range(6)], 1, atol=1e-5)
    assert found.cosines[2].min() < 0.99
    assert found.static.cosines is not None
    assert (found.static.cosines == 1.0).all()
    assert all("apple" not in [word for word, _ in near] for near in found.neighbours)
    np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)


def test_words_without_spaces_and_given_words(folder, tmp_path):
    found = compare("蘋果", folder / "corpus.txt", folder / "model", static="skip-gram", layer=1)
    assert [(each.start, each.end) for each in found.occurrences if each.sentence == OTHERS[2]] == [(3, 5)]
    (tmp_path / "cut.txt").write_text("我 喜歡 蘋果 派\n蘋果派 很 紅\n蘋果 很 紅\n", encoding="utf-8")
    found = compare("蘋果", tmp_path / "cut.txt", folder / "model", segmented=True)
    assert {each.sentence for each in found.occurrences} == {"我 喜歡 蘋果 派", "蘋果 很 紅"}
    assert "蘋果派" in {word for word, _ in found.neighbours[0]}


def test_a_file_of_static_vectors_stands_beside(folder, tmp_path):
    (tmp_path / "v.txt").write_text("apple 1 0\ntree 1 0.1\nmat 0 1\n")
    found = compare("apple", folder / "corpus.txt", folder / "model", static=str(tmp_path / "v.txt"))
    assert [word for word, _ in found.static.neighbours] == ["tree", "mat"]
    (tmp_path / "v.txt").write_text("tree 1 0.1\nmat 0 1\n")
    assert (
        compare("apple", folder / "corpus.txt", folder / "model", static=str(tmp_path / "v.txt")).static.cosines is None
    )


@pytest.mark.parametrize(
    ("word", "options", "error", "message"),
    [
        ("aple", {}, DataError, r"'aple' never occurs; near it are apple"),
        ("xyzzy", {}, DataError, "never occurs; nothing there is spelled nearly so"),
        ("dog", {}, DataError, "occurs in 1 sentence, and there is nothing"),
        (" ", {}, UsageError, "no word given"),
        ("apple", {"layer": 3}, UsageError, "no layer 3"),
    ],
)
def test_what_cannot_be_compared_is_said(folder, word, options, error, message):
    with pytest.raises(error, match=message):
        compare(word, folder / "corpus.txt", folder / "model", **options)


def test_occurrences_beyond_what_the_model_reads_are_counted(folder, tmp_path):
    late = [f"{'the cat sat ' * 20} apple {i}" for i in range(3)]
    (tmp_path / "late.txt").write_text("\n".join([*late, *FRUIT]), encoding="utf-8")
    found = compare("apple", tmp_path / "late.txt", folder / "model")
    assert (found.found, found.lost, len(found.occurrences)) == (6, 3, 3)
    (tmp_path / "late.txt").write_text("\n".join(late), encoding="utf-8")
    with pytest.raises(DataError, match="0 of 3 sentences have 'apple' within the 32 tokens that are read"):
        compare("apple", tmp_path / "late.txt", folder / "model")


def test_an_occurrence_is_a_whole_word():
    def found(word: str, sentence: str) -> list[tuple[int, int]]:
        return occurrences(word, sentence, split_words(sentence))

    assert found("cat", "Cat, cats and a cat") == [(0, 1), (5, 6)]
    assert found("new york", "in New York.") == [(1, 3)]
    assert found("蘋果", "我的蘋果。") == [(2, 4)]


def test_a_sample_is_even_whatever_stands_behind():
    drawn = [sampled(range(50), 10, seed) for seed in range(200)]
    assert all(len(each) == 10 and each == sorted(each) for each in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    assert counts.min() > 15
    assert sampled(range(5000), 10, 0) == sampled(iter(range(5000)), 10, 0)


def test_layers_measures_all(folder, monkeypatch, capsys):
    monkeypatch.setattr(layers_module, "_MEASURED", 60)
    report = folder / "layers.html"
    arguments = [
        "layers",
        str(folder / "many.txt"),
        "--model",
        str(folder / "model"),
        "--tags",
        str(folder / "tags.conllu"),
    ]
    assert main([*arguments, "-o", str(report), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(row["measure"], row["of"]): [] for row in rows}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"] or row["low"] == pytest.approx(row["value"], abs=1e-9)
        found[row["measure"], row["of"]].append(row["value"])
    assert found["pseudo_words", "static (cbow)"] == [0.5]
    assert 0 <= found["pseudo_words", "masked prediction"][0] <= 1
    for of in ("pretrained", "random start"):
        assert all(
            len(found[measure, of]) == 3 for measure in ("self_similarity", "anisotropy", "selectivity", "pseudo_words")
        )
        np.testing.assert_allclose(
            np.subtract(found["probe_accuracy", of], found["control_accuracy", of]), found["selectivity", of], atol=1e-9
        )
    text = report.read_text(encoding="utf-8")
    assert f"pluri layers {folder / 'many.txt'}" in text
    assert "<script src" not in text


def test_too_little_text_is_said(folder, tmp_path):
    (tmp_path / "short.txt").write_text("one two three\n")
    with pytest.raises(DataError, match=r"short\.txt: no word stands in 5 of its 1 sentences; give more text"):
        layers(tmp_path / "short.txt", folder / "model")


def test_the_prediction_is_that_of_filling_blanks(folder):
    model, tokenizer = load_model(folder / "model")
    spots = [Occurrence(0, second, f"the {word} sat", 4, 7) for second, word in ((False, "cat"), (True, "dog"))] * 5
    _, probability, pairs = by_prediction(model, tokenizer, PseudoWords([("cat", "dog")], spots))
    scores = {g["token_str"]: g["score"] for g in fill_blanks(model, tokenizer, "the [MASK] sat", tokenizer.vocab_size)}
    assert pairs == 1
    assert probability is not None
    true = scores["cat"] / (scores["cat"] + scores["dog"])
    assert probability.value == pytest.approx((true + 1 - true) / 2)
    only = PseudoWords([("cat", "dog")], [Occurrence(0, False, "the cat sat", 4, 7)] * 10)
    _, probability, _ = by_prediction(model, tokenizer, only)
    assert probability is not None
    assert probability.value == pytest.approx(true, abs=1e-4)


def test_words_of_a_pair_never_meet_and_are_as_many(folder):
    corpus = Corpus.of(folder / "many.txt")
    words = PseudoWords.of(list(corpus), corpus, seed=0)
    assert words.pairs
    for p, (a, b) in enumerate(words.pairs):
        own = [each for each in words.occurrences if each.pair == p]
        assert sum(each.second for each in own) * 2 == len(own)
        for each in own:
            there = each.sentence[each.start : each.end].lower()
            assert there == (b if each.second else a)
            names = [name.lower() for name, _ in split_words(each.sentence)]
            assert names.count(a) + names.count(b) == 1
            assert f"{a}{b}" in each.written(words.name(each))


def row(measure: str, of: str, layer: int, value: float) -> Row:
    return Row(measure, of, layer, value, value - 0.02, value + 0.02)


def test_what_contradicts_the_literature_is_said_as_it_is():
    def told(better: float, last: float) -> str:
        rows = [row("pseudo_words", "pretrained", 1, better), row("pseudo_words", "random start", 1, 0.6)]
        for layer, value in enumerate((0.5, last)):
            rows += [row(m, "pretrained", layer, value) for m in ("self_similarity", "intra_sentence_similarity")]
            rows += [
                row(m, "pretrained", layer, 0.1)
                for m in ("maximum_explainable_variance", "variance_baseline", "anisotropy")
            ]
        found = headline(Layers("m", "c", 1, rows, {"pairs of words": 9}, [("a", "b")], []))
        return " ".join([found.claim, *found.details])

    assert "pretraining taught it that" in told(0.9, 0.3)
    assert "Self-similarity falls" in told(0.9, 0.3)
    assert "what pretraining adds does not show" in told(0.6, 0.3)
    assert "neither is clearly above chance" in told(0.51, 0.3)
    assert "Self-similarity rises from 0.50 in the embedding to 0.70 in layer 1, against" in told(0.9, 0.7)


def test_compare_writes_a_report_and_json(folder, capsys):
    report = folder / "apple.html"
    assert (
        main(
            [
                "compare",
                "apple",
                "--sentences",
                str(folder / "corpus.txt"),
                "--model",
                str(folder / "model"),
                "-o",
                str(report),
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["static"]["cosine"] == 1.0
    text = report.read_text(encoding="utf-8")
    assert f"pluri compare apple --sentences {folder / 'corpus.txt'}" in text
    figures = json.loads(text.partition('id="figures">')[2].partition("</script>")[0])
    heat, lines, attention = figures.values()
    assert [trace["group"] for trace in heat["data"]] == ["layer 2", "layer 0", "layer 1", "static"]
    assert any(set(trace["y"]) == {1.0} for trace in lines["data"])
    assert len(attention["data"]) == 2 * 2
