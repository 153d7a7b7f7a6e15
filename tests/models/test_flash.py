"""Batches in one row without gaps, and attention without a mask: the same as packed rows with one, on any device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pluri import losses
from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.flat import MULTIPLE, flat
from pluri.batches.packing import pack
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.flash import flash_attention, has_kernel
from pluri.models.heads import LACKS, Model
from pluri.models.placing import compile_blocks, decompile, is_compiled, placed
from pluri.models.positions import rotary_frequencies, rotary_turns, rotate_, rotated
from pluri.tokens.ragged import offsets_of

LENGTHS = [20, 9, 31, 4, 17, 25, 6, 12, 1]
ENCODERS = ["bert", "roberta", "albert", "distilbert", "electra", "esm", "modernbert", "eurobert", "modern"]
DECODERS = ["gpt2", "llama", "windowed"]


@pytest.fixture
def make(make_model):
    def make(family: str, heads: dict[str, int] | None = None) -> Model:
        if family == "windowed":
            return make_model("modern", heads, causal=True, window=6, num_layers=3)
        return make_model(family, heads)

    return make


@pytest.fixture
def sourced() -> Batch:
    """An encoder-decoder's: the answers are of other lengths than what they are of."""
    chance, sides = np.random.default_rng(3), []
    for lengths in (np.array(LENGTHS), np.array(LENGTHS[::-1]) + 2):
        offsets = offsets_of(lengths)
        ids = chance.integers(5, 50, offsets[-1]).astype(np.int32)
        sides.append(Examples(ids, offsets, np.where(chance.random(len(ids)) < 0.5, ids, IGNORE).astype(np.int32)))
    return pack(replace(sides[0], source=replace(sides[1], labels=None)), 64)


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("packed", [True, False])
def test_a_flat_batch_holds_the_same_sequences(packed, make_batch):
    batch = make_batch(LENGTHS, packed=packed)
    row = flat(batch)
    assert row.input_ids.shape == (1, MULTIPLE)
    assert torch.equal(row.places, torch.arange(sum(LENGTHS)))
    assert torch.equal(row.lengths, batch.lengths)
    for name in ("input_ids", "position_ids", "token_type_ids", "labels"):
        assert torch.equal(getattr(row, name).flatten()[row.places], getattr(batch, name).flatten()[batch.places])
    assert row.labels is not None
    assert row.spans is not None
    assert (row.labels[0, sum(LENGTHS) :] == IGNORE).all()
    assert torch.equal(row.predicted, torch.nonzero(row.labels[0] != IGNORE)[:, 0])
    assert row.sequence_ids[0].bincount().tolist() == [MULTIPLE - sum(LENGTHS), *LENGTHS]
    assert row.spans.bounds[: len(LENGTHS)].tolist() == row.starts.tolist()
    assert int(row.spans.bounds[-1]) == MULTIPLE
    assert int(row.spans.bounds.diff().max()) <= row.spans.longest


def test_batches_of_as_many_sequences_have_as_many_spans(make_batch):
    """Else what is compiled for a batch would not do for the next one."""
    rows = [flat(make_batch(lengths)) for lengths in ([3, 60, 1], [64, 64, 64], [60, 64, 64])]
    assert len({(len(row.spans.bounds), row.spans.longest) for row in rows if row.spans}) == 1
    assert {row.input_ids.shape[1] % MULTIPLE for row in rows} == {0}


@pytest.mark.usefixtures("flat_on_cpu")
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_states_and_gradients_are_those_of_masked_rows(family, make, make_batch):
    model, batch = make(family), make_batch(LENGTHS)
    weights = torch.linspace(-1, 1, model.config.hidden_size)
    found = []
    for each in (batch, placed(model, batch)):
        states = model.hidden(each).flatten(0, 1)[each.places]
        found.append((states.detach(), gradients(model, (states.sin() @ weights).sum())))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-4)
    assert_same(found[1][1], found[0][1])


@pytest.mark.usefixtures("flat_on_cpu")
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_states_that_are_asked_for_are_those_of_all(family, make, make_batch):
    model = make(family)
    batch = placed(model, make_batch(LENGTHS))
    at = torch.cat([batch.starts[[7, 0, 4]], batch.starts[[2, 5]] + 3, batch.starts[[2]] + 1])
    weights = torch.linspace(-1, 1, model.config.hidden_size)
    found = []
    for states in (model.hidden(batch, at), model.hidden(batch).flatten(0, 1)[at]):
        found.append((states.detach(), gradients(model, (states.sin() @ weights).sum())))
    torch.testing.assert_close(*(states for states, _ in found), atol=1e-5, rtol=1e-4)
    assert_same(found[0][1], found[1][1])
    assert model.hidden(batch, at[:0]).shape == (0, model.config.hidden_size)


