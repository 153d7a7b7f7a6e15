"""Sequences of one row never see each other: to the bit, forward and backward."""

from dataclasses import replace

import pytest
import torch

from pluri.models.heads import LACKS

FAMILIES = ["bert", "roberta", "albert", "distilbert", "electra", "esm", "modernbert", "eurobert", "modern"]
LENGTHS = [20, 9, 31, 4, 17, 25, 6, 12, 1]


def positions_of(batch, sequence: int) -> torch.Tensor:
    start, length = int(batch.starts[sequence]), int(batch.lengths[sequence])
    return torch.arange(start, start + length)


def with_another(batch, sequence: int):
    """The batch with other tokens in one sequence."""
    ids = batch.input_ids.flatten().clone()
    where = positions_of(batch, sequence)
    ids[where] = 5 + (ids[where] + 7) % 40
    return replace(batch, input_ids=ids.view_as(batch.input_ids))


def states_and_gradients(model, batch, sequences: list[int]):
    """Hidden states, and the gradient at the embeddings of a loss over some of the sequences."""
    kept = []
    handle = model.body.embeddings.register_forward_hook(lambda *args: kept.append(args[2]))
    hidden = model.hidden(batch)
    handle.remove()
    where = torch.cat([positions_of(batch, s) for s in sequences])
    weights = torch.linspace(-1, 1, hidden.shape[-1])
    (gradient,) = torch.autograd.grad((hidden.flatten(0, 1)[where].sin() @ weights).sum(), kept[0])
    return hidden.detach().flatten(0, 1), gradient.flatten(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changed", [0, 3, 8])
def test_changing_one_sequence_leaves_the_others_as_they_are(family, changed, make_model, make_batch):
    model, batch = make_model(family), make_batch(LENGTHS)
    assert batch.input_ids.shape[0] < 4  # rows are shared
    others = [i for i in range(len(LENGTHS)) if i != changed]
    before, gradient_before = states_and_gradients(model, batch, others)
    after, gradient_after = states_and_gradients(model, with_another(batch, changed), others)
    here = positions_of(batch, changed)
    elsewhere = torch.tensor(sorted(set(range(len(before))) - set(here.tolist())))
    assert torch.equal(before[elsewhere], after[elsewhere])
    assert torch.equal(gradient_before[elsewhere], gradient_after[elsewhere])
    assert not torch.equal(before[here], after[here])
    assert not gradient_before[here].any()
    assert gradient_before[positions_of(batch, others[0])].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_is_as_tight(family, make_model, make_batch):
    heads = {"masked": 50, "classify": 3, "tag": 4} | ({} if "pair" in LACKS.get(family, ()) else {"pair": 2})
    model, batch = make_model(family, heads), make_batch(LENGTHS)
    where = torch.arange(batch.input_ids.numel())
    with torch.no_grad():
        first, second = (
            {head: model.outputs(head, model.hidden(b), b, at=where) for head in heads}
            for b in (batch, with_another(batch, 2))
        )
    others = torch.tensor([i for i in range(len(LENGTHS)) if i != 2])
    here = positions_of(batch, 2)
    elsewhere = torch.tensor(sorted(set(where.tolist()) - set(here.tolist())))
    for head in heads:
        a, b = (out[head].flatten(0, 1) if head == "tag" else out[head] for out in (first, second))
        same = elsewhere if head in ("masked", "tag") else others
        assert torch.equal(a[same], b[same]), head
        assert not torch.equal(a, b), head


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packed", [True, False])
def test_states_that_are_asked_for_are_those_of_all(family, packed, make_model, make_batch):
    """In any order, none from some row, and with the gradients of a loss over all states that ignores the others."""
    model, batch = make_model(family), make_batch(LENGTHS, packed=packed)
    at = torch.cat([batch.starts[[7, 0, 4]], batch.starts[[2, 5]] + 3, batch.starts[[2]] + 1])
    weights = torch.linspace(-1, 1, model.config.hidden_size)
    found = []
    for states in (model.hidden(batch, at), model.hidden(batch).flatten(0, 1)[at]):
        model.zero_grad()
        (states.sin() @ weights).sum().backward()
        found.append((states.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (some, gradients), (every, expected) = found
    torch.testing.assert_close(some, every, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    assert model.hidden(batch, at[:0]).shape == (0, model.config.hidden_size)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_that_are_asked_for_see_their_own_sequence_alone(family, make_model, make_batch):
    model, batch = make_model(family), make_batch(LENGTHS)
    before, after = (model.hidden(b, batch.starts) for b in (batch, with_another(batch, 3)))
    others = torch.tensor([i for i in range(len(LENGTHS)) if i != 3])
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[3], after[3])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_packed_padded_and_alone_agree(family, make_model, make_batch):
    model = make_model(family)
    packed, padded = make_batch(LENGTHS), make_batch(LENGTHS, packed=False)
    hidden = [model.hidden(batch).flatten(0, 1) for batch in (packed, padded)]
    assert all(states.isfinite().all() for states in hidden)  # padding too: no row of attention is empty
    for i, length in enumerate(LENGTHS):
        ids = packed.input_ids.flatten()[positions_of(packed, i)][None]
        alone = replace(
            packed,
            input_ids=ids,
            sequence_ids=torch.ones(1, length, dtype=torch.int32),
            position_ids=torch.arange(length)[None],
            token_type_ids=torch.zeros_like(ids),
            starts=torch.tensor([0]),
            lengths=torch.tensor([length]),
        )
        expected = model.hidden(alone)[0]
        for states, batch in zip(hidden, (packed, padded), strict=True):
            torch.testing.assert_close(states[positions_of(batch, i)], expected, atol=1e-5, rtol=0)
