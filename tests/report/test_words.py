import pytest

from pluri.report.comparison import comparisons
from pluri.report.story import steps
from pluri.report.words import about, count, headline, shown, signed

BETTER = {"pretrained": (0.57, 0.66, 0.75), "random start": (0.45, 0.54, 0.67)}


def sentence(rows, unit="sentences"):
    return headline(comparisons(rows)[0], unit)


def test_a_gain_is_told_with_its_interval(make_rows):
    found = sentence(make_rows(BETTER))
    assert found.verdict == "better"
    assert found.claim.startswith("With 50 labelled sentences, pretraining lifts accuracy from 45.")
    assert found.evidence.startswith("+11.")
    assert "points, 95% interval +" in found.evidence


COUNTED = {**BETTER, "counted neighbours, no training": (0.56, None, None)}


def test_a_gain_that_stands_in_the_counts_is_not_called_that_of_training(make_rows):
    found = sentence(make_rows(COUNTED))
    assert "pretraining lifts" not in found.claim
    assert "with a random start to 56." in found.claim
    assert "by counting neighbours, and to 56." in found.claim
    assert "points in all, 95% interval" in found.evidence
    assert "without one step of training; the training after it changes that by +0.9 points (95%" in found.details[0]
    rivals = [text for text in found.details if "simple method" in text]
    assert not rivals  # the counted start is no method of its own


def test_what_training_adds_within_chance_is_told_so(make_rows):
    means = {**BETTER, "counted neighbours, no training": (0.5685, None, None)}
    assert ": no clear difference." in sentence(make_rows(means)).details[0]


def test_best_simple_methods_that_differ_are_named_by_size(make_rows):
    means = {**BETTER, "windows": (0.52, 0.60, 0.80), "TF-IDF": (0.50, 0.61, 0.70)}
    text = " ".join(sentence(make_rows(means)).details)
    assert "better with 50 (windows)" in text
    assert "better with 200 (TF-IDF)" in text
    assert "named below" not in text


def test_a_loss_is_told_as_a_loss(make_rows):
    found = sentence(make_rows({"pretrained": (0.40, 0.5, 0.6), "random start": (0.45, 0.54, 0.67)}))
    assert found.verdict == "worse"
    assert "pretraining did not help: accuracy is 39." in found.claim
    assert found.evidence.startswith("−")


def test_a_difference_within_chance_is_not_called_a_gain(make_rows):
    found = sentence(make_rows({"pretrained": (0.452, 0.54, 0.67), "random start": (0.45, 0.54, 0.67)}))
    assert found.verdict == "unclear"
    assert "no clear difference" in found.claim
    assert "lifts" not in found.claim


def test_one_seed_is_said(make_rows):
    found = sentence(make_rows(BETTER, seeds=1))
    assert found.evidence.endswith("one seed, so no interval")


def test_a_winning_baseline_and_the_crossing_are_named(make_rows):
    text = " ".join(sentence(make_rows({**BETTER, "windows": (0.52, 0.67, 0.80)})).details)
    assert "Against the best simple method (windows)" in text
    assert "better with 50" in text
    assert "worse with 1,000" in text
    assert "cross at about 1" in text
    assert "from there on windows is ahead" in text


def test_a_baseline_that_always_wins_is_named_without_a_crossing(make_rows):
    text = " ".join(sentence(make_rows({**BETTER, "windows": (0.65, 0.72, 0.85)})).details)
    assert "worse with 50" in text
    assert "cross" not in text


def test_labels_saved(make_rows):
    (saved,) = [s for s in sentence(make_rows(BETTER)).details if "times as many" in s]
    assert "needs about 2" in saved  # between 200 (54%) and 1000 (67%) for 57%
    never = sentence(make_rows({"pretrained": (0.9, 0.9, 0.9), "random start": (0.45, 0.54, 0.67)}))
    assert "even 1,000 labelled sentences do not reach" in never.details[0]


def test_an_error_to_be_lowered(make_rows):
    rows = [
        {**row, "metric": "mse"} for row in make_rows({"pretrained": (0.3, 0.2, 0.1), "random start": (0.6, 0.5, 0.4)})
    ]
    found = sentence(rows)
    assert found.verdict == "better"
    assert "lowers mse from 0.6" in found.claim


def test_without_a_pretrained_model_the_best_method_is_named(make_rows):
    found = sentence(make_rows({"windows": (0.5, 0.6, 0.7), "majority": (0.2, 0.2, 0.2)}))
    assert (found.verdict, found.claim.startswith("With 50 labelled sentences, windows reaches")) == ("none", True)


def test_each_run_of_two_is_compared_with_its_own_random_start(make_rows):
    means = {
        "pretrained (a)": (0.57, 0.6, 0.7),
        "random start (a)": (0.45, 0.5, 0.6),
        "random start (b)": (0.1, 0.1, 0.1),
    }
    assert "from 45." in sentence(make_rows(means)).claim


@pytest.mark.parametrize(("value", "text"), [(0.1213, "+12.1"), (-0.0449, "−4.5"), (0.00001, "0.0"), (-0.00001, "0.0")])
def test_points(make_rows, value, text):
    assert signed(comparisons(make_rows(BETTER))[0], value) == text


def test_numbers(make_rows):
    (found,) = comparisons([{**row, "metric": "pearson"} for row in make_rows(BETTER)])
    assert shown(found, -0.25) == "−0.250"
    assert (count(1234), count(1_530_000), count(2.5e9)) == ("1,234", "1.5 million", "2.5 billion")
    assert (about(187.3), about(1234), about(42)) == ("190", "1,200", "42")


def judged(rows):
    return steps([], [], comparisons(rows), "sentences")[-1]["text"]


def test_how_often_it_was_done_is_told_of_each_size(make_rows):
    assert judged(make_rows(BETTER, seeds=1)).endswith("All of it was done once.")
    rows = make_rows(BETTER, seeds=3)
    assert judged(rows).endswith("All of it was done 3 times, each time with another draw of labels.")
    fewer = [row for row in rows if row["seed"] < {50: 3, 200: 2, 1000: 1}[row["labelled"]]]
    told = (
        "It was done 3 times with 50 labels, twice with 200 labels and once with 1,000 labels, each time with another"
    )
    assert told in judged(fewer)
    assert "3 times with 50 labels, twice" in judged([r for r in rows if r["method"] == "pretrained" or r in fewer])
