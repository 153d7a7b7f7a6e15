"""Fine-tuning one model on one task.

Legend: B rows, L positions a row, D width, C classes, U units, P labelled positions, N sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pluri.batches.loader import Batches
from pluri.errors import UsageError
from pluri.losses import answer_loss, classification_loss, pretraining_loss, tagging_loss
from pluri.models.config import ModelConfig
from pluri.models.heads import Model
from pluri.runtime import Precision, pick_device
from pluri.tasks.adaptation import Adaptation, Fitted
from pluri.tasks.answer import AnswerExamples, Answering
from pluri.tasks.encode import TaskExamples
from pluri.tasks.predictions import Encoded, judged, predict, row_length
from pluri.tasks.task import Labelled, Task
from pluri.tasks.translate import TextExamples, Writing
from pluri.tokens.tokenizer import Tokenizer
from pluri.training.trainer import TrainingConfig, train

# Published rates run from 5e-5 at width 768 (Devlin et al. 2019, A.3) to 3e-4 at width 256 (Turc et al. 2019,
# appendix A).
_RATE_AT_768, _RATE_POWER = 5e-5, 1.6
# Small `modern` models bear more. Tagging with 50 sentences, width 384: 45% at 3e-4, 55% at 1e-3, 52% at 4e-3. Of the
# same architecture, EuroBERT as published begins at width 768.
_RATE_OF_MODERN = 1e-3
# Adapters need more (Hu et al. 2021, appendix D: 4e-4 to 5e-4 at width 768). SST-2: 52% at 1 times, 76% at 10 times.
_LORA_FACTOR = 10
# With few labels steps count for more than tokens. The same model: 120 steps of 256 tokens 57%, 60 of 512 55%; with 200
# sentences 120 of 256 65.0%, 240 of 512 65.6% (one seed each, +-1).
_STEPS_AN_EPOCH, _FEWEST_TOKENS, _MOST_TOKENS, _FEWEST_SEQUENCES = 100, 256, 2048, 8
Fresh = bool | Literal["embeddings"]


class Tuning(Adaptation, Answering, Writing):
    """How to fine-tune. The defaults are for few labels: what is tiny is passed over more often.

    The settings of answers (`Answering`) and of translations (`Writing`) are of no effect in other tasks.

    epochs: passes over the training data. min_steps: but at least so many steps.
    batch_tokens: of a step; by default what makes 100 steps an epoch, within 256 and 2048, and at least 8 sequences.
    accumulation: the parts in which a step's tokens are computed, one after the other: less memory, the same gradient.
    learning_rate: by default 1e-3 for `modern` below width 768; else 5e-5 there, and more for smaller models; LoRA: 10
        times that.
    schedule: after the warmup the rate falls linearly to 0, or stays.
    class_weights: "balanced" counts every class alike; or a number for each label.
    optimizer, weight_decay: as in pretraining. warmup: the share of the steps over which the rate rises.
    dropout: of the body and the head; by default as the model was made.
    validations: how often the model is validated on the way; the best of them is kept.
    precision: of the products; auto takes bf16 where that is fast.
    truncate: cut what is longer than the model reads, instead of refusing it.
    window_overlap: read what is longer than the model reads in windows that share so many tokens, each of which learns
        by itself; predicted is the mean of their probabilities or numbers. Tagged sentences always are, with 0 as
        default.
    reverse_complement: learn DNA from either strand: each sequence from the other one with probability 1/2, by its key.
    """

    verbatim: ClassVar[tuple[str, ...]] = ("class_weights",)

    epochs: float = Field(default=3, gt=0)
    min_steps: int = Field(default=120, ge=1)
    batch_tokens: int | None = Field(default=None, ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    optimizer: Literal["muon", "adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    validations: int = Field(default=6, ge=1)
    precision: Precision = "auto"
    truncate: bool = False
    window_overlap: int | None = Field(default=None, ge=0)
    reverse_complement: bool = False

    @model_validator(mode="after")
    def _cut_or_read(self) -> Self:
        if self.truncate and self.window_overlap is not None:
            raise ValueError("longer sequences are cut (truncate) or read in windows (window_overlap): leave one out")
        return self

    def batches(self, examples: Encoded, most: int, seed: int) -> Batches:
        """Batches of the training data, in rows of at most `most` positions."""
        share = round(len(examples) * examples.mean_length / _STEPS_AN_EPOCH)
        fitting = max(min(max(share, _FEWEST_TOKENS), _MOST_TOKENS), round(_FEWEST_SEQUENCES * examples.mean_length))
        length = row_length(examples, most)
        return Batches(examples, batch_tokens=self.batch_tokens or fitting, length=length, seed=seed)

    def training(self, batches: Batches, model: ModelConfig, metric: str, seed: int) -> TrainingConfig:
        """The trainer's configuration for these batches and this model."""
        published = _RATE_AT_768 * (768 / model.hidden_size) ** _RATE_POWER
        small_modern = model.norm == "rms" and model.hidden_size < 768
        rate = (_RATE_OF_MODERN if small_modern else published) * (_LORA_FACTOR if self.lora_rank else 1)
        an_epoch = len(batches.source) / batches.sequences_per_batch
        steps = max(self.min_steps, round(self.epochs * an_epoch))
        return TrainingConfig.parse(
            {
                "steps": steps,
                "learning_rate": self.learning_rate or rate,
                "optimizer": self.optimizer,
                "accumulation": self.accumulation,
                "schedule": self.schedule,
                "warmup": self.warmup,
                "weight_decay": self.weight_decay,
                "betas": (0.9, 0.999),
                "precision": self.precision,
                "compile": False,  # a fine-tuning is over before that has paid
                "seed": seed,
                "eval_steps": max(1, -(-steps // self.validations)),
                "best_metric": metric,
            }
        )


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled sequences together with their encoding, made once and used by every run."""

    records: Sequence[Labelled]
    encoded: Encoded

    @classmethod
    def of(
        cls,
        records: Sequence[Labelled],
        task: Task,
        tokenizer: Tokenizer,
        length: int,
        truncate: bool,
        *,
        overlap: int | None = None,
        settings: Answering | None = None,
        token_types: int = 2,
        learn: bool = False,
        strands: int | None = None,
    ) -> "Split":
        """settings, learn: of answers, see AnswerExamples. The others: see TaskExamples."""
        if task.kind == "translate":
            return cls(records, TextExamples(records, tokenizer, length=length, truncate=truncate))
        targets = task.knowing(records).targets(records)
        if task.kind == "answer":
            common: dict[str, Any] = {"length": length, "settings": settings, "token_types": token_types}
            return cls(records, AnswerExamples(records, tokenizer, targets=targets, learn=learn, **common))
        reading: dict[str, Any] = {"length": length, "truncate": truncate, "overlap": overlap, "strands": strands}
        encoded = TaskExamples(records, task, tokenizer, token_types=token_types, targets=targets, **reading)
        return cls(records, encoded)


def with_new_head(model: Model, task: Task, seed: int, *, fresh: Fresh = False, dropout: float | None = None) -> Model:
    """A copy of a model that ends in a new output layer for `task`; nothing of it is shared.

    model: any Model; what else it knows (a pooling layer under the same head) is kept, other heads are left out. One
        that answers questions already keeps the two vectors of start and end as well, which mean the same in any data.
    fresh: initial values throughout, the model from a random start; or of the token embeddings alone.
    dropout: None leaves it as it is.
    """
    changed = {} if dropout is None else {"dropout": dropout, "classifier_dropout": dropout}
    copy = Model(model.config.model_copy(update=changed), task.heads(model.config.vocab_size), seed=seed)
    if fresh is not True:
        answers = task.kind == "answer" and task.head not in model.new_heads
        new = () if answers else (f"heads.{task.head}.out.",)
        new += ("body.embeddings.tokens.",) if fresh else ()
        ours = copy.state_dict().keys()
        known = {n: t for n, t in model.state_dict().items() if n in ours and not n.startswith(new)}
        copy.load_state_dict(known, strict=False)
    return copy


def fit(
    model: Model,
    task: Task,
    training: Split,
    validation: Split,
    tuning: Tuning,
    *,
    seed: int = 0,
    output: Path | None = None,
    progress: str | None = None,
) -> Fitted:
    """Trains `model` in place and leaves it with the weights that did best on the validation data.

    output: a folder for the journal and checkpoints; None keeps everything in memory. progress: see `train`.
    """
    examples, mean, deviation = training.encoded, 0.0, 1.0
    if task.regression:  # learning starts at the mean, in units of the spread; the output layer is put right below
        assert isinstance(examples, TaskExamples)
        numbers = task.targets(training.records)
        mean, deviation = float(numbers.mean()), float(numbers.std()) or 1.0
        examples = examples.with_numbers((numbers - mean) / deviation)
    batches = tuning.batches(examples, model.config.max_length, seed)
    weights = class_weights(task, training.records, tuning)
    losses = {"classify": classification_loss(weights), "tag": tagging_loss(weights)}
    losses |= {"answer": answer_loss, "next": pretraining_loss}

    def validate(model: Model) -> dict[str, float]:
        return judged(task, validation.records, predict(model, task, validation.encoded))

    config = tuning.training(batches, model.config, task.metric, seed)
    loss, decay = losses[task.head], tuning.layer_decay
    with tuning.applied(model, seed) as lora:
        trained = train(
            model, batches, loss, config, output=output, validate=validate, layer_decay=decay, progress=progress
        )
    if task.regression:
        _rescale(model, mean, deviation)
    return Fitted(**vars(trained), lora=lora)


@torch.no_grad()
def _rescale(model: Model, mean: float, deviation: float) -> None:
    """Lets the output layer speak in the labels' own units."""
    layer = model.heads["classify"].out
    assert isinstance(layer, nn.Linear)
    layer.weight.mul_(deviation)
    layer.bias.mul_(deviation).add_(mean)


def class_weights(task: Task, records: Sequence[Labelled], tuning: Tuning) -> Tensor | None:
    """(C,), or None where all count alike. "balanced": units / (classes seen * units of the class), 1 in the mean.

    UsageError if a class is not named in the configuration, or a name is no class.
    """
    chosen = tuning.class_weights
    if chosen is None:
        return None
    if not task.labels:
        what = "regression" if task.regression else f"the task {task.kind}"
        raise UsageError(f"{what} has no classes to weigh", where="class_weights")
    if isinstance(chosen, dict):
        if set(chosen) != set(task.labels):
            wrong = sorted(set(chosen) ^ set(task.labels))[0]
            raise UsageError(f"{wrong!r} is not in both the labels and the weights", where="class_weights")
        weights = np.array([chosen[label] for label in task.labels])
    else:
        counts = np.bincount(task.targets(records).astype(np.int64), minlength=len(task.labels))
        weights = np.where(counts > 0, counts.sum() / np.maximum(counts, 1) / (counts > 0).sum(), 1.0)
    return torch.tensor(weights, dtype=torch.float32, device=pick_device())