@pytest.mark.usefixtures("flat_on_cpu")
@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_every_head_says_the_same(family, make, make_batch):
    heads = {"masked": 50, "classify": 3, "tag": 4} | ({} if "pair" in LACKS.get(family, ()) else {"pair": 2})
    model, batch = make(family, heads), make_batch(LENGTHS)
    row = placed(model, batch)
    for head in heads:
        theirs, ours = model(batch, head), model(row, head)
        if head == "masked":  # the positions come in the order of their rows
            order = torch.stack([(batch.places == at).nonzero()[0, 0] for at in batch.predicted]).argsort()
            theirs = theirs[order]
        if head == "tag":
            theirs, ours = (t.flatten(0, 1)[b.places] for t, b in ((theirs, batch), (ours, row)))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=head)


@pytest.mark.usefixtures("flat_on_cpu")
@torch.no_grad()
def test_scores_of_answers_are_the_same_and_none_behind_the_last(make_model, make_batch):
    model, batch = make_model("bert", {"answer": 2}), make_batch(LENGTHS)
    theirs, ours = (losses.span_logits(model, each) for each in (batch, placed(model, batch)))
    torch.testing.assert_close(ours[:, :, : theirs.shape[2]], theirs, atol=1e-5, rtol=1e-4)
    assert (ours[:, :, theirs.shape[2] :] == -torch.inf).all()


@pytest.mark.usefixtures("flat_on_cpu")
@pytest.mark.parametrize("family", ["bart", "modern"])
def test_a_decoder_sees_the_sources_of_its_own_sequences(family, make_model, sourced):
    changes = {"decoder_layers": 2, "context": 0} if family == "modern" else {}
    model = make_model(family, {"next": 50}, **changes)
    found = []
    for batch in (sourced, placed(model, sourced)):
        loss, _ = pretraining_loss(model, batch, 30, 0)
        found.append((loss.detach(), gradients(model, loss)))
    torch.testing.assert_close(found[1][0], found[0][0])
    assert_same(found[1][1], found[0][1])


def test_turning_in_real_numbers_is_turning_in_complex_ones():
    turns = rotary_turns(torch.arange(12)[None], rotary_frequencies(8, 100.0))
    x = torch.randn(1, 12, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotated(x, torch.view_as_real(turns)), rotate_(x.clone(), turns))


def test_layers_of_one_kind_are_compiled_once_for_any_number_of_tokens(make_model, make_batch, monkeypatch, by_mask):
    monkeypatch.setattr("pluri.models.placing.has_kernel", lambda *args: True)
    monkeypatch.setattr("pluri.models.attention.flash_attention", by_mask)
    monkeypatch.setattr("pluri.losses._compiled", lambda: losses._in_one_pass)
    model = make_model("modern", {"masked": 50}, num_layers=3, context=0)
    graphs: list[int] = []

    def count(graph, inputs):
        graphs.append(1)
        return graph.forward

    def loss(lengths: list[int]) -> Tensor:
        return pretraining_loss(model, placed(model, make_batch(lengths)), 9, 0)[0]

    batches = [[length] * 20 for length in (10, 30, 20, 60)]
    expected = [loss(lengths).item() for lengths in batches]
    compile_blocks(model, count)
    assert is_compiled(model)
    try:
        for lengths, value in zip(batches, expected, strict=True):
            found = loss(lengths)
            found.backward()
            assert found.item() == pytest.approx(value, rel=1e-5)
            assert len(graphs) == 2  # one of every layer, and one of the last, which computes what is read alone
    finally:
        decompile(model)
        torch.compiler.reset()
    assert not is_compiled(model)
    assert loss(batches[0]).item() == expected[0]


