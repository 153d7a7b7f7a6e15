"""What stands in a log while a training is going on."""

import pytest

from pluri.training import meter
from pluri.training.meter import Meter

EVENT = {"seconds": 60.0, "loss": 3.21, "tokens_per_second": 1234.5, "model_flops_use": 0.0}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_and_the_last_one(clock, capsys):
    with Meter("pretrained, 50 labelled") as shown:
        for clock[0] in range(0, 100, 10):
            shown.update(EVENT, clock[0] / 90 + 0.1)  # the last step ends beyond the budget
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pretrained, 50 labelled: 43%, loss 3.210 · 1,234 tokens/s · 1.3 min left"
    assert [line.split(",")[1].split(":")[1] for line in lines] == [" 43%", " 77%", " 100%"]
    assert lines[-1].endswith("tokens/s · 1.0 min")


def test_what_is_short_or_not_to_be_shown_leaves_no_line(clock, capsys):
    for name, seconds in (("short", 20.0), (None, 90.0)):
        clock[0] = 0.0
        with Meter(name) as shown:
            shown.update({**EVENT, "model_flops_use": 0.6}, 0.5)
            clock[0] = seconds
            shown.update(EVENT, 1.0)
    assert capsys.readouterr().err == ""
