"""A causal model: no position sees what comes after it or another sequence, to the bit."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pluri.batches.batch import Batch
from pluri.errors import UsageError
from pluri.models.attention import layouts
from pluri.models.config import preset
from pluri.models.heads import Model

CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {"causal": True},
    "modern, windowed": {"causal": True, "window": 6, "num_layers": 3},
}
LENGTHS = [20, 9, 31, 4, 17, 25, 6, 12, 1]


@pytest.fixture(params=CAUSAL)
def make(request, make_model):
    def make(**overrides: Any) -> Model:
        family = request.param.partition(",")[0]
        return make_model(family, {"next": 50}, **CAUSAL[request.param], **overrides)

    return make


def changed(batch: Batch, places: torch.Tensor) -> Batch:
    """The batch with other tokens at flat places."""
    ids = batch.input_ids.flatten().clone()
    ids[places] = 5 + (ids[places] + 7) % 40
    return replace(batch, input_ids=ids.view_as(batch.input_ids))


def logits(model: Model, batch: Batch) -> torch.Tensor:
    return model.outputs("next", model.hidden(batch), batch, torch.arange(batch.input_ids.numel()))


@pytest.mark.parametrize("lengths", [[40], [16, 16], LENGTHS])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_later_token_changes_nothing_before_it(make, make_batch, lengths: list[int], training: bool):
    """Also where dropout takes attention another way: with the same draws."""
    model = make(dropout=0.1, attention_dropout=0.1).train(training)
    batch = make_batch(lengths, length=max(40, max(lengths)), packed=lengths is LENGTHS)
    at = batch.starts + 2 * batch.lengths // 3  # one place in each sequence
    torch.manual_seed(0)
    first = logits(model, batch)
    torch.manual_seed(0)
    second = logits(model, changed(batch, at))
    for start, length, place in zip(batch.starts.tolist(), batch.lengths.tolist(), at.tolist(), strict=True):
        assert torch.equal(first[start:place], second[start:place])
        assert (first[place : start + length] != second[place : start + length]).any(dim=1).all()


@torch.no_grad()
def test_other_sequences_of_a_row_change_nothing(make, make_batch):
    model, batch = make(), make_batch(LENGTHS)
    assert batch.input_ids.shape[0] < 4  # rows are shared
    start, length = int(batch.starts[2]), int(batch.lengths[2])
    here = torch.arange(start, start + length)
    first, second = logits(model, batch), logits(model, changed(batch, here))
    elsewhere = torch.ones(len(first), dtype=torch.bool).index_fill(0, here, False)
    assert torch.equal(first[elsewhere], second[elsewhere])
    assert not torch.equal(first[here], second[here])


@torch.no_grad()
def test_packed_padded_and_alone_agree(make, make_batch):
    model, packed, padded = make(), make_batch(LENGTHS), make_batch(LENGTHS, packed=False)
    (whole, masked), rows = (logits(model, batch) for batch in (packed, padded)), padded.input_ids.shape[1]
    for i, length in enumerate(LENGTHS):
        alone = replace(
            padded,
            input_ids=padded.input_ids[i : i + 1, :length],
            sequence_ids=padded.sequence_ids[i : i + 1, :length],
            position_ids=padded.position_ids[i : i + 1, :length],
            token_type_ids=padded.token_type_ids[i : i + 1, :length],
            starts=torch.tensor([0]),
            lengths=padded.lengths[i : i + 1],
        )
        assert layouts(alone, model.config)[0].causal  # attention without a mask
        expected, start = logits(model, alone), int(packed.starts[i])
        torch.testing.assert_close(whole[start : start + length], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(masked[i * rows : i * rows + length], expected, atol=1e-5, rtol=0)


def test_every_parameter_learns(make, make_batch):
    model = make()
    model(make_batch([30, 12, 9, 50]), "next").square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_gpt2_has_the_published_number_of_parameters():
    config = preset("gpt2", "base", vocab_size=50257, max_length=1024)
    assert sum(p.numel() for p in Model(config, {"next": 50257}).parameters()) == 124_439_808


@pytest.mark.parametrize(
    ("family", "causal", "head", "message"),
    [
        ("gpt2", True, "masked", "gpt2 has no masked head; a causal model predicts the next token"),
        ("modern", True, "masked", "modern with causal = true has no masked head"),
        ("modern", False, "next", "modern has no next head; only a causal model"),
        ("bert", False, "next", "bert has no next head"),
        ("gpt2", True, "answer", "gpt2 has no answer head"),
    ],
)
def test_heads_that_look_the_other_way_are_refused(family: str, causal: bool, head: str, message: str):
    with pytest.raises(UsageError, match=message):
        Model(preset(family, "tiny", vocab_size=50, causal=causal), {head: 2 if head == "answer" else 50})


def test_published_families_look_one_way():
    assert preset("modern", "tiny", vocab_size=50, causal=True).context == 0
    with pytest.raises(UsageError, match="context = 2 looks at what comes after"):
        preset("modern", "tiny", vocab_size=50, causal=True, context=2)
    with pytest.raises(UsageError, match="bert has causal = False"):
        preset("bert", "tiny", vocab_size=50, causal=True)
    with pytest.raises(UsageError, match="gpt2 has causal = True"):
        preset("gpt2", "tiny", vocab_size=50, causal=False)
