"""What is covered, by what, and how often: within the bounds of a binomial distribution."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pluri.batches.example import IGNORE, Examples
from pluri.errors import UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.masked import MaskedTokens
from pluri.objectives.spans import SpanLengths, spans
from pluri.runtime import sequence_keys
from pluri.tokens.ragged import offsets_of

PAD, UNK, CLS, SEP, MASK = range(5)
UNITS = ["token", "word", "span"]


def group(lengths: list[int], seed: int = 0, *, unknown: float = 0.05) -> Examples:
    """[CLS] x [SEP] with x of given lengths, some of it unknown."""
    offsets = offsets_of(np.array(lengths, np.int64) + 2)
    draws = np.random.default_rng(seed)
    ids = draws.integers(5, 100, offsets[-1]).astype(np.int32)
    ids[draws.random(len(ids)) < unknown] = UNK
    ids[offsets[:-1]], ids[offsets[1:] - 1] = CLS, SEP
    return Examples(ids, offsets)


def cover(tokenizer: Any, examples: Examples, seed: int = 0, epoch: int = 0, **config) -> tuple[NDArray, NDArray]:
    """Corrupted ids and labels."""
    keys = sequence_keys(seed, epoch, np.arange(len(examples)))
    covered = MaskedTokens(ObjectiveConfig(**config), tokenizer)(examples, keys)
    assert covered.labels is not None
    return covered.input_ids, covered.labels


def near(successes: int, trials: int, rate: float) -> bool:
    """Within five standard deviations of a binomial distribution."""
    return abs(successes - trials * rate) <= 5 * np.sqrt(trials * rate * (1 - rate))


@pytest.fixture(scope="module")
def tokenizer(make_store) -> Any:
    return make_store([1]).tokenizer


@pytest.fixture(scope="module")
def long() -> Examples:
    return group([100] * 1000)


@pytest.mark.parametrize("unit", UNITS)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8), seed=st.integers(0, 2**32))
def test_labels_are_the_truth_and_special_tokens_are_left_alone(tokenizer, unit: str, lengths: list[int], seed: int):
    examples = group(lengths, seed, unknown=0.3)
    before = examples.input_ids.copy()
    ids, labels = cover(tokenizer, examples, seed, unit=unit)
    assert np.array_equal(examples.input_ids, before)  # a pure function leaves its arguments alone
    covered = labels != IGNORE
    assert np.array_equal(labels[covered], before[covered])
    assert np.array_equal(ids[~covered], before[~covered])
    assert not np.isin(before[covered], [PAD, UNK, CLS, SEP, MASK]).any()
    assert not np.isin(ids[covered], [PAD, UNK, CLS, SEP]).any()
    for first, end in zip(examples.offsets[:-1], examples.offsets[1:], strict=True):
        assert covered[first:end].any() == (before[first:end] >= 5).any()


@pytest.mark.parametrize("unit", UNITS)
@given(data=st.data())
def test_a_sequence_does_not_depend_on_its_group(tokenizer, unit: str, data: st.DataObject):
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=12))
    some = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=12)))
    examples, keys = group(lengths), sequence_keys(1, 2, np.arange(len(lengths)))
    if data.draw(st.booleans()):  # nothing but ordinary tokens, so that a word ends only where its sequence does
        examples = Examples(60 + examples.input_ids % 40, examples.offsets)
    objective = MaskedTokens(ObjectiveConfig.parse({"unit": unit, "mlm_probability": 0.3}), tokenizer)
    spread = [slice(examples.offsets[i], examples.offsets[i + 1]) for i in some]
    part = Examples(np.concatenate([examples.input_ids[each] for each in spread]), offsets_of(examples.lengths[some]))
    together, apart = objective(examples, keys), objective(part, keys[some])
    assert together.labels is not None
    assert apart.labels is not None
    assert np.array_equal(np.concatenate([together.input_ids[each] for each in spread]), apart.input_ids)
    assert np.array_equal(np.concatenate([together.labels[each] for each in spread]), apart.labels)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_rate(tokenizer, long: Examples, unit: str, rate: float):
    _, labels = cover(tokenizer, long, unit=unit, mlm_probability=rate)
    ordinary = long.input_ids >= 5
    # Tokens of a span are covered together: they count as one trial for every 3.8 (2.2 tokens a word).
    clumping = {"token": 1, "word": 2.2, "span": 8}[unit]
    assert near(round((labels != IGNORE).sum() / clumping), round(ordinary.sum() / clumping), rate)


@pytest.mark.parametrize("unit", UNITS)
def test_rate_is_the_same_at_every_place(tokenizer, unit: str):
    examples = group([60] * 4000, unknown=0)
    _, labels = cover(tokenizer, examples, unit=unit)
    rates = (labels.reshape(4000, 62)[:, 1:-1] != IGNORE).mean(0)  # (60,)
    assert np.abs(rates - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.2, 0.3), (0.0, 0.0)])
def test_replacement_split(tokenizer, long: Examples, unit: str, mask: float, random: float):
    ids, labels = cover(tokenizer, long, unit=unit, mask=mask, random=random)
    covered = labels != IGNORE
    clumping = 8 if unit == "span" else 1  # a span is replaced as a whole
    trials = round(covered.sum() / clumping)
    masked, kept = (ids == MASK)[covered], (ids == labels)[covered]
    by_chance = random / 95  # a random token may be the true one
    assert near(round(masked.sum() / clumping), trials, mask)
    assert near(round(kept.sum() / clumping), trials, 1 - mask - random + by_chance)


def test_random_replacements_are_uniform_over_ordinary_tokens(tokenizer, long: Examples):
    ids, labels = cover(tokenizer, long, mask=0.0, random=1.0, mlm_probability=0.5)
    counts = np.bincount(ids[labels != IGNORE], minlength=100)
    expected = counts.sum() / 95
    assert not counts[:5].any()
    assert ((counts[5:] - expected) ** 2 / expected).sum() < 94 + 5 * np.sqrt(2 * 94)


def test_epochs_draw_anew_and_repeat_exactly(tokenizer, long: Examples):
    first, again, other = (cover(tokenizer, long, epoch=epoch)[1] != IGNORE for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert near((first & other).sum(), (long.input_ids >= 5).sum(), 0.15**2)


def test_tokens_are_covered_independently(tokenizer):
    _, labels = cover(tokenizer, group([60] * 2000, unknown=0))
    covered = (labels.reshape(2000, 62)[:, 1:-1] != IGNORE).astype(float)
    assert abs(np.corrcoef(covered[:, :-1].reshape(-1), covered[:, 1:].reshape(-1))[0, 1]) < 5 / np.sqrt(118_000)


def test_words_are_covered_whole(tokenizer, long: Examples):
    ids, labels = cover(tokenizer, long, unit="word")
    truth, covered = long.input_ids, labels != IGNORE
    goes_on = (truth[1:] >= 60) & (truth[:-1] >= 5)
    assert np.array_equal(covered[1:][goes_on], covered[:-1][goes_on])
    inside = goes_on & covered[1:]  # the tokens of a word are replaced independently
    masked = (ids == MASK)[1:][inside].astype(float), (ids == MASK)[:-1][inside].astype(float)
    assert abs(np.corrcoef(*masked)[0, 1]) < 5 / np.sqrt(inside.sum())


def test_spans_are_replaced_as_one(tokenizer, long: Examples):
    ids, labels = cover(tokenizer, long, unit="span", mask=0.5, random=0)
    neighbours = (labels[1:] != IGNORE) & (labels[:-1] != IGNORE)
    masked = ids == MASK
    assert np.array_equal(masked[1:][neighbours], masked[:-1][neighbours])
    assert 0.4 < masked[labels != IGNORE].mean() < 0.6


def test_span_lengths_are_geometric_and_spans_never_touch():
    lengths = SpanLengths.of(ObjectiveConfig(unit="span"))
    n, units = 300, 1000
    chosen, draws = spans(sequence_keys(0, 0, np.arange(n)), np.arange(n + 1) * units, lengths, 0.15)
    assert np.all(np.diff(chosen) > 0)
    new = (np.diff(chosen, prepend=-2) != 1) | (chosen % units == 0)
    assert np.all(draws[1:][~new[1:]] == draws[:-1][~new[1:]])
    assert len(np.unique(draws)) == new.sum()
    sizes = np.diff(np.append(np.flatnonzero(new), len(chosen)))
    first, last = chosen[new], chosen[new] + sizes - 1
    sizes = sizes[(first % units != 0) & (last % units != units - 1)]  # those that no end of a sequence cuts
    weights = 0.8 ** np.arange(10)
    expected = len(sizes) * weights / weights.sum()
    counts = np.bincount(sizes, minlength=11)[1:]
    assert len(counts) == 10
    assert ((counts - expected) ** 2 / expected).sum() < 9 + 5 * np.sqrt(2 * 9)
    assert abs(sizes.mean() - 3.797) < 0.05  # SpanBERT, section 3.1: 3.8


def test_spans_cover_every_place_alike():
    n, units = 40_000, 100
    lengths = SpanLengths.of(ObjectiveConfig(unit="span"))
    chosen, _ = spans(sequence_keys(0, 0, np.arange(n)), np.arange(n + 1) * units, lengths, 0.15)
    rates = np.bincount(chosen % units, minlength=units) / n  # (100,)
    assert np.abs(rates - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / n)


def test_impossible_objectives_are_refused(tokenizer):
    with pytest.raises(UsageError, match="nothing to learn"):
        ObjectiveConfig.parse({"masked": False})
    with pytest.raises(UsageError, match="at most 1"):
        ObjectiveConfig.parse({"mask": 0.8, "random": 0.3})
    with pytest.raises(UsageError, match="did you mean 'mlm_probability'"):
        ObjectiveConfig.parse({"mlm_probabilty": 0.2})
    with pytest.raises(UsageError, match=r"cannot cover 95%"):
        MaskedTokens(ObjectiveConfig(unit="span", mlm_probability=0.95), tokenizer)
