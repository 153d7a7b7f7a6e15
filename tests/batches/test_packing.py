"""Packing loses nothing, overlaps nothing, and hardly pads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples, answered
from pluri.batches.packing import deal, pack, take
from pluri.errors import UsageError
from pluri.tokens.ragged import Ragged, offsets_of

CAPACITY = 40
LENGTHS = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=60)


def example_group(lengths: list[int], seed: int = 0) -> Examples:
    offsets = offsets_of(np.array(lengths, np.int64))
    draws = np.random.default_rng(seed)
    labels = draws.integers(1, 1000, offsets[-1]).astype(np.int32)
    labels[draws.random(len(labels)) < 0.8] = IGNORE
    return Examples(
        input_ids=draws.integers(1, 1000, offsets[-1]).astype(np.int32),
        offsets=offsets,
        labels=labels,
        token_type_ids=draws.integers(0, 2, offsets[-1]).astype(np.uint8),
        sequence_labels=draws.random(len(lengths)).astype(np.float32),
    )


def contents(batch: Batch) -> list[tuple[list[int], ...]]:
    """(ids, types, labels) of each sequence, read where the batch says that it is."""
    assert batch.labels is not None
    flat = [each.reshape(-1) for each in (batch.input_ids, batch.token_type_ids, batch.labels)]
    spans = [slice(s, s + n) for s, n in zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)]
    return [tuple(each[span].tolist() for each in flat) for span in spans]


def expected(examples: Examples) -> list[tuple[list[int], ...]]:
    assert examples.labels is not None
    assert examples.token_type_ids is not None
    spans = [slice(a, b) for a, b in zip(examples.offsets[:-1], examples.offsets[1:], strict=True)]
    arrays = (examples.input_ids, examples.token_type_ids, examples.labels)
    return [tuple(each[span].tolist() for each in arrays) for span in spans]


@given(lengths=LENGTHS, packed=st.booleans())
def test_every_sequence_is_whole_and_alone(lengths: list[int], packed: bool):
    examples = example_group(lengths)
    batch = pack(examples, CAPACITY, packed=packed)
    rows, width = batch.input_ids.shape
    assert contents(batch) == expected(examples)
    assert np.array_equal(batch.lengths.numpy(), lengths)
    assert batch.sequence_labels is not None
    assert examples.sequence_labels is not None
    assert np.array_equal(batch.sequence_labels.numpy(), examples.sequence_labels)
    assert width % 8 == 0
    assert width <= CAPACITY
    ids, positions = batch.sequence_ids.reshape(-1), batch.position_ids.reshape(-1)
    owners = torch.zeros(rows * width, dtype=torch.int32)
    for start, length in zip(batch.starts.tolist(), lengths, strict=True):
        assert start // width == (start + length - 1) // width
        owners[start : start + length] += 1
        assert len(ids[start : start + length].unique()) == 1
        assert positions[start : start + length].tolist() == list(range(length))
    assert owners.max() == 1
    assert torch.equal(owners > 0, ids > 0)
    for row in batch.sequence_ids:  # 1, 2, 3 ... from left to right, then padding
        used = row[row > 0]
        assert torch.equal(row[: len(used)], used)
        assert used.unique_consecutive().tolist() == list(range(1, len(used.unique()) + 1))
    padding = ids == 0
    assert batch.labels is not None
    assert (batch.labels.reshape(-1)[padding] == IGNORE).all()
    assert (batch.input_ids.reshape(-1)[padding] == 0).all()


def test_shapes_and_dtypes():
    batch = pack(example_group([5, 9, 3]), 64)
    assert tuple(batch.input_ids.shape) == (1, 24)
    assert batch.num_tokens == 17
    assert batch.input_ids.dtype == batch.position_ids.dtype == batch.token_type_ids.dtype == torch.int64
    assert batch.sequence_ids.dtype == torch.int32
    assert batch.starts.tolist() == [9, 0, 14]
    assert tuple(pack(example_group([5, 9, 3]), 64, packed=False).input_ids.shape) == (3, 16)


def test_what_is_absent_stays_absent():
    batch = pack(Examples(np.arange(6, dtype=np.int32), np.array([0, 2, 6])), 8)
    assert batch.labels is None
    assert batch.sequence_labels is None
    assert not batch.token_type_ids.any()
    assert batch.predicted.tolist() == []


@pytest.mark.parametrize("length", [128, 512])
def test_rows_are_over_95_percent_full_on_natural_lengths(length: int):
    # Sentences and short documents: log-normal, cut at the length as a store's documents are.
    lengths = np.random.default_rng(0).lognormal(3.6, 0.9, 4 * 16384 // 50).astype(int) + 1
    lengths = np.minimum(lengths, length)
    for part in np.array_split(lengths, 4):
        batch = pack(example_group(part.tolist()), length)
        assert batch.num_tokens / batch.input_ids.numel() > 0.95


def test_best_fit_takes_the_fullest_row_that_fits():
    batch = pack(example_group([24, 16, 8, 6, 2]), 32)
    # 24 opens row 0; 16 opens row 1; 8 fills row 0, though row 1 has room too; 6 and 2 go to row 1.
    assert (batch.starts // 32).tolist() == [0, 1, 0, 1, 1]


@given(lengths=LENGTHS, hands=st.integers(1, 12), packed=st.booleans())
def test_dealing_shares_the_sequences_out(lengths: list[int], hands: int, packed: bool):
    batch = pack(example_group(lengths), CAPACITY, packed=packed)
    dealt = deal(batch, hands)
    assert sorted(torch.cat(dealt).tolist()) == list(range(len(batch.input_ids)))
    sizes = [len(rows) for rows in dealt]
    assert max(sizes) - min(sizes) <= 1
    parts = [take(batch, rows) for rows in dealt]
    for part, rows in zip(parts, dealt, strict=True):
        assert torch.equal(part.input_ids, batch.input_ids[rows])
        assert torch.equal(part.sequence_ids, batch.sequence_ids[rows])
    assert sorted(each for part in parts for each in contents(part)) == sorted(contents(batch))
    assert sum(len(part.predicted) for part in parts) == len(batch.predicted)
    labels = [each for part in parts if part.sequence_labels is not None for each in part.sequence_labels.tolist()]
    assert batch.sequence_labels is not None
    assert sorted(labels) == sorted(batch.sequence_labels.tolist())


def test_hands_get_about_as_many_tokens():
    lengths = np.random.default_rng(0).integers(1, CAPACITY + 1, 400).tolist()
    batch = pack(example_group(lengths), CAPACITY, packed=False)
    tokens = [take(batch, rows).num_tokens for rows in deal(batch, 8)]
    assert max(tokens) - min(tokens) <= CAPACITY


def test_impossible_sequences_are_refused():
    with pytest.raises(UsageError, match="41 tokens does not fit into rows of 40"):
        pack(example_group([3, 41]), CAPACITY)
    with pytest.raises(UsageError, match="without tokens"):
        pack(example_group([3, 0]), CAPACITY)


PAIRS = st.lists(st.tuples(st.integers(1, CAPACITY), st.integers(1, CAPACITY)), min_size=1, max_size=30)


def pairs_of(lengths: list[tuple[int, int]]) -> Examples:
    """Examples with a source each; the one of number i holds nothing but i + 1, as its example does."""
    sides = [np.array(side, np.int64) for side in zip(*lengths, strict=True)]
    target, source = (
        Examples(np.repeat(np.arange(1, len(side) + 1, dtype=np.int32), side), offsets_of(side)) for side in sides
    )
    return replace(target, labels=target.input_ids, source=source)


@given(lengths=PAIRS, packed=st.booleans())
def test_a_sequence_and_its_source_share_a_row_and_a_number(lengths: list[tuple[int, int]], packed: bool):
    batch = pack(pairs_of(lengths), CAPACITY, packed=packed)
    source = batch.source
    assert source is not None
    assert len(source.input_ids) == len(batch.input_ids)
    assert batch.num_tokens == sum(map(sum, lengths))
    for ids, numbers, source_ids, source_numbers in zip(
        batch.input_ids, batch.sequence_ids, source.input_ids, source.sequence_ids, strict=True
    ):
        mine, theirs = (
            set(zip(numbers.tolist(), ids.tolist(), strict=True)),
            set(zip(source_numbers.tolist(), source_ids.tolist(), strict=True)),
        )
        assert mine - {(0, 0)} == theirs - {(0, 0)}
    for side in (batch, source):
        flat = side.input_ids.reshape(-1)
        assert flat[side.starts].tolist() == list(range(1, len(lengths) + 1))
        assert torch.equal(flat[side.places], torch.repeat_interleave(torch.arange(len(lengths)) + 1, side.lengths))


@given(lengths=PAIRS, hands=st.integers(1, 5))
def test_dealing_keeps_sources_beside_their_sequences(lengths: list[tuple[int, int]], hands: int):
    batch = pack(pairs_of(lengths), CAPACITY)
    found = []
    for rows in deal(batch, hands):
        part = take(batch, rows)
        assert part.source is not None
        assert len(part.source.input_ids) == len(part.input_ids)
        mine, theirs = (side.input_ids.reshape(-1)[side.starts].tolist() for side in (part, part.source))
        assert mine == theirs
        found += mine
    assert sorted(found) == list(range(1, len(lengths) + 1))


def test_positions_begin_where_an_example_says():
    examples = replace(example_group([3, 2]), first_positions=np.array([7, 0]))
    batch = pack(examples, 8)
    assert batch.position_ids[0, :5].tolist() == [7, 8, 9, 0, 1]


def test_an_answer_is_read_one_token_late():
    answers = Ragged(np.array([5, 1, 6, 7], np.int32), np.array([0, 3, 3, 4]))
    sources = Ragged(np.arange(6, dtype=np.int32), np.array([0, 2, 4, 6]))
    examples = answered(answers, sources, start=3, unknown=1)
    assert examples.labels is not None
    assert examples.input_ids.tolist() == [3, 5, 1, 3, 3]
    assert examples.labels.tolist() == [5, IGNORE, 6, IGNORE, 7]  # the empty answer has nothing to write
    assert examples.offsets.tolist() == [0, 3, 4, 5]
    assert examples.source is not None
    assert examples.source.input_ids.tolist() == list(range(6))


def test_a_source_too_long_is_refused():
    with pytest.raises(UsageError, match="41 tokens does not fit"):
        pack(pairs_of([(3, 41)]), CAPACITY)
