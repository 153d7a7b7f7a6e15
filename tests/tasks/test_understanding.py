"""What is measured of vectors: geometry, clusters, pseudo-words, probes, and static vectors beside them."""

import itertools

import numpy as np
import pytest

from pluri.tasks.clusters import _silhouette, clustered
from pluri.tasks.geometry import (
    intra_sentence_similarity,
    maximum_explainable_variance,
    mean_cosine,
    mean_cosines,
    self_similarity,
)
from pluri.tasks.intervals import draws
from pluri.tasks.probes import control_tags, probed
from pluri.tasks.pseudo_words import paired, told_apart
from pluri.tasks.word2vec import train_static

CHANCE = np.random.default_rng(0)


def vectors(n: int, width: int = 30, shift: float = 0.0) -> np.ndarray:
    return (CHANCE.normal(size=(n, width)) + shift).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_measures_are_the_published_definitions():
    some = vectors(7, shift=0.5)
    pairs = [cosine(a, b) for a, b in itertools.permutations(some, 2)]
    assert self_similarity(some) == pytest.approx(sum(pairs) / (7 * 7 - 7), abs=1e-5)
    inside = [cosine(some.mean(0), each) for each in some]
    assert intra_sentence_similarity(some) == pytest.approx(np.mean(inside), abs=1e-5)
    singular = np.linalg.svd(some, compute_uv=False)
    assert maximum_explainable_variance(some) == pytest.approx(singular[0] ** 2 / (singular**2).sum(), abs=1e-5)
    static = np.repeat(some[:1], 5, 0)
    assert [f(static) for f in (self_similarity, maximum_explainable_variance)] == pytest.approx([1, 1])


def test_replicates_of_the_baseline_never_pair_an_occurrence_with_itself():
    some = vectors(9)
    weights = draws(9, replicates=3)
    for weight, found in zip(weights, mean_cosines(some, weights), strict=True):
        drawn = np.repeat(np.arange(9), weight.astype(int))
        pairs = [cosine(some[i], some[j]) for i, j in itertools.permutations(drawn, 2) if i != j]
        assert found == pytest.approx(np.mean(pairs), abs=1e-5)
    assert mean_cosines(some, np.ones((1, 9)))[0] == pytest.approx(mean_cosine(some), abs=1e-6)


def test_clusters_are_found_where_there_are_some_and_not_where_there_is_one():
    centres = 3 * vectors(3, 40)
    three = np.concatenate([centre + vectors(n, 40) for centre, n in zip(centres, (5, 9, 7), strict=True)])
    found = clustered(three)
    assert (found.count, np.bincount(found.labels).tolist()) == (3, [9, 7, 5])
    assert [len(set(found.labels[part])) for part in (slice(0, 5), slice(5, 14), slice(14, 21))] == [1, 1, 1]
    assert np.all(np.diff(found.labels[found.order]) >= 0)
    for n in (5, 12, 60):
        assert clustered(vectors(n, 40, shift=1.0)).count == 1
    assert clustered(three[:3]).silhouette is None


def test_silhouettes_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    distances = np.abs(CHANCE.normal(size=(9, 9)))
    distances += distances.T
    np.fill_diagonal(distances, 0)
    labels = np.array([0, 0, 1, 1, 1, 2, 0, 1, 3])  # two of them alone
    wanted = metrics.silhouette_score(distances, labels, metric="precomputed")
    assert _silhouette(distances, labels) == pytest.approx(wanted)


def test_pseudo_words_are_told_by_context_alone():
    second = np.arange(40) % 2 == 1
    static = np.repeat(vectors(1), 40, 0)
    assert told_apart(static, second) == 0.5
    noise = [told_apart(vectors(40), second) for _ in range(30)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.06)
    clear = vectors(40)
    clear[second, 0] += 30
    assert told_apart(clear, second) == 1.0


def test_pairs_are_of_like_frequency_and_no_word_is_in_two():
    counts = {f"w{i}": int(3 + 500 / (i + 1)) for i in range(60)}
    pairs = paired(counts, 10, 15, seed=1)
    words = [word for pair in pairs for word in pair]
    assert 5 < len(pairs) <= 15
    assert len(set(words)) == len(words)
    assert all(counts[a] >= 10 and counts[b] >= 10 and counts[a] <= 1.25 * counts[b] for a, b in pairs)
    assert pairs == paired(counts, 10, 15, seed=1) != paired(counts, 10, 15, seed=2)


def test_a_control_task_has_one_tag_a_word_as_frequent_as_the_true_ones():
    words = [f"w{i}" for i in range(2000)] * 2
    tags = np.repeat([0, 1, 1, 1], 1000)
    control = control_tags(words, tags, 0)
    np.testing.assert_array_equal(control[:2000], control[2000:])
    assert control.mean() == pytest.approx(0.75, abs=0.04)


def test_a_probe_reads_what_is_there():
    some, tags = vectors(300), CHANCE.integers(0, 3, 300)
    some[np.arange(300), tags] += 8
    assert (probed(some[:200], tags[:200], some[200:]) == tags[200:]).mean() > 0.9
    assert (probed(some[:200], tags[:200] * 0, some[200:]) == 0).all()


@pytest.mark.parametrize("method", ["cbow", "skip-gram"])
def test_static_vectors_are_learnt_and_the_same_each_time(method):
    pytest.importorskip("gensim")
    sentences = [["the", a, b] for a in ("cat", "dog") for b in ("ran", "sat")] * 40
    found, again = (train_static(sentences, method, width=8, seed=3) for _ in range(2))
    np.testing.assert_array_equal(found.vectors, again.vectors)
    assert set(found.rows) == {"the", "cat", "dog", "ran", "sat"}
    assert found.vectors.shape == (6, 8)
    assert not found.vectors[0].any()
