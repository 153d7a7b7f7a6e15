import numpy as np
import pytest

from pluri.tasks.fit import Split
from pluri.tasks.task import Labelled, define_task

simple = pytest.importorskip("pluri.tasks.baselines")


@pytest.fixture
def data(made):
    return lambda maker: [getattr(made, maker)(count, seed) for count, seed in ((150, 1), (40, 2), (60, 3))]


def accuracy(task, records, predicted):
    return task.outcome(records, predicted).value(task.metric)


def test_majority_is_the_most_frequent_class_or_the_mean():
    records = [Labelled(("x",), (label,), "f:1") for label in "abb"]
    task = define_task("classify", records)
    assert simple.majority(task, records, records).tolist() == [1, 1, 1]
    numbers = [Labelled(("x",), (label,), "f:1") for label in "126"]
    assert simple.majority(define_task("classify", numbers, regression=True), numbers, numbers).tolist() == [3.0] * 3


def test_windows_learn_what_a_word_begins_with(data):
    train, validation, test = data("tagged")
    task = define_task("tag", train)
    assert accuracy(task, test, simple.windows(task, train, validation, test)) > 0.9


def test_letters_at_their_places():
    """Each text has as many of each letter as any other: only the place tells."""
    chance = np.random.default_rng(0)

    def texts(count):
        found = ["".join(chance.permutation(list("AAACCCGGGTTT"))) for _ in range(count)]
        return [Labelled((text,), ("1" if text[4] in "AC" else "0",), "f:1") for text in found]

    train, validation, test = texts(150), texts(40), texts(60)
    task = define_task("classify", train)
    assert accuracy(task, test, simple.places(task, train, validation, test)) > 0.95
    assert accuracy(task, test, simple.tfidf(task, train, validation, test)) < 0.8
    assert simple.of_one_length([*train, *test])
    assert not simple.of_one_length([*train, Labelled(("ACG",), ("0",), "f:1")])


def test_tfidf_learns_words():
    def texts(count, seed):
        chance = np.random.default_rng(seed)
        kinds = chance.integers(0, 2, count)
        fillers = chance.integers(0, 30, (count, 4))
        return [
            Labelled((" ".join([f"w{f}" for f in row] + [("awful", "lovely")[kind]]),), (str(kind),), "f:1")
            for kind, row in zip(kinds, fillers, strict=True)
        ]

    train, validation, test = texts(80, 0), texts(30, 1), texts(60, 2)
    task = define_task("classify", train)
    assert accuracy(task, test, simple.tfidf(task, train, validation, test)) > 0.9


def test_tfidf_reads_text_without_spaces_and_numbers(data):
    train, validation, test = (
        [Labelled((r.units[0].replace(" ", ""),), r.labels, r.where) for r in records] for records in data("measured")
    )
    task = define_task("classify", train, regression=True)
    assert accuracy(task, test, simple.tfidf(task, train, validation, test)) > 0.8


@pytest.mark.parametrize(("maker", "kind", "regression"), [("tagged", "tag", False), ("measured", "classify", True)])
def test_frozen_features_are_read_but_not_changed(data, small, tokenizer, maker, kind, regression):
    train, validation, test = data(maker)
    task = define_task(kind, train, regression=regression)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    splits = [Split.of(records, task, tokenizer, 48, truncate=False) for records in (train, validation, test)]
    predicted = simple.frozen(task, small, *splits)
    assert accuracy(task, test, predicted) > 0.6
    assert all((value == before[name]).all() for name, value in small.state_dict().items())


def test_means_are_over_each_sequences_own_tokens(made, small, tokenizer):
    records = made.classified(12)
    task = define_task("classify", records)
    together = np.concatenate(
        list(simple._features(small, task, Split.of(records, task, tokenizer, 48, truncate=False)))
    )
    one = Split.of(records[4:5], task, tokenizer, 48, truncate=False)
    alone = np.concatenate(list(simple._features(small, task, one)))
    np.testing.assert_allclose(together[4], alone[0], atol=1e-5)


def test_a_draw_of_one_class_only_is_no_failure(made):
    train, validation = made.tagged(30), made.tagged(10, 2)
    task = define_task("tag", train)
    single = [Labelled(("abc", "bcd"), ("LOW", "LOW"), "f:1")]
    assert set(simple.windows(task, single, validation, validation)) == {task.labels.index("LOW")}


def test_tfidf_compares_the_texts_of_a_pair():
    """Words that training never saw: only how alike the two texts are tells the class."""

    def pairs(count, first):
        chance = np.random.default_rng(first)
        found = []
        for i in range(count):
            words = [f"w{first + word}" for word in chance.permutation(400)[:8]]
            other = words[:4] if i % 2 else words[4:]
            found.append(Labelled((" ".join(words[:4]), " ".join(other[::-1])), (str(i % 2),), "f:1"))
        return found

    train, validation, test = pairs(80, 0), pairs(30, 100), pairs(60, 200)
    task = define_task("pair", train)
    assert accuracy(task, test, simple.tfidf(task, train, validation, test)) > 0.9


def test_frozen_features_compare_the_texts_of_a_pair_each_read_alone(made, small, tokenizer):
    texts = [record.units[0] for record in made.classified(12)]
    records = [Labelled((a, b), (str(len(a) % 2),), "f:1") for a, b in zip(texts[::2], texts[1::2], strict=True)]
    singles = [Labelled((text,), ("0",), "f:1") for text in texts]

    def features(task, records):
        split = Split.of(records, task, tokenizer, 48, truncate=False)
        return np.concatenate(list(simple._features(small, task, split)))

    alone = features(define_task("classify", [*singles, Labelled(("a",), ("1",), "f:1")]), singles)
    u, v = alone[::2], alone[1::2]
    expected = np.concatenate([u, v, abs(u - v), u * v], 1)
    np.testing.assert_allclose(features(define_task("pair", records), records), expected, atol=1e-5)
    parted = np.split(alone, [1, 4, 5])  # batches may end within a pair
    np.testing.assert_array_equal(np.concatenate(list(simple._compared(parted))), expected)
