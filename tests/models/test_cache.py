"""With a cache a model says what it says without one, however its rows come."""

from typing import Any

import pytest
import torch

from pluri.batches.batch import Batch
from pluri.models.cache import Cache
from pluri.models.heads import Model

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {"causal": True},
    "modern, windowed": {"causal": True, "window": 6, "num_layers": 3},
    "modern, shared": {"causal": True, "shared_layers": True},
}


@pytest.fixture(params=MODELS)
def model(request, make_model) -> Model:
    return make_model(request.param.partition(",")[0], {"next": 50}, **MODELS[request.param])


def part(batch: Batch, spans: list[tuple[int, int]]) -> Batch:
    """Positions [first, last) of each row of a batch of one sequence a row, padded on the right."""
    width = max(last - first for first, last in spans)

    def taken(values: torch.Tensor) -> torch.Tensor:
        rows = [values[i, first:last] for i, (first, last) in enumerate(spans)]
        return torch.stack([torch.cat([row, row.new_zeros(width - len(row))]) for row in rows])

    return Batch(
        input_ids=taken(batch.input_ids),
        sequence_ids=taken(batch.sequence_ids),
        position_ids=taken(batch.position_ids),
        token_type_ids=taken(batch.token_type_ids),
        starts=torch.arange(len(spans)) * width,
        lengths=torch.tensor([last - first for first, last in spans]),
    )


CUTS = {
    "token by token": [[(i, i + 1)] * 3 for i in range(20)],
    "a prompt, then tokens": [[(0, 9)] * 3, *([(i, i + 1)] * 3 for i in range(9, 20))],
    "prompts of unequal length": [
        [(0, 9), (0, 2), (0, 6)],
        *([(9 + i, 10 + i), (2 + i, 3 + i), (6 + i, 7 + i)] for i in range(11)),
    ],
    "several tokens behind several": [
        [(0, 9), (0, 2), (0, 6)],
        [(9, 12), (2, 10), (6, 7)],
        [(12, 20), (10, 20), (7, 20)],
    ],
}


@pytest.mark.parametrize("cut", CUTS)
@torch.no_grad()
def test_cached_is_uncached(model: Model, make_batch, cut: str):
    batch = make_batch([20, 20, 20], packed=False)
    expected = model.hidden(batch)
    cache = Cache(model.config, 40)
    for spans in CUTS[cut]:
        hidden = model.body(part(batch, spans), cache=cache)
        for row, (first, last) in enumerate(spans):
            torch.testing.assert_close(hidden[row, : last - first], expected[row, first:last], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_are_dropped_doubled_and_reordered(model: Model, make_batch):
    batch = make_batch([20, 20, 20], packed=False)
    expected = model.hidden(batch)
    cache = Cache(model.config, 30)
    model.body(part(batch, [(0, 9), (0, 2), (0, 6)]), cache=cache)
    for rows, ends in (([2, 0], [6, 9]), ([1, 0, 1], [10, 7, 10])):
        cache.select(torch.tensor(rows))
        order = [[2, 0], [0, 2, 0]][len(ends) - 2]
        lines = Batch(
            *(
                getattr(batch, name)[order]
                for name in ("input_ids", "sequence_ids", "position_ids", "token_type_ids", "starts", "lengths")
            )
        )
        hidden = model.body(part(lines, [(end, end + 1) for end in ends]), cache=cache)
        for row, (origin, end) in enumerate(zip(order, ends, strict=True)):
            torch.testing.assert_close(hidden[row, 0], expected[origin, end], atol=1e-5, rtol=0)
