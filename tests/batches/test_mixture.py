"""A mixture gives each source its share, and no sequence twice before all of its source was seen."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.batches.loader import Batches
from pluri.batches.mixture import Mixture
from pluri.errors import UsageError
from pluri.tokens.ragged import offsets_of


class Named:
    """n sequences; sequence i of the source `name` in epoch e is (name, i, e) and i % 3 more tokens."""

    mean_length = 4.0

    def __init__(self, name: int, n: int, *, labels: bool = True) -> None:
        self.name, self.n, self.labels = name, n, labels

    def __len__(self) -> int:
        return self.n

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        rows = [[self.name, i, e, *[0] * (i % 3)] for i, e in zip(index.tolist(), epoch.tolist(), strict=True)]
        ids = np.array([token for row in rows for token in row], np.int32)
        offsets = offsets_of(np.array([len(row) for row in rows], np.int64))
        return Examples(ids, offsets, labels=ids + 1 if self.labels else None, sequence_labels=10 * index)


def drawn(made: Mixture, epochs: int) -> list[tuple[int, int, int]]:
    """(source, sequence, epoch of the source) of every draw."""
    index = np.tile(np.arange(len(made)), epochs)
    found = made.examples(index, np.repeat(np.arange(epochs), len(made)))
    firsts = found.offsets[:-1]
    return [tuple(found.input_ids[at : at + 3].tolist()) for at in firsts]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4), alpha=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 2**40),
)  # fmt: skip
def test_every_sequence_comes_before_any_comes_again(sizes: list[int], alpha: float, seed: int):
    made = Mixture([Named(i, n) for i, n in enumerate(sizes)], alpha=alpha, seed=seed)
    seen = drawn(made, 3)
    assert len(set(seen)) == len(seen)  # none twice in one epoch of its source
    for i, n in enumerate(sizes):
        times = Counter(number for source, number, _ in seen if source == i)
        most = max(times.values())
        assert len(times) == n or most == 1
        assert min(times.values()) >= most - 1
    if alpha == 1:
        assert len(seen) == 3 * sum(sizes)
        assert Counter(source for source, _, _ in seen) == {i: 3 * n for i, n in enumerate(sizes)}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5])
def test_shares_follow_the_power_of_the_size(alpha: float):
    sizes = np.array([10_000, 400, 25])
    made = Mixture([Named(i, n) for i, n in enumerate(sizes.tolist())], alpha=alpha, seed=0)
    expected = sizes**alpha / (sizes**alpha).sum()
    np.testing.assert_allclose(made.draws / len(made), expected, atol=1e-4)
    assert len(made) == sizes.sum()


def test_each_example_stands_in_its_place_with_all_it_has():
    made = Mixture([Named(0, 5), Named(1, 7)], alpha=0.5, seed=3)
    index = np.array([11, 0, 7, 3, 6, 6])
    epoch = np.array([0, 4, 2, 0, 1, 0])
    group = made.examples(index, epoch)
    for i in range(len(index)):
        alone = made.examples(index[i : i + 1], epoch[i : i + 1])
        part = slice(group.offsets[i], group.offsets[i + 1])
        for name in ("input_ids", "labels"):
            np.testing.assert_array_equal(getattr(group, name)[part], getattr(alone, name))
        assert group.sequence_labels is not None
        assert alone.sequence_labels is not None
        assert group.sequence_labels[i] == alone.sequence_labels[0]
    assert made.examples(index[:1], epoch[:1]).token_type_ids is None


def test_a_batch_is_a_function_of_its_number():
    made = [
        Batches(Mixture([Named(0, 50), Named(1, 9)], alpha=0.3, seed=1), batch_tokens=60, length=16, seed=1)
        for _ in range(2)
    ]
    late = made[1][40]
    for step in (0, 7, 40):
        assert made[0][step].input_ids.equal(made[1][step].input_ids)
    assert late.input_ids.equal(made[0][40].input_ids)


def test_an_empty_source_is_told():
    with pytest.raises(UsageError, match=r"the 2\. has no sequence"):
        Mixture([Named(0, 5), Named(1, 0)], alpha=1.0, seed=0)
