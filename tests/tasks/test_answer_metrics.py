"""Expected values are worked out by hand from the rules of the official scripts."""

import numpy as np
import pytest

from pluri.tasks.answer_metrics import answer_outcome, by_characters, by_words, normalized
from pluri.tasks.intervals import bootstrap


def test_case_punctuation_articles_and_blanks_do_not_count():
    assert normalized("  The  U.S. (an) Army,  a ") == "us army"


@pytest.mark.parametrize(
    ("references", "predicted", "exact", "f1"),
    [
        (["The Apple Inc."], "apple inc", 1, 1),
        (["Denver Broncos"], "the Broncos", 0, 2 / 3),  # 1 of 1 word, 1 of 2
        (["gold", "blue gold"], "Blue gold!", 1, 1),  # the best reference
        (["x y y"], "y y z", 0, 2 / 3),  # words count as often as they stand there
        (["red"], "green", 0, 0),
        (["the"], "a", 1, 0),  # version 1.1: equal once normalized, but no word in common
    ],
)
def test_words_as_squad_1(references, predicted, exact, f1):
    assert by_words(references, predicted) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("references", "predicted", "exact", "f1"),
    [
        ([""], "", 1, 1),
        ([""], "dog", 0, 0),
        (["dog"], "", 0, 0),
        (["the"], "a", 1, 1),  # version 2.0: a reference of articles alone is none
        (["the", "dog"], "", 0, 0),  # ... and is left out beside another
    ],
)
def test_words_as_squad_2(references, predicted, exact, f1):
    assert by_words(references, predicted, some_without=True) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("references", "predicted", "exact", "f1"),
    [
        (["《红楼梦》"], "红楼梦", 1, 1),
        (["1998年7月"], "1998年", 0, 2 / 3),  # 2 units of 4 and 2
        (["甲乙丙丁"], "甲丙丁", 0, 4 / 7),  # the longest run is 丙丁; as a subsequence it would be 3
        (["iOS-7"], "ios7", 1, 1),  # the hyphen is taken out before words are cut
        (["3,000公尺"], "3000公尺", 0, 2 / 3),  # an ASCII comma is not
        (["甲", "乙丙"], "乙", 0, 2 / 3),
        (["甲"], "乙", 0, 0),
        (["New York"], "new  york", 0, 1),  # inner blanks count for the exact match only
    ],
)
def test_characters_as_cmrc(references, predicted, exact, f1):
    assert by_characters(references, predicted) == pytest.approx((exact, f1))


def test_questions_with_and_without_an_answer_are_also_counted_apart():
    outcome = answer_outcome([("cat",), (), (), ("dog", "big dog")], ["cat", "mouse", "", "a dog house"])
    assert outcome.scoring == "words"
    assert outcome.metrics == ("exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")
    found = {metric: outcome.value(metric) for metric in outcome.metrics}
    assert found["exact_match"] == pytest.approx(2 / 4)
    assert found["f1"] == pytest.approx((1 + 0 + 1 + 2 / 3) / 4)
    assert found["HasAns_exact"] == pytest.approx(1 / 2)
    assert found["HasAns_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["NoAns_exact"] == found["NoAns_f1"] == pytest.approx(1 / 2)
    assert answer_outcome([("cat",)], ["cat"]).metrics == ("exact_match", "f1")


def test_a_weight_counts_as_copies():
    outcome = answer_outcome([("cat",), (), ("dog",)], ["cat", "mouse", "a dog house"])
    weights = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    np.testing.assert_allclose(outcome.values("f1", weights), [(2 + 2 / 3) / 3, 0])
    np.testing.assert_allclose(outcome.values("HasAns_exact", weights), [2 / 3, 0])
    assert bootstrap([outcome], "f1").low <= outcome.value("f1") <= bootstrap([outcome], "f1").high


def test_rules_follow_the_script_of_the_answers_or_the_wish():
    chinese = [("天神地區",), ("1998年",)]
    assert answer_outcome(chinese, ["天神", ""]).scoring == "characters"
    assert answer_outcome(chinese, ["天神", ""]).value("f1") == pytest.approx(1 / 3)
    assert answer_outcome(chinese, ["天神", ""], "words").value("f1") == 0
    assert answer_outcome([("the 天 temple",)], ["temple"]).scoring == "words"
