"""The trainer: one loop for pretraining and fine-tuning.

Batch k is a pure function of k, dropout is seeded by k, and the optimizer's whole state is in the checkpoint: so a run
that was stopped and resumed is, bit for bit, the run that was not. In a group of processes (`training.parallel`) all do
the same steps; what they have to agree on is told at the end of each, and process 0 alone writes the journal.
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
import torch.distributed as dist
from torch import Tensor

from pluri.batches.loader import Batches
from pluri.checkpoints.saver import Saver
from pluri.errors import PluriError, StoreError, TrainingError, UsageError
from pluri.losses import Loss
from pluri.models.heads import Model
from pluri.models.placing import as_written, compile_blocks, decompile
from pluri.models.transformer import Transformer
from pluri.runtime import (
    keep_freed_memory,
    mix,
    pick_device,
    pick_dtype,
    product_rate,
    rank,
    release_freed_memory,
    world_size,
)
from pluri.training.config import ParallelConfig, TrainingConfig
from pluri.training.depth import learning_rate_factors
from pluri.training.feed import Fed, Figures, fed
from pluri.training.interrupts import heard
from pluri.training.journal import Journal
from pluri.training.measures import counts, step_flops
from pluri.training.meter import Meter
from pluri.training.optimizer import MasterOptimizer
from pluri.training.parallel import Learner, summed, whole
from pluri.training.schedule import learning_rate_factor
from pluri.training.spread import alone, spread
from pluri.training.watch import Watch

_RELEASE_STEPS = 50

_BY_DEFAULT = ParallelConfig()

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
    parallel: ParallelConfig = _BY_DEFAULT,
    resume: bool = False,
    stop_after: int | None = None,
    header: dict[str, Any] | None = None,
    progress: str | None = None,
) -> Trained:
    """Trains `model` in place until its budget is spent; the model ends up in fp32, on the CPU.

    output: where the journal and the checkpoints go; None keeps nothing on disk.
    layer_decay: of the learning rate, from each layer to the one below it (`learning_rate_factors`).
    parallel: how the processes of a group share the work; all of them call this alike.
    stop_after: leave, with a checkpoint, once this many steps are done (the schedule still looks at the whole budget).
    header: what the journal's first line says besides version and machine.
    progress: what this training is called where it shows on stderr how far it is (`Meter`); None shows nothing.
    Ctrl-C or SIGTERM, where there is an output, is obeyed after the step that is going on, with a checkpoint.
    TrainingError: the loss is not finite (the batch is named, the last checkpoint kept), the disk is full, or such a
        signal came.
    """
    run = _Run(model, batches, loss, config, output, validate, layer_decay, parallel, header or {})
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
        parallel: ParallelConfig,
        header: dict[str, Any],
    ) -> None:
        if batches.sequences_per_batch < world_size():
            what = f"{batches.sequences_per_batch} sequences a batch are too few for {world_size()} processes"
            raise UsageError(what, where="batch_tokens", do="give it more tokens, or start fewer processes")
        self.batches, self.loss, self.config = batches, loss, config
        self.output, self.validate, self.header = output, validate, header
        keep_freed_memory()
        self.device = pick_device()
        dtype = pick_dtype(config.precision, self.device)
        told = output is not None and rank() == 0
        size = 1024 if self.device == "cpu" else 8192  # a GPU does not get busy by less
        self.peak = product_rate(dtype, size, 0.2, self.device) * world_size() if told else math.inf
        self.dtype = dtype
        self.given = self.model = model
        for module in model.modules():
            if isinstance(module, Transformer):
                module.checkpointing = parallel.activation_checkpointing
        shared_out = parallel.strategy == "fsdp" and world_size() > 1
        if shared_out:
            from pluri.training.sharding import sharded

            self.model, spreading = sharded(model, parallel.shards, dtype)
            dtype = torch.float32
        else:
            model.to(self.device)
            spreading = spread(dist.group.WORLD, None) if world_size() > 1 else alone
            if config.compile and self.device == "cuda":  # not with FSDP, whose hooks run between the layers
                compile_blocks(model)
        self.optimizer = MasterOptimizer(
            self.model,
            config.optimizer,
            weight_decay=config.weight_decay,
            betas=config.betas,
            dtype=dtype,
            factors=learning_rate_factors(model, layer_decay),
            spread=spreading,
        )
        self.learner = Learner(self.model, shared_out=shared_out)
        self.figures = Figures(late=self.device == "cuda" and world_size() == 1)
        self.watch = Watch(parallel.timeout)
        self.saver = Saver(output / "checkpoints") if output is not None else None
        self.done = Trained()
        self.stopped_by = ""
        self.best_weights: dict[str, Tensor] = {}
        self.stale = 0

    def go(self, resume: bool, stop_after: int | None, progress: str | None) -> Trained:
        done = self.done
        if resume:
            self._restore()
        journal = None
        if self.output and rank() == 0:
            journal = Journal(self.output, resume_step=done.step if resume else None)
        if journal and not journal.resumed:
            journal.write("start", **self.header)
        stream = self.batches.stream(done.step, self.config.workers)
        limit = min(self.config.steps or 1 << 62, stop_after or 1 << 62)
        try:
            # Without checkpoints there is nothing to save: a signal then ends the work as it would without us.
            listening = heard() if self.output else contextlib.nullcontext(list[str]())
            with listening as signals, self.watch:
                feed = fed(stream, self.model, self.dtype, self.config.accumulation)
                self._loop(feed, limit, signals, journal, Meter(progress if rank() == 0 else None))
                finished = not self.stopped_by and (stop_after is None or done.step < stop_after)
                if finished and not (done.validations and done.validations[-1]["step"] == done.step):
                    self._validated(journal)
                if self.saver:
                    self.watch.moved()
                    self._save(self.saver)
                    with self.watch.alone():  # a disk may be slow
                        self.saver.wait()
                if journal and finished:
                    journal.write("end", step=done.step, tokens=done.tokens, seconds=done.seconds, reason=done.reason)
        except PluriError as error:
            if journal:
                journal.write("end", step=done.step, tokens=done.tokens, seconds=done.seconds, reason=error.what)
            raise
        finally:
            stream.close()
            if self.saver:
                self.saver.close()
            if journal:
                journal.close()
        if self.stopped_by:
            what = f"stopped by {self.stopped_by} after step {done.step}, which is saved"
            raise TrainingError(what, where=str(self.output), do="go on with --resume")
        self._settle()
        return done

    def _loop(self, feed: Iterator[Fed], limit: int, signals: list[str], journal: Journal | None, meter: Meter) -> None:
        """Steps until `limit`, the end of the budget, a signal, or patience is at its end."""
        done, config = self.done, self.config
        saved_at = done.seconds  # by the clock of the steps, which all processes share

        def tell(events: Iterable[dict[str, Any]]) -> None:
            for event in events:
                done.loss = event["loss"]
                done.losses.append(event["loss"])
                done.reads.append(event["tokens"])
                if journal:
                    journal.write("step", **event)
                meter.update(event, self._spent())

        with meter:
            while done.step < limit and self._spent() < 1 and not self._stopped(signals):
                try:
                    tell(self._step(feed, signals))
                except StoreError as error:
                    tell(self._rest())
                    if not (self.saver and done.step) or world_size() > 1:  # to save takes all, who may be well
                        raise
                    self._save(self.saver)
                    do = f"{error.do}; the steps before are saved: then go on with --resume"
                    raise StoreError(error.what, where=error.where, do=do) from None
                if done.step % _RELEASE_STEPS == 0:
                    release_freed_memory()
                validates = config.eval_steps and done.step % config.eval_steps == 0
                due = config.checkpoint_steps and done.step % config.checkpoint_steps == 0
                saves = due or done.seconds - saved_at > 60 * config.checkpoint_minutes
                if validates or saves:
                    tell(self._rest())
                if validates and self._validated(journal):
                    done.reason = f"no better for {config.patience} validations"
                    break
                if self.saver and saves:
                    self._save(self.saver)
                    saved_at = done.seconds
            tell(self._rest())

    def _stopped(self, signals: list[str]) -> str:
        """The signal that ends the run. A group obeys the one that all of it has been told of (`_agreed`)."""
        if world_size() == 1 and signals:
            self.stopped_by = signals[0]
        return self.stopped_by

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

    def _step(self, feed: Iterator[Fed], signals: list[str]) -> list[dict[str, Any]]:
        """One update. The events of the steps whose figures are known by now: of this one, or of earlier ones."""
        start = time.perf_counter()  # waiting for data is part of a step
        batch, parts = next(feed)
        self.watch.moved()
        config, done = self.config, self.done
        rate = self._learning_rate()
        num_labels, num_sequences = counts(batch)
        key = mix(config.seed, done.step)
        torch.manual_seed(int((mix(key, rank()) if rank() else key) >> 1))  # dropout, the one user of torch's generator
        self.model.train()
        numbers: dict[str, Tensor] = {}
        for i, (part, times) in enumerate(parts, 1):
            if i == len(parts):
                self.watch.moved()
            scalar, named = self.learner(self.loss, part, times, num_labels, num_sequences, last=i == len(parts))
            for name, number in {"loss": scalar, **named}.items():
                numbers[name] = numbers.get(name, 0.0) + number.detach().double()
        losses = list(numbers)
        numbers["grad_norm"] = self.optimizer.clip(config.max_grad_norm).double()
        tokens = batch.num_tokens
        event = {"step": done.step + 1, "tokens": done.tokens + tokens, "seconds": 0.0, "learning_rate": rate}
        self.figures.send(event, numbers)
        known = list(self._known(self.figures.read()))  # before the update: on a CPU none is made that is not finite
        self.optimizer.step(rate)
        seconds = self._agreed(event, losses, time.perf_counter() - start, signals)
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

    def _agreed(self, event: dict[str, Any], losses: list[str], seconds: float, signals: list[str]) -> float:
        """How long the step took: for all processes as long as for process 0. Events get the losses of the whole batch.

        What one process heard of a signal is told to all, so that they stop after the same step.
        """
        if world_size() == 1:
            return seconds
        told = {f"heard {name}": float(name in signals) for name in ("SIGINT", "SIGTERM")}
        here = {name: event[name] for name in losses}
        found = summed({**here, "seconds": seconds if rank() == 0 else 0.0, **told})
        self.stopped_by = next((name.removeprefix("heard ") for name in told if found[name]), "")
        event |= {name: found[name] for name in losses}
        return found["seconds"]

    def _validated(self, journal: Journal | None) -> bool:
        """Validates; keeps the best weights. True when it is time to stop early."""
        if self.validate is None:
            return False
        self.model.eval()
        with torch.inference_mode(), as_written(self.given), self.watch.alone():
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

    def _save(self, saver: Saver) -> None:
        done = self.done
        tensors = self.optimizer.state() | {f"best.{n}": t for n, t in self.best_weights.items()}
        meta = {
            "tokens": done.tokens,
            "seconds": done.seconds,
            "loss": done.loss,
            "stale": self.stale,
            "best": done.best,
            "validations": list(done.validations),
        }
        saver.save(done.step, tensors, meta)

    def _restore(self) -> None:
        assert self.saver is not None
        checkpoint = self.saver.latest()
        if checkpoint is None:
            return
        tensors = self.saver.read(checkpoint, self.optimizer.like)
        self.optimizer.load_state({k: v for k, v in tensors.items() if not k.startswith("best.")})
        self.best_weights = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        meta, done = checkpoint.meta, self.done
        done.step, done.tokens, done.seconds, done.loss = checkpoint.step, meta["tokens"], meta["seconds"], meta["loss"]
        done.best, done.validations, self.stale = meta["best"], meta["validations"], meta["stale"]
        done.notes += checkpoint.notes

    @torch.no_grad()
    def _settle(self) -> None:
        """Leaves the model in fp32 on the CPU, with the best weights where a metric chose them, else the last."""
        weights = self.optimizer.frozen | (self.best_weights or self.optimizer.masters)
        decompile(self.given)
        self.given.float().to("cpu")
        for name, parameter in self.given.named_parameters():
            if name in weights:
                parameter.copy_(whole(weights[name]))
        self.given.eval()
