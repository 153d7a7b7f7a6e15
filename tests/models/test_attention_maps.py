import pytest
import torch

from pluri.inference.attention_maps import attention_maps


@pytest.mark.parametrize("family", ["bert", "albert", "esm", "modernbert", "modern"])
@torch.no_grad()
def test_the_weights_are_those_that_mix_the_values(family, make_model, make_batch):
    model, batch = make_model(family).eval(), make_batch([20, 9, 31, 4])
    mixed, values = [], []
    for block in model.body.blocks:
        attention = block.attention
        attention.out.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0]))
        attention.register_forward_hook(lambda m, inputs, _: values.append(m._projected(*inputs[:2])[2]))
    maps = attention_maps(model, batch)
    assert len(maps) == model.config.num_layers
    same = batch.sequence_ids[:, None, :, None] == batch.sequence_ids[:, None, None, :]
    for weights, mix, value in zip(maps, mixed, values, strict=True):
        assert not weights.masked_select(~same.expand_as(weights)).any()
        expected = (weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(mix, expected, atol=1e-5, rtol=1e-4)


def test_hooks_do_not_stay(make_model, make_batch):
    model = make_model("bert")
    attention_maps(model, make_batch([5]))
    assert not model.body.blocks[0].attention._forward_hooks
