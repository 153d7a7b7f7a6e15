import pytest
import torch

from pluri.models.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rate_and_the_mean_are_right(rate, dtype):
    torch.manual_seed(0)
    x = torch.ones(1001, 999, dtype=dtype)
    y = dropout(x, rate)
    assert y.dtype == dtype
    sigma = (rate * (1 - rate) / x.numel()) ** 0.5
    assert abs((y == 0).double().mean().item() - rate) < 5 * sigma + 1 / 65536
    assert y[y != 0].unique().numel() == 1
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=1e-2)


def test_gradients_flow_where_values_do():
    x = torch.randn(64, 33, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (y != 0) * 65536 / (65536 - round(0.3 * 65536)))


def test_it_draws_from_the_seeded_generator_whatever_the_number_of_threads():
    x = torch.ones(300, 301)
    threads = torch.get_num_threads()
    found = []
    for number in (1, 2):
        torch.set_num_threads(number)
        torch.manual_seed(7)
        found.append(dropout(x, 0.2))
    torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert not torch.equal(found[0], dropout(x, 0.2))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(1)
    dropped = dropout(torch.ones(2_000_000), 0.1) == 0
    for apart in (1, 2, 3, 4):  # four elements share a draw
        both = (dropped[apart:] & dropped[:-apart]).double().mean().item()
        assert both == pytest.approx(0.01, abs=5 * (0.01 / 2e6) ** 0.5)


def test_without_a_rate_nothing_is_touched():
    x = torch.ones(3)
    assert dropout(x, 0.0) is x
