"""Low-rank adapters: nothing at first, the same merged as apart, and each where it was asked for."""

import pytest
import torch

from pluri.models.lora import attach

FAMILIES = ["bert", "roberta", "albert", "distilbert", "electra", "esm", "modernbert", "eurobert", "modern"]


def turned(lora, seed=0):
    """Adapters that have learned something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in lora.adapters.values():
            for b in adapter.b:
                b.normal_(0.0, 0.3, generator=generator)


@pytest.mark.parametrize("targets", ["query_value", "all_linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_add_nothing_at_first_and_the_same_when_merged(make_model, make_batch, family, targets):
    model, batch = make_model(family, {"classify": 3}), make_batch([5, 9, 3])
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(batch, "classify")
        lora = attach(model, 4, 8, targets, seed=1)
        assert torch.equal(model(batch, "classify"), before)
        turned(lora)
        apart = model(batch, "classify")
        lora.merge(model)
        merged = model(batch, "classify")
    assert (apart - before).abs().max() > 1e-3
    torch.testing.assert_close(merged, apart, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names


def test_queries_and_values_change_by_a_product_of_the_rank_and_keys_stay(make_model):
    model = make_model("bert", {"classify": 3})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lora = attach(model, 4, 8, "query_value", seed=1)
    turned(lora)
    lora.merge(model)
    for name, value in model.state_dict().items():
        if not name.endswith("attention.qkv.weight"):
            assert torch.equal(value, before[name]), name
            continue
        query, key, values = (value - before[name]).chunk(3)
        assert not key.any()
        assert torch.linalg.matrix_rank(query, atol=1e-5) == torch.linalg.matrix_rank(values, atol=1e-5) == 4
        adapter = lora.adapters[name.removesuffix(".weight")]
        torch.testing.assert_close(values, 2 * adapter.b[1] @ adapter.a[1], atol=1e-6, rtol=1e-5)  # alpha / rank = 2


def test_only_adapters_and_heads_learn(make_model, make_batch):
    model = make_model("modern", {"classify": 3})
    attach(model, 4, 4, "all_linear", seed=1)
    model(make_batch([5, 9, 3]), "classify").square().sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name in learning if ".lora." in name or name.startswith("heads.")}
    assert len([name for name in learning if ".lora.b." in name]) == 2 * (3 + 1 + 2 + 1)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == learning


def test_the_first_factors_follow_the_seed(make_model):
    first, again, other = (attach(make_model("bert"), 2, 2, "query_value", seed=seed) for seed in (3, 3, 4))
    for name, adapter in first.adapters.items():
        assert torch.equal(adapter.a[0], again.adapters[name].a[0])
        assert not torch.equal(adapter.a[0], other.adapters[name].a[0])
        assert not torch.equal(adapter.a[0], adapter.a[1])
        assert not adapter.b[0].any()
