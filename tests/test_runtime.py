"""Randomness is a pure function of its counters, and statistically what it should be."""

import os
import sys
from collections import Counter
from math import factorial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluri.runtime import (
    fast_bf16,
    keep_freed_memory,
    mix,
    permuted,
    pick_dtype,
    product_rate,
    release_freed_memory,
    sequence_keys,
    uniform,
)

KEYS = st.integers(0, 2**64 - 1)


def test_mix_is_splitmix64():
    # The first outputs of SplitMix64 with seed 1234567, as published with the reference implementation.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert mix(1234567, np.arange(5)).tolist() == expected


def test_mix_broadcasts_and_does_not_depend_on_the_group():
    keys, counters = np.arange(7, dtype=np.uint64), np.arange(11)
    table = mix(keys[:, None], counters)
    assert table.shape == (7, 11)
    assert table[3, 5] == mix(np.uint64(3), 5)
    assert len(np.unique(table)) == 77


def test_uniform_is_uniform_and_uncorrelated():
    draws = uniform(sequence_keys(3, 0, np.arange(2000))[:, None], np.arange(50))  # (2000, 50)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.bincount((draws * 100).astype(int).reshape(-1), minlength=100)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 99 + 5 * np.sqrt(2 * 99)
    for other in (np.roll(draws, 1, 0), np.roll(draws, 1, 1)):
        assert abs(np.corrcoef(draws.reshape(-1), other.reshape(-1))[0, 1]) < 5 / np.sqrt(draws.size)


def test_each_bit_of_a_draw_is_fair_and_independent_of_the_next():
    draws = mix(sequence_keys(1, 2, 3), np.arange(20_000))
    bits = (draws[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)  # (20000, 64)
    correlations = np.corrcoef(bits.T.astype(float)) - np.eye(64)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(20_000)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(20_000)


def test_keys_differ_by_seed_epoch_and_index():
    keys = {int(sequence_keys(s, e, i)) for s in range(8) for e in range(8) for i in range(8)}
    assert len(keys) == 512


@given(n=st.integers(1, 400), key=KEYS)
def test_permuted_is_a_permutation(n: int, key: int):
    image = permuted(np.arange(n), n, key)
    assert np.array_equal(np.sort(image), np.arange(n))
    assert permuted(np.int64(n - 1), n, key) == image[-1]


@given(n=st.integers(2**40, 2**62), key=KEYS)
def test_permuted_stays_inside_and_apart_in_a_huge_range(n: int, key: int):
    image = permuted(np.array([0, 1, 2, n // 2, n - 1]), n, key)
    assert image.min() >= 0
    assert image.max() < n
    assert len(set(image.tolist())) == 5


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_order_of_a_few_is_equally_likely(n: int):
    orders = Counter(tuple(permuted(np.arange(n), n, mix(0, key)).tolist()) for key in range(1200))
    expected = 1200 / factorial(n)
    chi_square = sum((count - expected) ** 2 / expected for count in orders.values())
    assert len(orders) == factorial(n)
    assert chi_square < factorial(n) - 1 + 5 * np.sqrt(2 * (factorial(n) - 1))


def test_permuted_spreads_neighbours():
    images = np.stack([permuted(np.array([10, 11]), 1000, mix(9, key)) for key in range(1000)])  # (1000, 2)
    assert abs(np.corrcoef(images.T).min()) < 5 / np.sqrt(1000)
    assert abs(images.mean() - 499.5) < 5 * 289 / np.sqrt(2000)


def test_precision_is_measured_or_as_asked():
    assert product_rate(torch.float32, 64, 0.001) > 0
    assert pick_dtype("bf16", "cpu") == torch.bfloat16
    assert pick_dtype("fp32", "cpu") == torch.float32
    assert (pick_dtype("auto", "cpu") == torch.bfloat16) == fast_bf16()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what the process holds from /proc")
def test_freed_blocks_are_given_back():
    def held() -> int:  # MiB
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

    keep_freed_memory()
    blocks = [torch.ones(1 << 18) for _ in range(400)]  # of 1 MiB
    between = blocks[::2]  # holes of 1 MiB, which no larger block fits into
    del blocks
    before = held()
    release_freed_memory()
    assert before - held() > 100
    assert all(block.sum() == 1 << 18 for block in between)
