"""Texts are scored as sacrebleu and rouge-score score them, and resampled whole."""

import numpy as np
import pytest

from pluri.tasks.intervals import bootstrap
from pluri.tasks.text_metrics import repetition, text_outcome

metrics = pytest.importorskip("sacrebleu.metrics")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

REFERENCES = ["the cat sat on the mat .", "a dog ran to the old red house .", "we drink tea in the long winter ."]
WRITTEN = ["the cat sat on a mat .", "the dog ran home .", "we drink tea in the long winter ."]


def test_as_the_libraries_score():
    outcome = text_outcome(REFERENCES, WRITTEN)
    assert outcome.value("bleu") == pytest.approx(metrics.BLEU().corpus_score(WRITTEN, [REFERENCES]).score)
    assert outcome.value("chrf") == pytest.approx(metrics.CHRF().corpus_score(WRITTEN, [REFERENCES]).score)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name in ("rouge1", "rouge2", "rougeL"):
        each = [scorer.score(r, w)[name].fmeasure for r, w in zip(REFERENCES, WRITTEN, strict=True)]
        assert outcome.value(name) == pytest.approx(np.mean(each))
    assert outcome.value("exact_match") == pytest.approx(1 / 3)
    assert outcome.value("length_ratio") == pytest.approx(20 / 24)


def test_a_text_that_is_drawn_twice_counts_twice():
    weights = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    outcome = text_outcome(REFERENCES, WRITTEN)
    for row, order in zip(weights, ([0, 0, 2], [1, 1, 1]), strict=True):
        again = text_outcome([REFERENCES[i] for i in order], [WRITTEN[i] for i in order])
        for metric in outcome.metrics:
            assert outcome.values(metric, row[None])[0] == pytest.approx(again.value(metric)), metric
    interval = bootstrap([outcome], "chrf", replicates=50)
    assert interval.low < interval.value < interval.high


def test_chinese_is_cut_into_characters():
    references, written = ["他很喜欢喝茶。", "今天天气很好。"], ["他喜欢喝茶。", "今天天气很好。"]
    outcome = text_outcome(references, written)
    expected = metrics.BLEU(tokenize="zh").corpus_score(written, [references]).score
    assert outcome.value("bleu") == pytest.approx(expected)
    assert 0.9 < outcome.value("rouge1") < 1
    assert text_outcome(references, references).value("bleu") == pytest.approx(100)


def test_nothing_written_is_the_worst_and_breaks_nothing():
    outcome = text_outcome(REFERENCES, ["", "", ""])
    assert [outcome.value(metric) for metric in outcome.metrics] == [0.0] * len(outcome.metrics)


def test_repetition():
    assert repetition("a b c d e f g") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no no no no no no no") == pytest.approx(3 / 4)
    assert repetition("不不不不不不不") == pytest.approx(3 / 4)
    assert repetition("a b c") == 0
