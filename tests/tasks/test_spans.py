"""Spans that tags spell, equal to seqeval's, with legal and illegal tags."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.errors import UsageError
from pluri.tasks.intervals import bootstrap
from pluri.tasks.metrics import SpanOutcome
from pluri.tasks.spans import find_spans, illegal, recognized, scheme_of, span_counts, span_tags
from pluri.tasks.task import Labelled, define_task

LETTERS = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES"}
AS_BIOES = str.maketrans("LUM", "ESI")  # what seqeval, unless it is strict, knows these letters by


def labels_of(scheme, types=("PER", "creative-work")):
    return ("O", *(f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in types))


@st.composite
def tagged(draw):
    """A scheme, and sentences of (gold, predicted) labels."""
    scheme = draw(st.sampled_from(list(LETTERS)))
    tag = st.integers(0, len(labels_of(scheme)) - 1)
    return scheme, draw(st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=9), min_size=1, max_size=5))


def written(labels, ids, lengths):
    """Label ids as seqeval wants them."""
    tags = [labels[i] if labels[i] == "O" else labels[i][0].translate(AS_BIOES) + labels[i][1:] for i in ids]
    return [list(part) for part in np.split(np.array(tags, object), np.cumsum(lengths)[:-1])]


@settings(max_examples=80, deadline=None)
@given(tagged())
def test_scores_equal_seqeval_whether_tags_are_legal_or_not(drawn):
    seqeval = pytest.importorskip("seqeval.metrics")
    scheme, sentences = drawn
    labels, lengths = labels_of(scheme), np.array([len(sentence) for sentence in sentences])
    gold, predicted = np.array([pair for sentence in sentences for pair in sentence]).T
    counts = span_counts(span_tags(labels, scheme), gold, predicted, lengths)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    outcome = SpanOutcome(gold, predicted, sequence, len(lengths), len(labels), spans=counts)
    true, said = (written(labels, side, lengths) for side in (gold, predicted))
    for name in ("f1", "precision", "recall"):
        expected = getattr(seqeval, f"{name}_score")(true, said, zero_division=0)
        assert outcome.value(f"span_{name}") == pytest.approx(expected)


def walk(allowed, chance, length):
    """A random sentence of `length` allowed tags."""
    border = len(allowed) - 1
    while True:
        found = [border]
        for _ in range(length):
            found.append(int(chance.choice(np.flatnonzero(allowed[found[-1], :border]))))
        if allowed[found[-1], border]:
            return found[1:]


@pytest.mark.parametrize(("scheme", "name"), [("IOB2", "IOB2"), ("BIOES", "IOBES"), ("BILOU", "BILOU")])
def test_where_tags_are_allowed_seqevals_strict_score_is_the_same(scheme, name):
    seqeval, schemes = pytest.importorskip("seqeval.metrics"), pytest.importorskip("seqeval.scheme")
    labels, chance = labels_of(scheme), np.random.default_rng(0)
    tags, lengths = span_tags(labels, scheme), np.array([1, 3, 8])
    for _ in range(20):
        gold, said = ([walk(tags.allowed, chance, length) for length in lengths] for _ in range(2))
        right, found, true = span_counts(tags, np.concatenate(gold), np.concatenate(said), lengths).sum(0)
        strict = [[[labels[i] for i in sentence] for sentence in side] for side in (gold, said)]
        expected = seqeval.f1_score(*strict, mode="strict", scheme=getattr(schemes, name), zero_division=0)
        assert 2 * right / max(found + true, 1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A I-B", [(0, 1, "A"), (1, 2, "B")]),
        ("I-A B-A I-A", [(0, 1, "A"), (1, 3, "A")]),
        ("O O", []),
        ("B I", [(0, 2, "")]),
    ],
)
def test_spans_by_hand(tags, expected):
    said = tags.split()
    labels = tuple(sorted(set(said)))
    meaning = span_tags(labels, "IOB2")
    ids = np.array([labels.index(tag) for tag in said])
    starts, ends, types = find_spans(meaning, ids, np.array([len(said)]))
    assert [(s, e, meaning.names[t]) for s, e, t in zip(starts, ends, types, strict=True)] == expected


def test_spans_end_with_their_sentence():
    meaning = span_tags(("B-A", "I-A"), "IOB2")
    starts, ends, _ = find_spans(meaning, np.array([0, 1, 1, 1]), np.array([2, 0, 2]))
    assert (starts.tolist(), ends.tolist()) == ([0, 2], [2, 4])


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ("O B-PER I-PER", "IOB2"),
        ("O B-PER", "IOB2"),
        ("B I", "IOB2"),
        ("O B-PER I-PER E-PER S-PER", "BIOES"),
        ("O B-PER L-PER U-LOC", "BILOU"),
        ("B M E S", "BMES"),
        ("NOUN VERB", None),
        ("I O", None),  # inside and outside of a membrane
        ("H E C", None),
        ("O B-PER X", None),
        ("O-PER B-PER", None),
        ("B-A L-A S-A", None),
    ],
)
def test_schemes_are_known_by_the_names_of_labels(labels, scheme):
    assert scheme_of(labels.split()) == scheme


@pytest.mark.parametrize(
    ("sentences", "scheme", "wrong"),
    [
        (["B-A I-A O", "B-A B-A"], "IOB2", []),
        (["I-A I-A O", "I-A B-A"], "IOB1", []),
        (["B-A I-A O", "B-A O I-A"], "IOB2", [5]),  # mostly IOB2, and one fault
        (["B-A E-A", "I-A E-A", "S-A B-A"], "BIOES", [2, 5]),
        (["U-A B-A L-B"], "BILOU", [2]),
    ],
)
def test_illegal_tags_are_found_and_iob1_is_told_from_iob2(sentences, scheme, wrong):
    split = [sentence.split() for sentence in sentences]
    labels = tuple(sorted({tag for sentence in split for tag in sentence}))
    ids = np.array([labels.index(tag) for sentence in split for tag in sentence])
    lengths = np.array([len(sentence) for sentence in split])
    assert recognized(labels, ids, lengths) == scheme
    assert np.flatnonzero(illegal(span_tags(labels, scheme), ids, lengths)).tolist() == wrong


def sentence(tags, where="train.conll:1"):
    return Labelled(tuple("w" for _ in tags.split()), tuple(tags.split()), where)


def test_span_f1_is_the_default_of_spans_and_accuracy_of_other_tags():
    records = [sentence("B-A I-A O"), sentence("O B-A O")]
    task = define_task("tag", records)
    assert (task.scheme, task.metric) == ("IOB2", "span_f1")
    assert define_task("tag", records, metric="macro_f1").metric == "macro_f1"
    assert define_task("tag", [sentence("NOUN VERB")]).metric == "accuracy"
    with pytest.raises(UsageError, match="has no metric 'span_f1'"):
        define_task("tag", [sentence("NOUN VERB")], metric="span_f1")
    with pytest.raises(UsageError, match=r"^legal: these labels spell no spans; leave it out"):
        define_task("tag", [sentence("NOUN VERB")], legal=True)


def test_a_weight_counts_as_copies_and_intervals_enclose_the_score():
    records = [sentence("B-A I-A O"), sentence("O B-A O"), sentence("B-A B-B O")]
    task = define_task("tag", records)
    said = task.targets([sentence("B-A I-A O"), sentence("O B-B O"), sentence("B-A B-B B-A")])
    outcome = task.outcome(records, said)
    assert outcome.value("span_f1") == pytest.approx(2 * 3 / (5 + 4))
    copies = np.array([[2.0, 0.0, 1.0]])
    assert outcome.values("span_precision", copies)[0] == pytest.approx(4 / 5)
    assert outcome.values("span_recall", np.array([[0.0, 1.0, 0.0]]))[0] == 0
    interval = bootstrap([outcome], "span_f1")
    assert interval.low < interval.value < interval.high <= 1


def test_tags_have_no_positive_label():
    empty = np.zeros(0, np.int64)
    for classes in (2, 3):
        outcome = SpanOutcome(empty, empty, empty, 0, classes, spans=np.zeros((0, 3)))
        assert "positive_f1" not in outcome.metrics
        assert {"span_f1", "accuracy", "macro_f1"} <= set(outcome.metrics)
