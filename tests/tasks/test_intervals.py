import numpy as np
import pytest

from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import Outcome


def right_or_wrong(correct, sequence=None):
    correct = np.asarray(correct)
    sequence = np.arange(len(correct)) if sequence is None else sequence
    return Outcome(np.ones(len(correct), np.int64), correct.astype(np.int64), sequence, int(sequence.max()) + 1, 2)


def test_interval_of_accuracy_is_the_binomial_one():
    correct = np.arange(400) % 4 != 0  # 75% right
    interval = bootstrap([right_or_wrong(correct)], "accuracy", replicates=4000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval.value == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)


def test_sequences_are_resampled_whole():
    """Tokens of one sentence are right or wrong together: the interval is as wide as that of the sentences."""
    sentences = np.arange(40) % 2
    tokens = right_or_wrong(np.repeat(sentences, 25), np.repeat(np.arange(40), 25))
    alone = right_or_wrong(np.repeat(sentences, 25))
    together, apart = (bootstrap([o], "accuracy") for o in (tokens, alone))
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_seeds_widen_the_interval_and_their_mean_is_the_value():
    good, bad = right_or_wrong(np.ones(500)), right_or_wrong(np.zeros(500))
    interval = bootstrap([good, bad], "accuracy")
    assert (interval.value, interval.low, interval.high) == (0.5, 0.0, 1.0)
    assert bootstrap([good, good], "accuracy").low == 1.0


def test_same_seed_same_interval():
    numbers = np.arange(50.0)
    outcome = Outcome(numbers, (numbers * 7) % 11, np.arange(50), 50)
    assert bootstrap([outcome], "pearson", seed=3) == bootstrap([outcome], "pearson", seed=3)
    assert bootstrap([outcome], "pearson", seed=3) != bootstrap([outcome], "pearson", seed=4)
