import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.tasks.curves import POINTS, curve
from pluri.training.trainer import Trained


@given(st.lists(st.floats(0, 10), min_size=1, max_size=400), st.integers(1, 100))
def test_every_step_counts_once_and_every_validation_has_its_row(losses, every):
    trained = Trained()
    for step, loss in enumerate(losses, 1):
        trained.losses.append(loss)
        trained.reads.append(100 * step)
        if step % every == 0 or step == len(losses):
            trained.validations.append({"step": step, "accuracy": step / 1000})
    rows = curve(trained, "accuracy")
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert [row["tokens"] for row in rows] == [100 * step for step in steps]
    before = [0, *steps]
    total = sum(row["loss"] * (row["step"] - start) for row, start in zip(rows, before, strict=False))
    assert total == pytest.approx(sum(losses), abs=1e-3)
    assert [(row["step"], row["accuracy"]) for row in rows if "accuracy" in row] == [
        (found["step"], found["accuracy"]) for found in trained.validations
    ]
    assert len(rows) <= POINTS + len(trained.validations)