@pytest.mark.parametrize(("causal", "reach"), [(False, None), (True, None), (False, 3), (True, 3)])
def test_the_kernel_is_asked_as_its_operator_wants_it(causal, reach):
    """By shape alone, forward and backward, with dropout: values take a GPU."""
    q, k, v = (torch.empty(40, 2, 16, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    bounds = torch.empty(4, device="meta", dtype=torch.int32)
    found = flash_attention(q, k, v, bounds, bounds, (32, 32), 0.1, reach=reach, causal=causal)
    found.sum().backward()
    assert found.shape == q.shape
    assert all(t.grad is not None and t.grad.shape == t.shape for t in (q, k, v))


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS, "bart"])
def test_a_step_is_right_by_shape_in_half_precision(family, make, make_batch, sourced):
    """With the kernel itself and dropout, as on a GPU; forward and backward."""
    model = make(family, {"next" if family in (*DECODERS, "bart") else "masked": 50})
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.1
    model.to("meta", torch.bfloat16).train()
    batch = flat(sourced if family == "bart" else make_batch(LENGTHS)).to("meta")
    loss, _ = pretraining_loss(model, batch, 30, 0)
    loss.backward()
    assert loss.shape == ()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnAGpu:
    @pytest.mark.parametrize(("causal", "reach"), [(False, None), (True, None), (False, 3), (True, 3)])
    def test_the_kernel_is_what_it_is_taken_for(self, causal, reach, by_mask):
        torch.manual_seed(0)
        given = [torch.randn(61, 2, 16, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        bounds = torch.tensor([0, 20, 20, 21, 60, 61, 61], device="cuda", dtype=torch.int32)
        found = []
        for attention, dtype in ((flash_attention, torch.bfloat16), (by_mask, torch.float32)):
            q, k, v = (t.to(dtype).requires_grad_() for t in given)
            out = attention(q, k, v, bounds, bounds, (64, 64), 0.0, reach=reach, causal=causal)
            (out.float().sin().sum()).backward()
            found.append([t.float() for t in (out, q.grad, k.grad, v.grad) if t is not None])
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).norm() <= 1e-2 * theirs.norm()

    def test_some_queries_and_other_keys(self, by_mask):
        torch.manual_seed(0)
        q, k, v = (torch.randn(n, 2, 16, device="cuda", dtype=torch.bfloat16) for n in (7, 30, 30))
        queries, keys = ([0, 3, 3, 6, 7], [0, 10, 20, 30, 30])
        of_q, of_k = (torch.tensor(each, device="cuda", dtype=torch.int32) for each in (queries, keys))
        ours = flash_attention(q, k, v, of_q, of_k, (8, 16), 0.0)
        theirs = by_mask(q.float(), k.float(), v.float(), of_q, of_k, (8, 16), 0.0)
        assert (ours.float() - theirs).norm() <= 1e-2 * theirs.norm()
        assert not ours[6].any()  # it has no keys

    def test_dropout_drops_its_share_and_keeps_the_mean(self):
        torch.manual_seed(0)
        q, k = (torch.zeros(512, 4, 32, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        bounds = torch.tensor([0, 512], device="cuda", dtype=torch.int32)
        found = flash_attention(q, k, torch.ones_like(q), bounds, bounds, (512, 512), 0.25).float()
        assert abs(found.mean().item() - 1) < 0.01
        assert 0.015 < found[:, :, 0].std().item() < 0.04  # sqrt(0.25 / 0.75 / 512) = 0.0255

    @pytest.mark.parametrize("family", ["bert", "modernbert", "modern", "gpt2"])
    @pytest.mark.parametrize("compiled", [False, True])
    def test_a_model_says_what_it_says_on_a_cpu(self, family, compiled):
        options = {"num_layers": 3, "hidden_size": 128, "num_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
        head = "next" if family == "gpt2" else "masked"
        config = preset(family, "tiny", vocab_size=50, max_length=64, **options)
        model = Model(config, {head: 50}, seed=1)
        chance = np.random.default_rng(0)
        losses = []
        for repeats in (1, 30, 60):
            offsets = offsets_of(np.array(LENGTHS * repeats))
            ids = chance.integers(5, 50, offsets[-1]).astype(np.int32)
            batch = pack(
                Examples(ids, offsets, np.where(chance.random(len(ids)) < 0.3, ids, IGNORE).astype(np.int32)), 64
            )
            losses.append((batch, pretraining_loss(model, batch, len(batch.predicted), 0)[0].detach().item()))
        model.to("cuda", torch.bfloat16)
        assert has_kernel(config, torch.device("cuda", 0), torch.bfloat16)
        if compiled:
            compile_blocks(model)
        for batch, expected in losses:
            loss, _ = pretraining_loss(model, placed(model, batch), len(batch.predicted), 0)
            loss.backward()
            assert loss.item() == pytest.approx(expected, rel=2e-2)
