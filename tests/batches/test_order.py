"""The order of draws: everything once an epoch, few shards at a time, any place by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.batches import order as module
from pluri.batches.mixture import _Windows
from pluri.batches.order import ByShard, of_few_shards
from pluri.runtime import permuted, sequence_keys


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "_FEW", 3)


def borders_of(sizes) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=23).filter(any), st.integers(0, 5))
def test_each_epoch_has_everything_once(sizes, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", 4)
        order, total = ByShard(borders_of(sizes), seed), sum(sizes)
        index, epoch = order(np.arange(3 * total))
        assert epoch.tolist() == [0] * total + [1] * total + [2] * total
        for each in np.split(index, 3):
            assert sorted(each.tolist()) == list(range(total))
        places = np.random.default_rng(seed).permutation(3 * total)[:17]
        again, _ = order(places)
        np.testing.assert_array_equal(again, index[places])


def test_a_store_of_one_block_is_shuffled_as_a_whole():
    index, _ = ByShard(borders_of([10, 30, 5, 2]), 7)(np.arange(47))
    np.testing.assert_array_equal(index, permuted(np.arange(47), 47, sequence_keys(7, 0, 2**63)))


def test_of_many_shards_few_are_in_use_at_a_time():
    sizes = np.full(40, 50)
    order = ByShard(borders_of(sizes), 3)
    assert order.blocks == 10
    index, _ = order(np.arange(2 * sizes.sum()))
    used = [set((index[at : at + 200] // 50).tolist()) for at in range(0, 4000, 200)]
    assert all(len(shards) == 4 for shards in used)
    assert used[:10] != used[10:]  # the next epoch puts them together in another way
    inside = index[:200]
    assert np.abs(np.diff(inside)).mean() > 100  # within a block nothing stays together


def test_blocks_of_a_mixture_have_their_share_of_every_source():
    draws = np.array([1000, 37, 5])
    order = _Windows(draws, 10, 1)
    index, _ = order(np.arange(2 * 1042))
    for epoch in np.split(index, 2):
        assert sorted(epoch.tolist()) == list(range(1042))
    for window in np.array_split(index[:1042], 10):
        first = window[window < 1000]
        assert np.ptp(first) < 250  # draws of a source go forward
        assert 2 <= np.count_nonzero((window >= 1000) & (window < 1037)) <= 5
    whole, _ = _Windows(draws, 1, 1)(np.arange(1042))
    np.testing.assert_array_equal(whole, permuted(np.arange(1042), 1042, sequence_keys(1, 0, 2**63)))


def test_few_shards_stand_for_many():
    borders = borders_of(np.full(40, 50))
    documents = np.arange(0, 2000, 2)
    few = of_few_shards(documents, borders, 0)
    assert len(few) == 75
    assert len(set((few // 50).tolist())) == 3
    assert (np.diff(few) > 0).all()
    np.testing.assert_array_equal(of_few_shards(documents[:90], borders, 0), documents[:90])
