"""How long and how to train."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pluri.config import Config
from pluri.runtime import Precision
from pluri.training.schedule import Schedule

Beta = Annotated[float, Field(ge=0, lt=1)]


class ParallelConfig(Config):
    """How the processes that torchrun starts share a run; one process alone needs none of it.

    strategy: ddp, each process has all weights; fsdp, weights, gradients and optimizer states are shared out, and the
        weights of a layer come together when it is their turn.
    shards: of fsdp, the processes that share one set of weights, such as those of one host; the others have copies of
        it (hybrid sharding). By default all.
    activation_checkpointing: keep only what each layer reads, and compute the rest again for the gradient: less memory,
        more time. One process may use it, too.
    timeout: minutes without progress after which the run ends, and says which process hangs.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    shards: int | None = Field(default=None, ge=2)
    activation_checkpointing: bool = False
    timeout: float = Field(default=10.0, gt=0, le=60)


class TrainingConfig(Config):
    """How long and how to train.

    steps, tokens, minutes: the budget, exactly one of these; padding is not counted as tokens.
    learning_rate: the highest. schedule: how it goes on after the warmup.
    warmup: the share of the budget over which it rises. warmup_steps: instead of the share.
    decay: for wsd, the share of the budget over which it falls in the end.
    optimizer: Muon for the matrices of the blocks and AdamW for the rest, or AdamW for all.
    weight_decay: decoupled, as in AdamW.
    precision: of the products; auto takes bf16 where that is fast.
    betas: of AdamW. max_grad_norm: longer gradients are scaled down to it.
    compile: on a GPU, torch.compile makes the kernels of the blocks: that takes a minute, and later steps less time.
    batch_tokens: of a step. accumulation: the parts in which they are computed, one after the other.
    packed: several sequences share a row. workers: processes that make batches.
    seed: of everything that is drawn.
    eval_steps: steps between validations; there is always one at the end.
    patience: validations without improvement before stopping early.
    best_metric: keep the weights that validate best by this; loss, perplexity and bits per byte are minimized.
    checkpoint_minutes, checkpoint_steps: between two checkpoints.
    """

    steps: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    optimizer: Literal["muon", "adamw"] = "muon"
    schedule: Schedule = "wsd"
    warmup: float = Field(0.05, ge=0, lt=1)
    warmup_steps: int | None = Field(None, ge=0)
    decay: float = Field(0.4, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    max_grad_norm: float = Field(1.0, gt=0)
    batch_tokens: int = Field(4096, ge=1)
    accumulation: int = Field(1, ge=1)
    packed: bool = True
    precision: Precision = "auto"
    compile: bool = True
    workers: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    eval_steps: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)
    best_metric: str | None = None
    checkpoint_minutes: float = Field(5.0, gt=0)
    checkpoint_steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_budget(self) -> "TrainingConfig":
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            do = f"; leave out all but one, in the file or after --set: {', '.join(given)}" if given else ""
            raise ValueError(f"exactly one budget is needed, steps, tokens or minutes{do}")
        return self
