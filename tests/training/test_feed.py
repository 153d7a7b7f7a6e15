"""What a GPU makes of the loop, on a CPU: figures that come later, and batches in one row."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.loader import Batches
from pluri.errors import TrainingError
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.runtime import sequence_keys, uniform
from pluri.tokens.ragged import offsets_of
from pluri.training.config import TrainingConfig
from pluri.training.feed import Figures, fed
from pluri.training.trainer import train


class Noise:
    mean_length = 12.0

    def __len__(self) -> int:
        return 200

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        keys = sequence_keys(1, epoch, index)
        lengths = 4 + (uniform(keys, 0) * 16).astype(np.int64)
        ids = (5 + uniform(np.repeat(keys, lengths), np.arange(lengths.sum())) * 30).astype(np.int32)
        chosen = np.arange(len(ids)) % 4 == 0
        return Examples(
            np.where(chosen, 4, ids).astype(np.int32),
            offsets_of(lengths),
            np.where(chosen, ids, IGNORE).astype(np.int32),
        )


def trained(
    output: Path | None = None, loss: Any = pretraining_loss, **values: Any
) -> tuple[list[torch.Tensor], list[dict[str, Any]], list[int]]:
    """The weights, the events of the journal, and the steps that were validated."""
    config = preset("bert", "tiny", vocab_size=40, max_length=24, hidden_size=32, num_heads=2, dropout=0.0)
    model = Model(config.model_copy(update={"attention_dropout": 0.0}), {"masked": 40}, seed=0)
    batches = Batches(Noise(), batch_tokens=256, length=24, seed=0)
    training = TrainingConfig.parse({"steps": 8, "learning_rate": 5e-3, "precision": "fp32", **values})
    done = train(model, batches, loss, training, output=output, validate=lambda model: {"eval_loss": 1.0})
    journal = [] if output is None else (output / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [int(v["step"]) for v in done.validations]
    return [p.detach().clone() for p in model.parameters()], [json.loads(line) for line in journal], steps


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures come two steps later, as they do from a GPU."""
    monkeypatch.setattr("pluri.training.trainer.Figures", lambda late: Figures(late=True))


def test_figures_keep_their_order_and_wait_for_no_step():
    figures, seen = Figures(late=True), []
    for step in range(5):
        figures.send(step, {"a": torch.tensor(step / 7).double(), "b": torch.tensor(-1.0).double()})
        seen.append([note for note, _ in figures.read()])
    assert seen == [[], [], [0], [1], [2]]
    assert list(figures.read(everything=True)) == [
        (step, {"a": torch.tensor(step / 7).item(), "b": -1.0}) for step in (3, 4)
    ]
    now = Figures(late=False)
    now.send("x", {"a": torch.tensor(2.0)})
    assert list(now.read()) == [("x", {"a": 2.0})]


def test_late_figures_tell_the_same_run(tmp_path, request):
    at_once = trained(tmp_path / "now", eval_steps=3, checkpoint_steps=4)
    request.getfixturevalue("late")
    later = trained(tmp_path / "late", eval_steps=3, checkpoint_steps=4)
    assert all(torch.equal(a, b) for a, b in zip(at_once[0], later[0], strict=True))
    assert at_once[2] == later[2] == [3, 6, 8]
    timed = {"seconds", "tokens_per_second", "model_flops_use"}
    told = [[{k: v for k, v in e.items() if k not in timed} for e in events] for _, events, _ in (at_once, later)]
    assert told[0] == told[1]
    assert [e["step"] for e in told[1] if e["event"] == "step"] == list(range(1, 9))
    assert all(
        e[name] > 0 for _, events, _ in (at_once, later) for e in events if e["event"] == "step" for name in timed
    )


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(("bad", "saved"), [(3, 2), (4, 4), (5, 4), (7, 6)])
def test_no_checkpoint_holds_a_step_that_was_not_finite(bad, saved, tmp_path):
    calls: Iterator[int] = iter(range(100))

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        value, named = pretraining_loss(model, batch, labels, sequences)
        return (value * math.nan if next(calls) == bad else value), named

    with pytest.raises(TrainingError, match=f"batch {bad} "):
        trained(tmp_path, loss, checkpoint_steps=2)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept[-1] == f"step-{saved:09}"
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, bad + 1))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_batches_in_one_row_teach_the_same(accumulation, request):
    packed = trained(optimizer="adamw", accumulation=accumulation)[0]
    request.getfixturevalue("flat_on_cpu")
    flat = trained(optimizer="adamw", accumulation=accumulation)[0]
    for a, b in zip(packed, flat, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_micro_batches_come_with_their_batch():
    config = preset("bert", "tiny", vocab_size=40, max_length=24)
    batches = Batches(Noise(), batch_tokens=256, length=24, seed=0)
    stream = batches.stream(0)
    batch, parts = next(fed(stream, Model(config, {}), torch.float32, 3))
    stream.close()
    assert [times for _, times in parts] == [1.0] * 3
    assert sum(part.num_tokens for part, _ in parts) == batch.num_tokens


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_as_a_cpu_does(monkeypatch):
    losses = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setattr("pluri.training.trainer.pick_device", lambda device=device: device)
        config = preset("bert", "tiny", vocab_size=40, max_length=24, dropout=0.0, attention_dropout=0.0)
        model = Model(config, {"masked": 40}, seed=0)
        training = {"steps": 30, "learning_rate": 1e-3, "precision": "bf16", "optimizer": "adamw", "compile": False}
        batches = Batches(Noise(), batch_tokens=256, length=24, seed=0)
        losses[device] = train(model, batches, pretraining_loss, TrainingConfig.parse(training)).losses
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.03)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu_reads_nothing_back():
    from pluri.training.optimizer import MasterOptimizer

    config = preset("bert", "tiny", vocab_size=40, max_length=24)
    model = Model(config, {"masked": 40}, seed=0).to("cuda").train()
    optimizer = MasterOptimizer(model, "muon", weight_decay=0.01, betas=(0.9, 0.98), dtype=torch.bfloat16)
    stream = Batches(Noise(), batch_tokens=256, length=24, seed=0).stream(0)
    feed = fed(stream, model, torch.bfloat16, 1)
    for step in range(3):
        if step == 2:  # kernels are loaded, states are there
            torch.cuda.set_sync_debug_mode("error")
        try:
            _, parts = next(feed)
            loss, _ = pretraining_loss(model, parts[0][0], 60, 0)
            loss.backward()
            optimizer.clip(1.0)
            optimizer.step(1e-3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    stream.close()
