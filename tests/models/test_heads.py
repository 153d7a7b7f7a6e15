"""Models and heads: what they start from, their shapes, and what they refuse."""

import pytest
import torch

from pluri.errors import UsageError
from pluri.models.config import preset
from pluri.models.heads import LACKS, Model

FAMILIES = ["bert", "roberta", "albert", "distilbert", "electra", "esm", "modernbert", "eurobert", "modern"]


def some_heads(family: str) -> dict[str, int]:
    heads = {"masked": 50, "classify": 3, "tag": 4, "answer": 2, "pair": 2}
    return {head: size for head, size in heads.items() if head not in LACKS.get(family, ())}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_is_a_function_of_the_seed_alone(family):
    config = preset(family, "tiny", vocab_size=50)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (Model(config, some_heads(family), seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's chance is touched
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in first.values())
    assert not torch.equal(first["body.embeddings.tokens.weight"], other["body.embeddings.tokens.weight"])


def test_modern_blocks_begin_as_the_identity(make_batch):
    model = Model(preset("modern", "tiny", vocab_size=50)).eval()
    states = model.body(make_batch([9, 20]), layers=True)
    assert len(states) == 3
    torch.testing.assert_close(states[1], states[0])
    assert model.state_dict()["body.blocks.0.attention.qkv.weight"].any()


def test_tokens_begin_with_a_part_in_common_where_nothing_else_is_common():
    shares = {}
    for family, types in (("modern", 0), ("modern", 2), ("modernbert", 0)):
        model = Model(preset(family, "tiny", vocab_size=1000, token_types=types))
        tokens = model.body.embeddings.tokens.weight
        shares[family, types] = float(tokens.mean(0).square().mean() / tokens.square().mean())
    assert 0.3 < shares["modern", 0] < 0.7
    assert max(shares["modern", 2], shares["modernbert", 0]) < 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_gradients(family, make_model, make_batch):
    heads = some_heads(family)
    model, batch = make_model(family, heads), make_batch([30, 12, 9, 50])
    shapes = {
        "masked": (len(batch.predicted), 50),
        "pair": (4, 2),
        "classify": (4, 3),
        "tag": (*batch.input_ids.shape, 4),
        "answer": (*batch.input_ids.shape, 2),
    }
    hidden = model.hidden(batch)
    outputs = {head: model.outputs(head, hidden, batch) for head in heads}
    assert {head: tuple(out.shape) for head, out in outputs.items()} == {head: shapes[head] for head in heads}
    torch.stack([out.square().sum() for out in outputs.values()]).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not idle


def test_the_output_layer_is_the_token_embedding(make_model):
    model = make_model("modern", {"masked": 50})
    assert model.decoder[0] is model.body.embeddings.tokens.weight
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


def test_pooling(make_model, make_batch):
    batch = make_batch([30, 12, 9, 50])
    for family in ("bert", "modern"):
        model = make_model(family)
        hidden = model.hidden(batch)
        flat = hidden.flatten(0, 1)
        for i, pooled in enumerate(model.pooled(hidden, batch)):
            members = flat[int(batch.starts[i]) : int(batch.starts[i] + batch.lengths[i])]
            torch.testing.assert_close(pooled, members[0] if family == "bert" else members.mean(0))


@pytest.mark.parametrize("family", ["bert", "modern"])
def test_dropout_is_drawn_in_training_only(family, make_model, make_batch):
    model = make_model(family, {"classify": 3}, dropout=0.2, attention_dropout=0.2)
    batch = make_batch([30, 12, 9, 50])
    assert torch.equal(model(batch, "classify"), model(batch, "classify"))
    model.train()
    torch.manual_seed(0)
    first = model(batch, "classify")
    assert not torch.equal(first, model(batch, "classify"))
    torch.manual_seed(0)
    assert torch.equal(first, model(batch, "classify"))


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_close_to_fp32_and_stays_bf16(family, make_model, make_batch):
    model, batch = make_model(family, {"masked": 50}), make_batch([8, 5])
    expected = model(batch, "masked").detach()
    out = model.to(torch.bfloat16)(batch, "masked")
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.bfloat16}
    assert (out.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_shared_layers_are_one_block(make_model):
    model = make_model("albert", num_layers=5)
    assert len(model.body.blocks) == 1
    assert len(model.body.blocks) < model.config.num_layers


@pytest.mark.parametrize(
    ("family", "heads", "message"),
    [
        ("bert", {"translate": 2}, "unknown head 'translate'"),
        ("bert", {"answer": 3}, "'answer' has 2 outputs, not 3"),
        ("bert", {"masked": 49}, "'masked' has 50 outputs, not 49"),
        ("bert", {"pair": 3}, "'pair' has 2 outputs, not 3"),
        ("bert", {"classify": 0}, "at least 1"),
        ("roberta", {"pair": 2}, "roberta has no pair head"),
    ],
)
def test_impossible_heads_are_refused(family, heads, message):
    with pytest.raises(UsageError, match=message):
        Model(preset(family, "tiny", vocab_size=50), heads)
