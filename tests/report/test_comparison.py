import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pluri.report.comparison import Estimate, comparisons, crossings, size_to_reach


def row(method, value, seed=0, labelled=50, **more):
    return {
        "task": "t",
        "method": method,
        "labelled": labelled,
        "seed": seed,
        "metric": "accuracy",
        "value": value,
        **more,
    }


def mean_of(comparison, method) -> Estimate:
    found = comparison.estimate(method, 50)
    assert found is not None
    return found


def gap(comparison, method, other) -> Estimate:
    found = comparison.difference(method, other, 50)
    assert found is not None
    return found


values = st.lists(st.floats(0, 1), min_size=2, max_size=8)


@given(values)
def test_interval_over_seeds_is_scipys_t_interval(sample):
    (found,) = comparisons([row("a", value, seed) for seed, value in enumerate(sample)])
    estimate = mean_of(found, "a")
    assert estimate.mean == pytest.approx(np.mean(sample))
    half = stats.t.ppf(0.975, len(sample) - 1) * stats.sem(sample)
    assert estimate.half == pytest.approx(half, abs=1e-12)
    assert estimate.basis == "seeds"


@given(values, values)
def test_difference_is_paired_by_seed(first, second):
    pairs = list(zip(first, second, strict=False))
    rows = [row("a", a, seed) for seed, (a, _) in enumerate(pairs)] + [
        row("b", b, seed) for seed, (_, b) in enumerate(pairs)
    ]
    (found,) = comparisons(rows)
    difference = gap(found, "a", "b")
    low, high = (difference.low, difference.high)
    deltas = [a - b for a, b in pairs]
    half = stats.t.ppf(0.975, len(deltas) - 1) * stats.sem(deltas)
    assert (low, high) == pytest.approx((np.mean(deltas) - half, np.mean(deltas) + half), abs=1e-12)


def test_pairing_finds_a_gain_that_the_draw_of_labels_hides():
    draws = [0.30, 0.50, 0.70]
    rows = [row("a", d + 0.05 + 0.001 * i, i) for i, d in enumerate(draws)] + [
        row("b", d, i) for i, d in enumerate(draws)
    ]
    (found,) = comparisons(rows)
    assert gap(found, "a", "b").sign == 1
    assert (mean_of(found, "a").low or 0) < (mean_of(found, "b").high or 0)


def test_one_seed_has_no_interval_unless_the_row_carries_one():
    (found,) = comparisons([row("a", 0.5), row("b", 0.4, low=0.3, high=0.45), row("c", 0.6, low=0.5, high=0.7)])
    assert mean_of(found, "a").low is None
    assert (mean_of(found, "b").low, mean_of(found, "b").basis) == (0.3, "bootstrap")
    assert gap(found, "a", "b").low is None
    difference = gap(found, "c", "b")
    assert difference.half == pytest.approx(math.hypot(0.1, 0.075))


def test_carried_intervals_never_hide_the_spread_over_seeds():
    narrow = [
        row("a", value, seed, low=value - 0.001, high=value + 0.001) for seed, value in enumerate((0.3, 0.5, 0.7))
    ]
    assert mean_of(comparisons(narrow)[0], "a").basis == "seeds"
    shared = [row("a", value, seed, low=0.35, high=0.66) for seed, value in enumerate((0.3, 0.5, 0.7))]
    found = mean_of(comparisons(shared)[0], "a")
    assert (found.low, found.high) == pytest.approx((0.35, 0.66))
    assert found.basis == "bootstrap"


def test_rows_without_a_value_are_left_out_and_accuracy_comes_first():
    rows = [row("a", 0.5) | {"metric": "macro_f1"}, row("a", 0.6), row("a", float("nan"), 1), row("a", None, 2)]
    found = comparisons(rows)
    assert [comparison.metric for comparison in found] == ["accuracy", "macro_f1"]
    assert len(found[0].rows) == 1


def test_curves_cross_where_straight_lines_over_the_logarithm_do():
    (place,) = crossings({10: 0.0, 1000: 2.0}, {10: 1.0, 1000: 1.0})
    assert place == pytest.approx(100)
    assert crossings({10: 0.0, 1000: 0.5}, {10: 1.0, 1000: 1.0}) == []


def test_size_to_reach():
    curve = {10: 0.0, 1000: 2.0}
    assert size_to_reach(curve, 1.0) == pytest.approx(100)
    assert size_to_reach(curve, 2.5) is None
    assert size_to_reach(curve, -1.0) == 10
    assert size_to_reach({10: 2.0, 1000: 0.0}, 1.0, better=-1) == pytest.approx(100)


@pytest.mark.parametrize(("seeds", "basis"), [(2, "bootstrap"), (3, "seeds")])
def test_the_interval_over_seeds_counts_from_three_on(seeds, basis):
    values = [(0.62, 0.50), (0.60, 0.52), (0.66, 0.51)][:seeds]
    rows = [row("a", a, n, low=0.60, high=0.64) for n, (a, _) in enumerate(values)]
    rows += [row("b", b, n, low=0.48, high=0.54) for n, (_, b) in enumerate(values)]
    found = gap(comparisons(rows)[0], "a", "b")
    differences = [a - b for a, b in values]
    assert (found.basis, found.seeds) == (basis, seeds)
    assert found.mean == pytest.approx(np.mean(differences))
    t = stats.t.ppf(0.975, seeds - 1) * np.std(differences, ddof=1) / seeds**0.5
    wanted = math.hypot(0.02, 0.03) if seeds == 2 else t
    assert found.half == pytest.approx(wanted)
