"""Losses against torch's own, in value and gradient."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pluri.losses as losses
from pluri.batches import IGNORE, Examples, deal, pack, take
from pluri.losses import answer_loss, blocked_cross_entropy, span_logits
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.ragged import offsets_of
from pluri.training.measures import counts


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("block", [1, 7 * 11, 10**6])
@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_equal_to_torch_in_value_and_gradient(
    block: int, biased: bool, as_on_a_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """as_on_a_gpu: with outputs that are there for their number alone, and in the form that is compiled there."""
    monkeypatch.setattr(losses, "_ON_CPU", (block, 8 if as_on_a_gpu else 1))
    monkeypatch.setattr(losses, "_compiled", lambda: losses._in_one_pass)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float32) for s in ((23, 5), (11, 5), (11,)))
    labels = torch.randint(0, 11, (23,), generator=generator)
    given = (hidden, weight, bias) if biased else (hidden, weight)
    inputs, expected_inputs = ([t.clone().requires_grad_() for t in given] for _ in range(2))
    given_bias = inputs[2] if biased else None
    value = blocked_cross_entropy(inputs[0], inputs[1], given_bias, labels, 40, compiled=as_on_a_gpu)
    expected = F.cross_entropy(F.linear(*expected_inputs), labels, reduction="sum") / 40
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(inputs, expected_inputs, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_huge_logits_do_not_overflow() -> None:
    hidden = torch.full((4, 2), 1e4, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    value = blocked_cross_entropy(hidden, weight, torch.zeros(2), torch.tensor([0, 0, 0, 1]), 4)
    value.backward()
    assert torch.isfinite(value)
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_nothing_predicted_is_zero_not_nan() -> None:
    hidden, weight = torch.zeros(0, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    value = blocked_cross_entropy(hidden, weight, torch.zeros(5), torch.zeros(0, dtype=torch.int64), 0)
    value.backward()
    assert value.item() == 0
    assert weight.grad is not None
    assert weight.grad.abs().sum() == 0


def windows() -> Examples:
    """Four windows of which only the first position and the tail take part: what the task "answer" makes."""
    lengths = np.array([9, 5, 14, 6])
    ids = np.random.default_rng(0).integers(5, 50, lengths.sum()).astype(np.int32)
    labels = np.full(lengths.sum(), IGNORE, np.int32)
    offsets = offsets_of(lengths)
    for start, end in itertools.pairwise(offsets):
        labels[start] = labels[start + 3 : end - 1] = 0
    return Examples(ids, offsets, labels, sequence_labels=np.array([[1, 5], [0, 0], [10, 10], [2, 2]]))


def test_answers_are_chosen_among_the_labelled_positions_of_their_window() -> None:
    config = preset("bert", "tiny", vocab_size=50, max_length=24, hidden_size=32, num_heads=2, dropout=0.0)
    model = Model(config.model_copy(update={"attention_dropout": 0.0, "initializer_range": 0.5}), {"answer": 2}).eval()
    examples = windows()
    padded, packed = pack(examples, 16, packed=False), pack(examples, 16)
    assert len(packed.input_ids) < 4
    with torch.no_grad():
        scores = model(padded, "answer")  # (4, L, 2)
    expected = 0.0
    for i, (start, end) in enumerate([(1, 5), (0, 0), (10, 10), (2, 2)]):
        length = int(padded.lengths[i])
        open_to_choice = [0, *range(3, length - 1)]
        for side, label in enumerate((start, end)):
            expected -= float(scores[i, open_to_choice, side].log_softmax(0)[label]) / 8
    for batch in (padded, packed):
        value, parts = answer_loss(model, batch, *counts(batch))
        assert value.item() == pytest.approx(expected, rel=1e-5)
        assert set(parts) == {"answer_loss"}
        logits = span_logits(model, batch)
        assert logits.shape == (2, 4, 11)
        assert logits.isfinite().sum(2).tolist() == [[6, 2, 11, 3]] * 2
    parts = [take(padded, rows) for rows in deal(padded, 2)]
    assert sum(answer_loss(model, part, *counts(padded))[0].item() for part in parts) == pytest.approx(expected)
    value.backward()
    gradient = model.heads["answer"].get_parameter("out.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()
