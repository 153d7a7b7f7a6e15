"""What the curves say of a start: faster, better, or neither."""

import pytest

from pluri.report.comparison import comparisons
from pluri.report.starts import Course, over_tasks, verdicts


def courses(loss, best, seeds=5, spread=0.01):
    """Falling losses with a mean of `loss` a step, and a best validation of `best`; each seed a bit apart."""
    found = {}
    for seed in range(seeds):
        shift = spread * (seed - (seeds - 1) / 2) * (-1) ** seed
        points = [(10.0, loss + 0.5 + shift), (30.0, loss - 0.25 + shift)]
        found[str(seed)] = Course(points, [(10.0, best - 0.1), (20.0, best + shift / 10), (30.0, best - 0.05)])
    return found


@pytest.mark.parametrize(
    ("loss", "best", "said"),
    [
        (0.5, 0.9, "It learns faster and becomes better."),
        (0.5, 0.8, "It learns faster, and becomes no clearly better."),
        (1.0, 0.9, "It learns about as fast, and becomes better."),
        (1.5, 0.7, "It learns more slowly, and becomes worse."),
        (1.0, 0.8, "Neither is a clear difference."),
    ],
)
def test_faster_better_or_neither(loss, best, said):
    ours = courses(loss, best, spread=-0.02)
    runs = {"pretrained (A)": ours, "random start (A)": courses(1.0, 0.8), "random start (B)": courses(9.0, 0.1)}
    (sentence,) = verdicts(runs, "accuracy", True)
    assert sentence.endswith(said)
    assert f"differs by {loss - 1:+.3f}".replace("-", "\N{MINUS SIGN}").replace("+0.000", "") in sentence
    assert "points" in sentence


def test_of_an_error_less_is_better():
    (sentence,) = verdicts({"pretrained": courses(0.5, 0.2), "random start": courses(1.0, 0.8)}, "mse", False)
    assert sentence.endswith("It learns faster and becomes better.")


def test_one_seed_or_no_random_start_claims_nothing():
    (sentence,) = verdicts({"pretrained": courses(0.5, 0.9, 1), "random start": courses(1, 0.8, 1)}, "accuracy", True)
    assert sentence.endswith("One seed alone cannot tell chance from a gain.")
    assert verdicts({"pretrained": courses(0.5, 0.9)}, "accuracy", True) == []


def test_several_tasks_in_one_sentence_a_model():
    means = {"splice": (0.9, 0.7), "gb1": (0.3, 0.6), "composers": (0.5, 0.5), "peptides": (0.8, 0.5)}
    rows = [
        {"task": task, "method": method, "labelled": 9, "seed": seed, "metric": "mcc", "value": value + seed / 1000}
        for task, pair in means.items()
        for method, value in zip(("pretrained (A)", "random start (A)"), pair, strict=True)
        for seed in range(3)
    ]
    assert over_tasks(comparisons(rows)) == [
        "Over 4 tasks, pretrained (A) is better than its random start on splice and peptides, worse on gb1 and not "
        "clearly different on composers."
    ]
    assert over_tasks(comparisons(rows[:6])) == []
