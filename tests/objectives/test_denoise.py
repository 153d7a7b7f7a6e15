"""What is broken, how often, and what the decoder must write: within the bounds of a binomial distribution."""

from itertools import chain, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pluri.batches.example import IGNORE, Examples
from pluri.errors import UsageError
from pluri.objectives.config import Denoise, ObjectiveConfig
from pluri.objectives.corruptions import partition_spans, poisson_spans, some_of
from pluri.objectives.denoise import Denoising
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import sequence_keys
from pluri.tokens.ragged import Ragged, offsets_of

PAD, UNK, CLS, SEP, MASK = range(5)
SENTINELS = np.arange(95, 100, dtype=np.int32)
TOKENIZER: Any = SimpleNamespace(
    vocab_size=100,
    unk_id=UNK,
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
    special_ids=np.concatenate([np.arange(5), SENTINELS]),
    sentinel_ids=SENTINELS,
)
KINDS = ["mask", "delete", "infill", "permute", "rotate", "mass", "sentinel"]
MIXES = [*([kind] for kind in KINDS), ["infill", "permute"], ["delete", "mask", "rotate", "permute", "infill"]]


def group(lengths: list[int], seed: int = 0, *, unknown: float = 0.0) -> tuple[Ragged, Ragged]:
    """Sequences of different numbers, some of them unknown, and their sentences of two to five tokens."""
    chance = np.random.default_rng(seed)
    ids = np.concatenate([chance.permutation(np.arange(5, 95))[:n] for n in lengths] or [[]]).astype(np.int32)
    ids[chance.random(len(ids)) < unknown] = UNK
    starts = [np.cumsum(chance.integers(2, 6, n)) for n in lengths]
    starts = [each[each < n].astype(np.int32) for each, n in zip(starts, lengths, strict=True)]
    sizes = np.array([len(each) for each in starts], np.int64)
    return Ragged(ids, offsets_of(np.array(lengths, np.int64))), Ragged(np.concatenate(starts), offsets_of(sizes))


def denoise(kinds: list[str], tokens: Ragged, sentences: Ragged, seed: int = 0, **config: Any) -> Examples:
    keys = sequence_keys(seed, 0, np.arange(len(tokens)))
    return Denoising(Denoise.parse({"kinds": kinds, **config}), TOKENIZER)(tokens, sentences, keys)


def parts(ids: NDArray, offsets: NDArray) -> list[list[int]]:
    return [ids[a:b].tolist() for a, b in pairwise(offsets)]


def contents(examples: Examples) -> list[tuple[list[int], list[int], list[int], int]]:
    """(source, what the decoder reads, its labels, its first position) of each sequence."""
    assert examples.labels is not None
    assert examples.source is not None
    sources = parts(examples.source.input_ids, examples.source.offsets)
    first = [0] * len(examples) if examples.first_positions is None else examples.first_positions.tolist()
    read, labels = (parts(each, examples.offsets) for each in (examples.input_ids, examples.labels))
    return list(zip(sources, read, labels, first, strict=True))


def near(successes: float, trials: int, rate: float) -> bool:
    """Within five standard deviations of a binomial distribution."""
    return abs(successes - trials * rate) <= 5 * np.sqrt(trials * rate * (1 - rate))


