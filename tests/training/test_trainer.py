"""The trainer: budgets, accumulation by true counts, early stop, best weights, non-finite losses."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.loader import Batches
from pluri.errors import TrainingError, UsageError
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.runtime import sequence_keys, uniform
from pluri.tokens.ragged import offsets_of
from pluri.training.measures import counts, mean_loss
from pluri.training.trainer import TrainingConfig, train

VOCAB, LENGTH = 40, 24


class Noise:
    """Sequences whose every token equals its neighbours', a fifth of them to be predicted: learnable in a few steps."""

    mean_length = 12.0

    def __len__(self) -> int:
        return 200

    def examples(self, index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        keys = sequence_keys(1, epoch, index)
        lengths = 4 + (uniform(keys, 0) * 16).astype(np.int64)
        flat = np.repeat(keys, lengths)
        position = np.arange(lengths.sum())
        ids = np.repeat(5 + (uniform(keys, 1) * (VOCAB - 5)), lengths).astype(np.int32)
        chosen = uniform(flat, position + 9) < 0.2
        return Examples(
            np.where(chosen, 4, ids).astype(np.int32),
            offsets_of(lengths),
            np.where(chosen, ids, IGNORE).astype(np.int32),
        )


def parts(seed: int = 0, tokens: int = 256) -> tuple[Model, Batches]:
    config = preset("modern", "tiny", vocab_size=VOCAB, max_length=LENGTH, hidden_size=32, num_heads=2)
    return Model(config, {"masked": VOCAB}, seed=seed), Batches(Noise(), batch_tokens=tokens, length=LENGTH, seed=seed)


def config(**values: object) -> TrainingConfig:
    return TrainingConfig.parse({"steps": 8, "learning_rate": 5e-3, "precision": "fp32", **values})


def weights(model: Model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def test_it_learns() -> None:
    model, batches = parts()
    before = mean_loss(model, batches.once(), pretraining_loss)["eval_loss"]
    train(model, batches, pretraining_loss, config(steps=60))
    assert before > 3.4
    assert mean_loss(model, batches.once(), pretraining_loss)["eval_loss"] < before - 1


@pytest.mark.parametrize(("budget", "reached"), [({"steps": 5}, "step"), ({"steps": None, "tokens": 1000}, "tokens")])
def test_budgets(budget: dict[str, int | None], reached: str) -> None:
    done = train(*parts(), pretraining_loss, config(**budget))
    target = next(v for v in budget.values() if v)
    assert target <= getattr(done, reached) < target * 1.5 + 1


def test_minutes_are_a_budget_too() -> None:
    done = train(*parts(), pretraining_loss, config(steps=None, minutes=0.01))
    assert 0.6 <= done.seconds < 3


def test_exactly_one_budget() -> None:
    for wrong in ({"steps": None}, {"minutes": 1.0}):
        with pytest.raises(UsageError, match="exactly one"):
            config(**wrong)


def test_accumulation_gives_the_same_update_whatever_the_split() -> None:
    """Micro-batches hold unequal numbers of predictions: dividing by each part's own count would differ."""
    results = []
    for accumulation in (1, 2, 5):
        model, batches = parts()
        train(model, batches, pretraining_loss, config(steps=3, accumulation=accumulation, optimizer="adamw"))
        results.append(weights(model))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_freed_memory_is_given_back_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[None] = []
    monkeypatch.setattr("pluri.training.trainer.release_freed_memory", lambda: given_back.append(None))
    train(*parts(tokens=32), pretraining_loss, config(steps=110))
    assert len(given_back) == 2


def test_worker_threads_change_nothing() -> None:
    results = []
    for workers in (1, 3):
        model, batches = parts()
        train(model, batches, pretraining_loss, config(workers=workers))
        results.append(weights(model))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_best_weights_are_kept_and_patience_stops() -> None:
    model, batches = parts()
    seen: list[list[torch.Tensor]] = []
    scores = iter([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])

    def validate(model: Model) -> dict[str, float]:
        seen.append(weights(model))
        return {"accuracy": next(scores)}

    done = train(
        model, batches, pretraining_loss, config(eval_steps=1, best_metric="accuracy", patience=2), validate=validate
    )
    assert (done.step, done.best["step"], done.best["accuracy"]) == (4, 2, 0.9)
    assert "no better" in done.reason
    assert all(torch.equal(a, b) for a, b in zip(weights(model), seen[1], strict=True))


def test_non_finite_loss_names_the_batch_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    model, batches = parts()

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        value, named = pretraining_loss(model, batch, labels, sequences)
        return (value * math.nan if torch.equal(batch.input_ids, batches[5].input_ids) else value), named

    with pytest.raises(TrainingError, match="batch 5"):
        train(model, batches, loss, config(checkpoint_steps=2), output=tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000000002", "step-000000004"]
    done = train(*parts(), pretraining_loss, config(), output=tmp_path, resume=True)
    assert done.step == 8


def test_the_journal_tells_the_run(tmp_path: Path) -> None:
    model, batches = parts()

    def validate(model: Model) -> dict[str, float]:
        return mean_loss(model, batches.once(), pretraining_loss)

    train(model, batches, pretraining_loss, config(eval_steps=4), output=tmp_path, validate=validate, header={"a": 1})
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", *["step"] * 4, "validation", *["step"] * 4, "validation", "end"]
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["tokens"] == sum(batches[k].num_tokens for k in range(8))
    assert all(e["model_flops_use"] > 0 and e["tokens_per_second"] > 0 for e in steps)


def test_bf16_trains_and_leaves_fp32() -> None:
    model, batches = parts()
    before = mean_loss(model, batches.once(), pretraining_loss)["eval_loss"]
    train(model, batches, pretraining_loss, config(steps=20, precision="bf16"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert mean_loss(model, batches.once(), pretraining_loss)["eval_loss"] < before - 0.2


def test_counts_are_of_what_is_predicted() -> None:
    _, batches = parts()
    batch = batches[0]
    assert batch.labels is not None
    assert counts(batch) == (int((batch.labels != IGNORE).sum()), 0)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as Python hears it; a shell that runs the tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_stops_it_between_two_steps_and_resuming_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    model, batches = parts()

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if torch.equal(batch.input_ids, batches[4].input_ids):
            os.kill(os.getpid(), number)
        return pretraining_loss(model, batch, labels, sequences)

    before = signal.getsignal(number)
    with pytest.raises(TrainingError, match=rf"stopped by {number.name} after step 5, which is saved; .*--resume"):
        train(model, batches, loss, config(), output=tmp_path)
    assert signal.getsignal(number) is before
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000005"]
    resumed, once = parts(), parts()
    assert train(*resumed, pretraining_loss, config(), output=tmp_path, resume=True).step == 8
    train(*once, pretraining_loss, config())
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed[0]), weights(once[0]), strict=True))


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    model, batches = parts()

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return pretraining_loss(model, batch, labels, sequences)

    with pytest.raises(KeyboardInterrupt):
        train(model, batches, loss, config(), output=tmp_path)


@pytest.mark.usefixtures("ctrl_c")
def test_without_an_output_a_signal_acts_at_once() -> None:
    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        os.kill(os.getpid(), signal.SIGINT)
        return pretraining_loss(model, batch, labels, sequences)

    with pytest.raises(KeyboardInterrupt):
        train(*parts(), loss, config())


def test_warmup_in_steps_is_the_same_schedule(tmp_path: Path) -> None:
    settings = config(steps=10, warmup_steps=4, schedule="linear", learning_rate=1e-3)
    train(*parts(), pretraining_loss, settings, output=tmp_path)
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    rates = [event["learning_rate"] for event in events if event["event"] == "step"]
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4:] == pytest.approx([1e-3 * left / 7 for left in (6, 5, 4, 3, 2, 1)])  # no jump after the warm-up


def test_waiting_for_data_is_part_of_a_step() -> None:
    model, batches = parts()
    examples = batches.source.examples

    def slow(index: NDArray[np.int64], epoch: NDArray[np.int64]) -> Examples:
        time.sleep(0.05)
        return examples(index, epoch)

    batches.source.examples = slow  # type: ignore[method-assign]
    assert train(model, batches, pretraining_loss, config(steps=8)).seconds > 0.3


def test_a_loss_of_which_nothing_is_predicted_is_left_out() -> None:
    model, batches = parts()

    def loss(model: Model, batch: Batch, labels: int, sequences: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        zero = torch.zeros(())
        return zero, {"masked_loss": zero + 2.0 * labels, "pair_loss": zero}

    found = mean_loss(model, batches.once(), loss)
    assert found.keys() == {"eval_loss", "eval_masked_loss"}
    assert found["eval_loss"] == found["eval_masked_loss"] > 0
