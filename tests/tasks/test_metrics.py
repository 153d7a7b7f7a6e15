import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.tasks.metrics import Outcome

sklearn_metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")

labels = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


def outcome_of(pairs, num_classes, sequence=None):
    gold, predicted = np.array(pairs).T
    sequence = np.arange(len(gold)) if sequence is None else sequence
    return Outcome(gold, predicted, sequence, int(sequence.max()) + 1, num_classes)


@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:A single label")
@given(labels)
def test_class_metrics_equal_scikit_learn(drawn):
    num_classes, pairs = drawn
    outcome = outcome_of(pairs, num_classes)
    gold, predicted = outcome.gold, outcome.predicted
    assert outcome.value("accuracy") == pytest.approx(sklearn_metrics.accuracy_score(gold, predicted))
    for average in ("macro", "micro"):
        expected = sklearn_metrics.f1_score(gold, predicted, average=average, zero_division=0)
        assert outcome.value(f"{average}_f1") == pytest.approx(expected)
    assert outcome.value("mcc") == pytest.approx(sklearn_metrics.matthews_corrcoef(gold, predicted), abs=1e-12)
    confusion = sklearn_metrics.confusion_matrix(gold, predicted, labels=range(num_classes))
    assert (outcome.confusion() == confusion).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_positive_f1_is_of_the_later_of_two_classes(pairs):
    outcome = outcome_of(pairs, 2)
    expected = sklearn_metrics.f1_score(outcome.gold, outcome.predicted, pos_label=1, zero_division=0)
    assert outcome.value("positive_f1") == pytest.approx(expected)
    assert "positive_f1" in outcome.metrics
    assert "positive_f1" not in outcome_of(pairs, 3).metrics


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=40))
def test_correlations_equal_scipy(pairs):
    x, y = np.array(pairs, float).T
    outcome = Outcome(x, y, np.arange(len(x)), len(x))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert outcome.value("pearson") == outcome.value("spearman") == 0
    else:
        assert outcome.value("pearson") == pytest.approx(scipy_stats.pearsonr(x, y)[0], abs=1e-9)
        assert outcome.value("spearman") == pytest.approx(scipy_stats.spearmanr(x, y)[0], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=30))
def test_a_weight_counts_as_copies(rows):
    """Weights are bootstrap counts: the metric under them is the metric of the data set with its rows repeated."""
    gold, predicted, copies = np.array(rows).T
    copies[0] += 1
    repeated = np.repeat(np.arange(len(gold)), copies)
    sequence = np.arange(len(gold))
    for num_classes, metrics in ((4, ("accuracy", "macro_f1", "mcc")), (0, ("pearson", "spearman"))):
        kind = int if num_classes else float
        whole = Outcome(gold.astype(kind), predicted.astype(kind), sequence, len(gold), num_classes)
        long = Outcome(
            gold[repeated].astype(kind),
            predicted[repeated].astype(kind),
            np.arange(len(repeated)),
            len(repeated),
            num_classes,
        )
        for metric in metrics:
            weighted = whole.values(metric, copies[None].astype(float))[0]
            assert weighted == pytest.approx(long.value(metric), abs=1e-9)
