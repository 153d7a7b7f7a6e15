"""Schedules at the points that their definitions fix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.training.schedule import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("linear", 0.05, 0.5),
        ("linear", 0.1, 1.0),
        ("linear", 0.55, 0.5),
        ("linear", 1.0, 0.0),
        ("wsd", 0.05, 0.5),
        ("wsd", 0.1, 1.0),
        ("wsd", 0.79, 1.0),
        ("wsd", 0.9, 0.5),
        ("wsd", 1.0, 0.0),
        ("constant", 0.02, 0.2),
        ("constant", 1.0, 1.0),
    ],
)
def test_published_shapes(schedule: str, progress: float, expected: float) -> None:
    value = learning_rate_factor(progress, schedule, warmup=0.1, decay=0.2)  # type: ignore[arg-type]
    assert value == pytest.approx(expected)


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0.01, 1), st.sampled_from(["wsd", "linear", "constant"]))
def test_never_outside_zero_to_one(progress: float, warmup: float, decay: float, schedule: str) -> None:
    assert 0 <= learning_rate_factor(progress, schedule, warmup=warmup, decay=decay) <= 1  # type: ignore[arg-type]
