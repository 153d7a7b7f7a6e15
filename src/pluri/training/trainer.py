"""The trainer: one loop for pretraining and fine-tuning.

Batch k is a pure function of k, dropout is seeded by k, and the optimizer's whole state is in the checkpoint: so a run
that was stopped and resumed is, bit for bit, the run that was not.
"""

import contextlib
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.batches.loader import Batches
from pluri.checkpoints.checkpoint import load_latest, save_checkpoint
from pluri.errors import TrainingError
from pluri.losses import Loss
from pluri.models.config import ModelConfig, train_flops
from pluri.models.heads import Model, positions_read
from pluri.models.placing import as_written, compile_blocks, decompile, placed
from pluri.runtime import keep_freed_memory, mix, pick_device, pick_dtype, product_rate, release_freed_memory
from pluri.training.config import TrainingConfig
from pluri.training.depth import learning_rate_factors
from pluri.training.feed import Fed, Figures, fed
from pluri.training.interrupts import heard
from pluri.training.journal import Journal
from pluri.training.meter import Meter
from pluri.training.optimizer import MasterOptimizer
from pluri.training.schedule import learning_rate_factor

_RELEASE_STEPS = 50

Validate = Callable[[Model], dict[str, float]]


@dataclass
class Trained:
    """What came of a run. best: the validation that `best_metric` chose, if one was named.

    losses, reads: the loss at each step that was done here, and the tokens read by then: 16 bytes a step.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    reason: str = "budget spent"
    best: dict[str, float] = field(default_factory=dict)
    validations: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    losses: "array[float]" = field(default_factory=lambda: array("d"))
    reads: "array[int]" = field(default_factory=lambda: array("q"))


def train(
    model: Model,
    batches: Batches,
    loss: Loss,
    config: TrainingConfig,
    *,
    output: Path | None = None,
    validate: Validate | None = None,
    layer_decay: float = 1.0,
    resume: bool = False,
    stop_after: int | None = None,
    header: dict[str, Any] | None = None,
    progress: str | None = None,
) -> Trained:
    """Trains `model` in place until its budget is spent; the model ends up in fp32, on the CPU.

    output: where the journal and the checkpoints go; None keeps nothing on disk.
    layer_decay: of the learning rate, from each layer to the one below it (`learning_rate_factors`).
    stop_after: leave, with a checkpoint, once this many steps are done (the schedule still looks at the whole budget).
    header: what the journal's first line says besides version and machine.
    progress: what this training is called where it shows on stderr how far it is (`Meter`); None shows nothing.
    Ctrl-C or SIGTERM, where there is an output, is obeyed after the step that is going on, with a checkpoint.
    TrainingError: the loss is not finite (the batch is named, the last checkpoint kept), the disk is full, or such a
        signal came.
    """
    run = _Run(model, batches, loss, config, output, validate, layer_decay, header or {})
    return run.go(resume, stop_after, progress)


class _Run:
    """The state of one run of `train`."""

    def __init__(
        self,
        model: Model,
        batches: Batches,
        loss: Loss,
        config: TrainingConfig,
        output: Path | None,
        validate: Validate | None,
        layer_decay: float,
        header: dict[str, Any],
    ) -> None:
        self.model, self.batches, self.loss, self.config = model, batches, loss, config
        self.output, self.validate, self.header = output, validate, header
        keep_freed_memory()
        self.device = pick_device()
        dtype = pick_dtype(config.precision, self.device)
        model.to(self.device)
        factors = learning_rate_factors(model, layer_decay)
        self.optimizer = MasterOptimizer(
            model, config.optimizer, weight_decay=config.weight_decay, betas=config.betas, dtype=dtype, factors=factors
        )
        if config.compile and self.device == "cuda":
            compile_blocks(model)
        self.figures = Figures(self.device)
        size = 1024 if self.device == "cpu" else 8192  # a GPU does not get busy by less
        self.peak = product_rate(dtype, size, 0.2, self.device) if output is not None else math.inf
        self.done = Trained()
        self.best_weights: dict[str, Tensor] = {}
        self.stale = 0

    def go(self, resume: bool, stop_after: int | None, progress: str | None) -> Trained:
        done = self.done
        if resume:
            self._restore()
        journal = Journal(self.output, resume_step=done.step if resume else None) if self.output else None
        if journal and not journal.resumed:
            journal.write("start", **self.header)
        stream = self.batches.stream(done.step, self.config.workers)
        limit = min(self.config.steps or 1 << 62, stop_after or 1 << 62)
        try:
            # Without checkpoints there is nothing to save: a signal then ends the work as it would without us.
            with heard() if self.output else contextlib.nullcontext(list[str]()) as signals:
                self._loop(fed(stream, self.model, self.config.accumulation), limit, signals, journal, Meter(progress))
                finished = not signals and (stop_after is None or done.step < stop_after)
                if finished and not (done.validations and done.validations[-1]["step"] == done.step):
                    self._validated(journal)
                if self.output:
                    self._save()
                if journal and finished:
                    journal.write("end", step=done.step, tokens=done.tokens, seconds=done.seconds, reason=done.reason)
        except TrainingError as error:
            if journal:
                journal.write("end", step=done.step, tokens=done.tokens, seconds=done.seconds, reason=error.what)
            raise
        finally:
            stream.close()
            if journal:
                journal.close()
        if signals:
            what = f"stopped by {signals[0]} after step {done.step}, which is saved"
            raise TrainingError(what, where=str(self.output), do="go on with --resume")
        self._settle()
        return done

    def _loop(self, feed: Iterator[Fed], limit: int, signals: list[str], journal: Journal | None, meter: Meter) -> None:
        """Steps until `limit`, the end of the budget, a signal, or patience is at its end."""
        done, config = self.done, self.config
        saved_at = time.monotonic()

        def tell(events: Iterable[dict[str, Any]]) -> None:
            for event in events:
                done.loss = event["loss"]
                done.losses.append(event["loss"])
                done.reads.append(event["tokens"])
                if journal:
                    journal.write("step", **event)
                meter.update(event, self._spent())

        with meter:
            while done.step < limit and self._spent() < 1 and not signals:
                tell(self._step(feed))
                if done.step % _RELEASE_STEPS == 0:
                    release_freed_memory()
                validates = config.eval_steps and done.step % config.eval_steps == 0
                due = config.checkpoint_steps and done.step % config.checkpoint_steps == 0
                saves = self.output and (due or time.monotonic() - saved_at > 60 * config.checkpoint_minutes)
                if validates or saves:
                    tell(self._rest())
                if validates and self._validated(journal):
                    done.reason = f"no better for {config.patience} validations"
                    break
                if saves:
                    self._save()
                    saved_at = time.monotonic()
            tell(self._rest())

    def _spent(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        config, done = self.config, self.done
        if config.steps is not None:
            return done.step / config.steps
        if config.tokens is not None:
            return done.tokens / config.tokens
        return done.seconds / (60 * (config.minutes or 1))

    def _learning_rate(self) -> float:
        config, step = self.config, self.done.step
        warmup, spent = config.warmup, max(self._spent(), 1e-3)
        if config.steps is not None:
            spent = (step + 1) / (config.steps + 1)  # neither the first nor the last step is wasted at 0
        if config.warmup_steps is not None:
            if step < config.warmup_steps:
                return config.learning_rate * (step + 1) / config.warmup_steps
            warmup = 0.0 if config.steps is None else min(config.warmup_steps / (config.steps + 1), 1.0)
        return config.learning_rate * learning_rate_factor(spent, config.schedule, warmup=warmup, decay=config.decay)

    def _step(self, feed: Iterator[Fed]) -> list[dict[str, Any]]:
        """One update. The events of the steps whose figures are known by now: of this one, or of earlier ones."""
        start = time.perf_counter()  # waiting for data is part of a step
        batch, parts = next(feed)
        config, done = self.config, self.done
        rate = self._learning_rate()
        num_labels, num_sequences = counts(batch)
        torch.manual_seed(int(mix(config.seed, done.step) >> 1))  # dropout, the one user of torch's generator
        self.model.train()
        numbers: dict[str, Tensor] = {}
        for part in parts:
            scalar, named = self.loss(self.model, part, num_labels, num_sequences)
            scalar.backward()
            for name, number in {"loss": scalar, **named}.items():
                numbers[name] = numbers.get(name, 0.0) + number.detach().double()
        numbers["grad_norm"] = self.optimizer.clip(config.max_grad_norm).double()
        tokens = batch.num_tokens
        event = {"step": done.step + 1, "tokens": done.tokens + tokens, "seconds": 0.0, "learning_rate": rate}
        self.figures.send(event, numbers)
        known = list(self._known(self.figures.read()))  # before the update: on a CPU none is made that is not finite
        self.optimizer.step(rate)
        seconds = time.perf_counter() - start
        done.step += 1
        done.tokens += tokens
        done.seconds += seconds
        predicted = num_labels if {"masked", "next"} & set(self.model.heads) else 0  # theirs is the large output layer
        event["seconds"] = round(done.seconds, 4)
        event["tokens_per_second"] = tokens / seconds
        event["model_flops_use"] = step_flops(self.model.config, batch, predicted) / seconds / self.peak
        return known

    def _known(self, figures: Iterator[tuple[dict[str, Any], dict[str, float]]]) -> Iterator[dict[str, Any]]:
        """The events of steps, now with their figures. TrainingError: a loss or a gradient is not finite."""
        for event, numbers in figures:
            value, norm = numbers["loss"], numbers["grad_norm"]
            if not (math.isfinite(value) and math.isfinite(norm)):
                step, rate = event["step"], event["learning_rate"]
                resume = ", then go on from the last checkpoint with --resume" if self.output else ""
                raise TrainingError(
                    f"non-finite: loss {value}, gradient norm {norm} in batch {step - 1} (learning rate {rate:.2g})",
                    where=f"step {step}",
                    do=f"lower the learning rate{resume}",
                )
            event |= numbers
            yield event

    def _rest(self) -> Iterator[dict[str, Any]]:
        """Waits for all steps: nothing is validated, saved or handed back before it was seen to be finite."""
        start = time.perf_counter()
        known = list(self.figures.read(everything=True))
        if known:
            self.done.seconds += time.perf_counter() - start
        return self._known(iter(known))

    def _validated(self, journal: Journal | None) -> bool:
        """Validates; keeps the best weights. True when it is time to stop early."""
        if self.validate is None:
            return False
        self.model.eval()
        with torch.inference_mode(), as_written(self.model):
            metrics = self.validate(self.model)
        done, name = self.done, self.config.best_metric
        done.validations.append({"step": done.step, **metrics})
        if journal:
            journal.write("validation", step=done.step, tokens=done.tokens, seconds=round(done.seconds, 4), **metrics)
        watched = name or "eval_loss"
        if watched not in metrics:
            return False
        sign = -1 if watched.endswith(("loss", "perplexity", "per_byte")) else 1
        if not done.best or sign * metrics[watched] > sign * done.best[watched]:
            done.best, self.stale = {"step": done.step, **metrics}, 0
            if name:
                self.best_weights = {n: m.detach().clone() for n, m in self.optimizer.masters.items()}
            return False
        self.stale += 1
        return self.config.patience is not None and self.stale >= self.config.patience

    def _save(self) -> None:
        assert self.output is not None
        done = self.done
        tensors = self.optimizer.state() | {f"best.{n}": t for n, t in self.best_weights.items()}
        meta = {
            "tokens": done.tokens,
            "seconds": done.seconds,
            "loss": done.loss,
            "stale": self.stale,
            "best": done.best,
            "validations": done.validations,
        }
        save_checkpoint(self.output / "checkpoints", done.step, tensors, meta)

    def _restore(self) -> None:
        assert self.output is not None
        checkpoint = load_latest(self.output / "checkpoints")
        if checkpoint is None:
            return
        self.optimizer.load_state({k: v for k, v in checkpoint.tensors.items() if not k.startswith("best.")})
        self.best_weights = {k[5:]: v for k, v in checkpoint.tensors.items() if k.startswith("best.")}
        meta, done = checkpoint.meta, self.done
        done.step, done.tokens, done.seconds, done.loss = checkpoint.step, meta["tokens"], meta["seconds"], meta["loss"]
        done.best, done.validations, self.stale = meta["best"], meta["validations"], meta["stale"]
        done.notes += checkpoint.notes

    @torch.no_grad()
    def _settle(self) -> None:
        """Leaves the model in fp32 on the CPU, with the best weights where a metric chose them, else the last."""
        weights = self.optimizer.frozen | (self.best_weights or self.optimizer.masters)
        decompile(self.model)
        self.model.float().to("cpu")
        for name, parameter in self.model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
        self.model.eval()


def step_flops(config: ModelConfig, batch: Batch, predicted: int) -> float:
    """Of one step, those of the source and of looking at it included."""

    def side(config: ModelConfig, batch: Batch, predicted: int, read: int) -> float:
        return train_flops(config, int(batch.lengths.sum()), predicted, read, int((batch.lengths**2).sum()))

    if batch.source is None:
        return side(config, batch, predicted, positions_read(config, batch))
    own, source, width = batch.lengths, batch.source.lengths, config.hidden_size
    crossed = 12 * width**2 * int((own + source).sum()) + 12 * width * int((own * source).sum())
    both = side(config, batch.source, 0, int(source.sum())) + side(config.decoder, batch, predicted, int(own.sum()))
    return both + config.decoder_layers * crossed


def counts(batch: Batch) -> tuple[int, int]:
    """(predicted positions, labels of sequences) of a batch: what its losses are divided by."""
    num_labels = 0 if batch.labels is None else int((batch.labels != IGNORE).sum())
    num_sequences = 0 if batch.sequence_labels is None else int((batch.sequence_labels != IGNORE).sum())
    return num_labels, num_sequences


def mean_loss(model: Model, batches: Iterator[Batch], loss: Loss) -> dict[str, float]:
    """The losses over a whole validation set, each averaged over everything predicted: {"eval_loss", "eval_..."}.

    Reads one batch at a time and keeps sums only. A loss of which nothing was predicted is left out; {} if all are.
    """
    sums: dict[str, float] = {}
    totals: dict[str, int] = {}
    for batch in batches:
        num_labels, num_sequences = counts(batch)
        _, named = loss(model, placed(model, batch), 1, 1)
        for name, value in named.items():
            sums[name] = sums.get(name, 0.0) + value.item()
            count = num_sequences if name in ("pair_loss", "classify_loss", "answer_loss") else num_labels
            totals[name] = totals.get(name, 0) + count
    means = {f"eval_{name}": total / totals[name] for name, total in sums.items() if totals[name]}
    return {"eval_loss": sum(means.values()), **means} if means else {}