def even(counts: NDArray) -> bool:
    """Whether all counts may well have the same expectation: chi-square."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum()) < len(counts) - 1 + 5 * np.sqrt(2 * (len(counts) - 1))


def is_part(short: list[int], long: list[int]) -> bool:
    """Whether `short` is `long` with some items left out."""
    rest = iter(long)
    return all(item in rest for item in short)


@pytest.mark.parametrize("kinds", MIXES, ids="+".join)
@settings(max_examples=15)
@given(data=st.data())
def test_a_sequence_does_not_depend_on_its_group(kinds: list[str], data: st.DataObject):
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=10))
    some = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=10))
    tokens, sentences = group(lengths, unknown=0.1)
    chosen = [np.concatenate([parts(each.ids, each.offsets)[i] for i in some]) for each in (tokens, sentences)]
    picked = [
        Ragged(ids.astype(np.int32), offsets_of(each.lengths[some]))
        for ids, each in zip(chosen, (tokens, sentences), strict=True)
    ]
    keys = sequence_keys(1, 2, np.arange(len(lengths)))
    objective = Denoising(Denoise.parse({"kinds": kinds}), TOKENIZER)
    before = tokens.ids.copy()
    together, apart = (
        contents(objective(tokens, sentences, keys)),
        contents(objective(picked[0], picked[1], keys[some])),
    )
    assert np.array_equal(before, tokens.ids)  # a pure function leaves its arguments alone
    assert [together[i] for i in some] == apart


@pytest.mark.parametrize("kinds", MIXES, ids="+".join)
@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([None, 0.05, 0.9, 1.0]),
)
def test_special_tokens_are_left_alone(kinds: list[str], lengths: list[int], seed: int, rate: float | None):
    tokens, sentences = group(lengths, seed, unknown=0.3)
    for (source, read, labels, _), whole in zip(
        contents(denoise(kinds, tokens, sentences, seed, rate=rate)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        assert (source[0], source[-1], read[0]) == (CLS, SEP, SEP)
        assert source.count(UNK) == whole.count(UNK)
        assert {CLS, SEP}.isdisjoint(source[1:-1])
        assert UNK not in labels
        assert len(source) <= len(whole) + 2  # so that what fits into the model still does
        assert len(labels) <= len(whole) + 3
        for following, label in zip(read[1:], labels[:-1], strict=True):
            assert label == (IGNORE if following == UNK else following)  # a label is the token that is read next


@pytest.mark.parametrize("kinds", [kinds for kinds in MIXES if not {"mass", "sentinel"} & set(kinds)], ids="+".join)
def test_the_decoder_writes_the_whole(kinds: list[str]):
    tokens, sentences = group([0, 1, 7, 40, 60], unknown=0.1)
    for (_, read, labels, first), whole in zip(
        contents(denoise(kinds, tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        assert read == [SEP, CLS, *whole]
        assert labels == [CLS, *(IGNORE if token == UNK else token for token in whole), SEP]
        assert first == 0


def test_masked_tokens():
    tokens, sentences = group([60] * 600)
    source = [x[1:-1] for x, *_ in contents(denoise(["mask"], tokens, sentences))]
    ids = np.concatenate(source)
    assert len(ids) == len(tokens.ids)
    assert near((ids == MASK).sum(), len(ids), 0.15)
    assert np.array_equal(ids[ids != MASK], tokens.ids[ids != MASK])


def test_deleted_tokens():
    tokens, sentences = group([60] * 600)
    source = [x[1:-1] for x, *_ in contents(denoise(["delete"], tokens, sentences))]
    assert near(sum(map(len, source)), len(tokens.ids), 0.85)
    assert all(is_part(short, whole) for short, whole in zip(source, parts(tokens.ids, tokens.offsets), strict=True))
    places = np.concatenate([np.isin(w, s) for s, w in zip(source, parts(tokens.ids, tokens.offsets), strict=True)])
    assert np.abs(places.reshape(600, 60).mean(0) - 0.85).max() < 5 * np.sqrt(0.15 * 0.85 / 600)


def test_nothing_is_left_where_all_is_deleted():
    tokens, sentences = group([0, 7, 60])
    for source, read, *_ in contents(denoise(["delete"], tokens, sentences, rate=1)):
        assert source == [CLS, SEP]
        assert read[:2] == [SEP, CLS]


def test_infilled_spans():
    tokens, sentences = group([60] * 600)
    shown = np.zeros(60)
    empty, masks = 0, 0
    for (source, *_), whole in zip(
        contents(denoise(["infill"], tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        inner = source[1:-1]
        kept = [token for token in inner if token != MASK]
        assert len(kept) == 42  # 30% are covered
        assert is_part(kept, whole)
        shown += np.isin(whole, kept)
        masks += inner.count(MASK)
        # masks between two tokens that were neighbours stand for nothing
        pairs = set(pairwise(whole))
        text = " ".join(map(str, inner))
        empty += any(f"{a} {MASK} {b}" in text for a, b in pairs)
    assert np.abs(shown[10:-10] / 600 - 0.68).max() < 0.06 + 5 * np.sqrt(0.3 * 0.7 / 600)  # the ends are shown more
    assert 6 < masks / 600 < 7.5  # 18 tokens in spans of 3, the last one cut
    assert empty > 60


@pytest.mark.parametrize("mean", [2.0, 3.0, 6.0])
def test_span_lengths_are_poisson(mean: float):
    counts = np.full(400, 1000)
    spans = poisson_spans(sequence_keys(0, 0, np.arange(400)), counts, 0.3, mean)
    assert np.bincount(np.repeat(np.arange(400), spans.counts), spans.sizes).tolist() == [300.0] * 400
    assert (spans.counts > 100 / mean).all()
    last = np.cumsum(spans.counts) - 1  # cut to the share, or to what is left
    sizes = spans.sizes
    assert abs(np.delete(sizes, last).mean() - mean) < 5 * np.sqrt(mean / len(sizes)) + mean * mean / 300
    assert abs((sizes == 0).mean() - np.exp(-mean)) < 5 * np.sqrt(np.exp(-mean) / len(sizes)) + 0.01
    assert abs((sizes == 2).mean() - np.exp(-mean) * mean**2 / 2) < 0.01
    ends = spans.starts + sizes
    same = np.diff(np.repeat(np.arange(400), spans.counts)) == 0
    assert np.all(spans.starts[1:][same] >= ends[:-1][same])
    assert spans.starts.min() >= 0
    assert ends.max() <= 400_000


def test_any_choice_is_as_likely():
    n = 6000
    chosen = some_of(sequence_keys(0, 0, np.arange(n)), np.full(n, 4), np.full(n, 2))
    pairs = chosen.reshape(n, 2) - 4 * np.arange(n)[:, None]
    assert even(np.unique(pairs @ [4, 1], return_counts=True)[1])
    assert len(np.unique(pairs @ [4, 1])) == 6


def test_sentences_change_places():
    tokens, _ = group([9] * 1500)
    sentences = Ragged(np.tile(np.array([2, 5], np.int32), 1500), 2 * np.arange(1501))
    orders = []
    for (source, *_), whole in zip(
        contents(denoise(["permute"], tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        inner = source[1:-1]
        pieces = [whole[:2], whole[2:5], whole[5:]]
        rank = sorted(range(3), key=lambda i: inner.index(pieces[i][0]))
        assert inner == list(chain(*(pieces[i] for i in rank)))
        orders.append(tuple(rank))
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 6
    assert even(counts)


def test_documents_are_rotated():
    tokens, sentences = group([8] * 1500)
    shifts = []
    for (source, *_), whole in zip(
        contents(denoise(["rotate"], tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        shift = whole.index(source[1])
        assert source[1:-1] == whole[shift:] + whole[:shift]
        shifts.append(shift)
    assert even(np.bincount(shifts, minlength=8))


def test_mass_hides_one_half_and_asks_for_it():
    tokens, sentences = group([40] * 1500)
    firsts, hidden = [], np.zeros(3, int)
    for (source, read, labels, first), whole in zip(
        contents(denoise(["mass"], tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        assert labels == whole[first - 1 : first + 19]
        assert read == [SEP, *labels[:-1]]  # nothing before the span, nothing behind it
        inner = source[1:-1]
        assert inner[: first - 1] + inner[first + 19 :] == whole[: first - 1] + whole[first + 19 :]
        span = np.array(inner[first - 1 : first + 19])
        hidden += [(span == MASK).sum(), (span == labels).sum(), 20]
        firsts.append(first - 1)
    assert near(hidden[0], hidden[2], 0.8)
    assert near(hidden[1], hidden[2], 0.1 + 0.1 / 90)  # a random token may be the true one
    assert even(np.bincount(firsts, minlength=21))


def test_sentinels_stand_for_what_the_decoder_explains():
    tokens, sentences = group([40] * 600)
    shown = np.zeros(40)
    for (source, read, labels, _), whole in zip(
        contents(denoise(["sentinel"], tokens, sentences)), parts(tokens.ids, tokens.offsets), strict=True
    ):
        assert read == [SEP, *labels[:-1]]
        assert labels[-1] == SEP
        marks = [i for i, token in enumerate(labels) if token in SENTINELS]
        assert [labels[i] for i in marks] == SENTINELS[:3].tolist()  # 6 tokens in 2 spans, and the end
        spans = {labels[a]: labels[a + 1 : b] for a, b in pairwise(marks)}
        assert all(spans.values())
        assert sum(map(len, spans.values())) == 6
        inner = source[1:-1]
        assert list(chain(*(spans.get(token, [token]) for token in inner))) == whole
        assert not any(a in SENTINELS and b in SENTINELS for a, b in pairwise(inner))
        shown += np.isin(whole, inner)
    assert np.abs(shown / 600 - 0.85).max() < 0.1  # the ends of a sequence are covered a little less


def test_partitions_are_as_published():
    counts = np.full(200, 512)
    spans = partition_spans(sequence_keys(0, 0, np.arange(200)), counts, 0.15, 3.0, 99)
    assert set(spans.counts) == {26}  # 77 tokens: T5, section 3.1.4 and 3.3.4
    assert spans.sizes.min() == 1
    assert np.bincount(np.repeat(np.arange(200), spans.counts), spans.sizes).tolist() == [77.0] * 200
    few = partition_spans(sequence_keys(0, 0, np.arange(200)), counts, 0.15, 3.0, 4)
    assert set(few.counts) == {4}


def test_a_store_is_denoised_anew_each_epoch(make_store):
    store = make_store(np.random.default_rng(0).integers(1, 200, 60).tolist())
    config = ObjectiveConfig.parse({"denoise": {"kinds": ["infill", "permute"]}})
    made = StoreExamples(store, config, length=64, seed=0)
    index = np.arange(len(made))
    first, again, other = (made.examples(index, np.full_like(index, epoch)) for epoch in (0, 0, 1))
    assert contents(first) == contents(again)
    assert [x[0] for x in contents(first)] != [x[0] for x in contents(other)]
    assert [x[2] for x in contents(first)] == [x[2] for x in contents(other)]
    assert first.source is not None
    assert made.mean_length == pytest.approx((first.lengths + first.source.lengths).mean(), rel=0.1)
    assert first.lengths.max() <= 64
    written = np.concatenate([labels[1:-1] for *_, labels, _ in contents(first)])
    assert np.array_equal(written, store.ids)


def test_impossible_denoising_is_refused(make_store):
    with pytest.raises(UsageError, match="mass has a target of its own"):
        Denoise.parse({"kinds": ["mass", "rotate"]})
    with pytest.raises(UsageError, match="named twice"):
        Denoise.parse({"kinds": ["mask", "mask"]})
    with pytest.raises(UsageError, match="denoise goes alone"):
        ObjectiveConfig.parse({"denoise": {"kinds": ["mask"]}, "pair": "sop"})
    with pytest.raises(UsageError, match="no sentinel tokens"):
        Denoising(Denoise(kinds=("sentinel",)), make_store([1]).tokenizer)
