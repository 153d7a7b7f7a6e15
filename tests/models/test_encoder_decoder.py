"""An encoder with a decoder: sources and targets of one row never meet those of others, to the bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pluri.batches.batch import Batch
from pluri.batches.example import Examples, answered
from pluri.batches.packing import pack
from pluri.errors import UsageError
from pluri.models.cache import Cache
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import Ragged, offsets_of

MODELS: dict[str, dict[str, Any]] = {"bart": {"decoder_layers": 3}, "modern": {"decoder_layers": 2}}
LENGTHS = [(20, 9), (9, 20), (31, 24), (4, 1), (17, 30), (25, 25), (6, 3), (12, 12), (1, 8)]  # of targets, of sources


@pytest.fixture(params=MODELS)
def make(request, make_model):
    return lambda **more: make_model(request.param, {"next": 50}, **MODELS[request.param], **more)


def pairs(lengths: list[tuple[int, int]] = LENGTHS) -> Examples:
    chance = np.random.default_rng(0)
    sides = [np.array(side, np.int64) for side in zip(*lengths, strict=True)]
    target, source = (Ragged(chance.integers(5, 50, n.sum()).astype(np.int32), offsets_of(n)) for n in sides)
    return answered(target, source, start=3)


def places(batch: Batch, sequence: int) -> torch.Tensor:
    return torch.arange(int(batch.lengths[sequence])) + int(batch.starts[sequence])


def changed(batch: Batch, where: torch.Tensor) -> Batch:
    ids = batch.input_ids.flatten().clone()
    ids[where] = 5 + (ids[where] + 7) % 40
    return replace(batch, input_ids=ids.view_as(batch.input_ids))


def states(model: Model, batch: Batch) -> torch.Tensor:
    return model.hidden(batch).flatten(0, 1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sequence", [0, 4, 8])
@torch.no_grad()
def test_changing_one_pair_leaves_the_others_as_they_are(make, sequence: int, training: bool):
    """Also where dropout takes attention another way: with the same draws."""
    model, batch = make(dropout=0.1, attention_dropout=0.1).train(training), pack(pairs(), 64)
    assert batch.source is not None
    assert len(batch.input_ids) < 4  # rows are shared
    here = places(batch, sequence)
    elsewhere = torch.cat([places(batch, i) for i in range(len(LENGTHS)) if i != sequence])
    in_source = places(batch.source, sequence)
    others = (replace(batch, source=changed(batch.source, in_source)), changed(batch, here))
    found = []
    for each in (batch, *others):
        torch.manual_seed(0)
        found.append(states(model, each))
    for after in found[1:]:
        assert torch.equal(found[0][elsewhere], after[elsewhere])
        assert (found[0][here] != after[here]).any(1).all()
    assert all(each.isfinite().all() for each in found)  # padding too: no row of attention is empty


@torch.no_grad()
def test_a_later_token_changes_nothing_before_it_and_every_token_of_the_source_counts(make):
    model, batch = make(), pack(pairs(), 64)
    assert batch.source is not None
    at = batch.starts + 2 * batch.lengths // 3
    first, second = states(model, batch), states(model, changed(batch, at))
    for start, length, place in zip(batch.starts.tolist(), batch.lengths.tolist(), at.tolist(), strict=True):
        assert torch.equal(first[start:place], second[start:place])
        assert (first[place : start + length] != second[place : start + length]).any(1).all()
    last = batch.source.starts + batch.source.lengths - 1
    third = states(model, replace(batch, source=changed(batch.source, last)))
    assert (first[batch.starts] != third[batch.starts]).any(1).all()


def test_gradients_stay_within_a_pair(make):
    model, batch = make(), pack(pairs(), 64)
    assert batch.source is not None
    kept = []
    for side in (model.body, model.body.decoder):
        side.embeddings.register_forward_hook(lambda *args: kept.append(args[2]))
    states(model, batch)[places(batch, 2)].sin().sum().backward(inputs=kept)
    for each, side in zip(kept, (batch.source, batch), strict=True):
        touched = each.grad.flatten(0, 1).any(1)
        assert torch.equal(touched.nonzero().flatten(), places(side, 2))


@torch.no_grad()
def test_packed_padded_and_alone_agree(make):
    model, packed, padded = make(), pack(pairs(), 64), pack(pairs(), 64, packed=False)
    found = [states(model, batch) for batch in (packed, padded)]
    for i, lengths in enumerate(LENGTHS):
        examples = pairs()
        assert examples.source is not None
        assert examples.labels is not None
        one = [each.input_ids[each.offsets[i] : each.offsets[i + 1]] for each in (examples, examples.source)]
        target, source = (Examples(ids, np.array([0, len(ids)])) for ids in one)
        alone = states(model, pack(replace(target, source=source), 64))[: lengths[0]]
        for hidden, batch in zip(found, (packed, padded), strict=True):
            torch.testing.assert_close(hidden[places(batch, i)], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_cached_is_uncached_and_rows_may_be_chosen_again(make):
    model, batch = make(), pack(pairs([(12, 9), (12, 3), (12, 20)]), 64, packed=False)
    assert batch.source is not None
    expected = model.hidden(batch)
    cache, rows = Cache(model.config, 40), torch.arange(3)
    for i in range(12):
        step = Batch(
            batch.input_ids[rows, i : i + 1],
            batch.sequence_ids[rows, i : i + 1],
            batch.position_ids[rows, i : i + 1],
            batch.token_type_ids[rows, i : i + 1],
            torch.arange(len(rows)),
            torch.ones(len(rows), dtype=torch.int64),
            source=batch.source if i == 0 else None,  # the cache has what is needed of it
        )
        hidden = model.body(step, cache=cache)
        torch.testing.assert_close(hidden[:, 0], expected[rows, i], atol=1e-5, rtol=0)
        if i in (3, 7):
            chosen = torch.tensor([2, 0] if i == 3 else [1, 0, 1])
            cache.select(chosen)
            rows = rows[chosen]


def test_every_parameter_learns(make):
    model = make()
    model(pack(pairs(), 64), "next").square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_bart_has_the_published_number_of_parameters():
    config = preset("bart", "base", vocab_size=50265, max_length=1024, num_layers=6)
    assert config.decoder_layers == 6
    assert sum(p.numel() for p in Model(config, {"next": 50265}).parameters()) == 139_420_416


def test_impossible_pairs_are_refused():
    with pytest.raises(UsageError, match="bart has no masked head; a causal model predicts the next token"):
        Model(preset("bart", "tiny", vocab_size=50), {"masked": 50})
    with pytest.raises(UsageError, match="modern has no classify head"):
        Model(preset("modern", "tiny", vocab_size=50, decoder_layers=1), {"classify": 3})
    with pytest.raises(UsageError, match="bert has decoder_layers = 0"):
        preset("bert", "tiny", vocab_size=50, decoder_layers=1)
    with pytest.raises(UsageError, match="not causal itself"):
        preset("modern", "tiny", vocab_size=50, decoder_layers=1, causal=True)
