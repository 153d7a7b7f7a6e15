"""Which weights fine-tuning changes, and how fast: layer-wise rates, frozen layers, new layers, low-rank adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from pluri.config import Config
from pluri.errors import UsageError
from pluri.models.config import ModelConfig
from pluri.models.heads import Model
from pluri.models.lora import Lora, LoraTargets, attach
from pluri.training.depth import Freeze, freeze, start_anew
from pluri.training.trainer import Trained


class Adaptation(Config):
    """Which weights fine-tuning changes, and how fast; by default all of them, at one rate.

    Layers are counted as `pluri.training.depth` does: shared ones are one.

    layer_decay: what the learning rate is multiplied by from each layer to the one below it: heads learn at the full
        rate, the highest of n layers at layer_decay times that, the embeddings at layer_decay ** (n + 1).
    freeze: the embeddings and so many of the lowest layers keep their weights; "embeddings" alone; "body", all but the
        heads. reinit_layers: so many of the highest layers, and the pooling layer, start from initial values.
    lora_rank: train only heads and adapters of this rank, which are merged into the weights in the end. lora_alpha:
        they are scaled by lora_alpha / lora_rank; by default by 1. lora_targets: the matrices that get one.
    """

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    freeze: Freeze = 0
    reinit_layers: int = Field(default=0, ge=0)
    lora_rank: int | None = Field(default=None, ge=1)
    lora_alpha: int | None = Field(default=None, ge=1)
    lora_targets: LoraTargets = "query_value"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lora_rank is None:
            if self.lora_alpha is not None or self.lora_targets != "query_value":
                raise ValueError("lora_alpha and lora_targets are settings of LoRA: give lora_rank, too")
        elif self.freeze or self.reinit_layers:
            other = "freeze" if self.freeze else "reinit_layers"
            raise ValueError(f"LoRA freezes the whole pretrained body: leave {other} or lora_rank out")
        if self.freeze == "body" and self.reinit_layers:
            raise ValueError("a frozen body cannot have layers that start anew: leave freeze or reinit_layers out")
        return self

    def check(self, model: ModelConfig) -> None:
        """UsageError if a model has not as many layers as are to be frozen or to start anew."""
        layers = model.num_layers + model.decoder_layers
        if model.shared_layers:
            layers = 1 if not model.decoder_layers else 2
        frozen = self.freeze if isinstance(self.freeze, int) else 0
        has = f"the model has {layers}" + (", shared by all" if model.shared_layers else "")
        for name, count in (("freeze", frozen), ("reinit_layers", self.reinit_layers)):
            if count > layers:
                raise UsageError(f"{count} layers, but {has}", where=name, do=f"give at most {layers}")
        if frozen + self.reinit_layers > layers:
            what = f"{frozen} layers are frozen and {self.reinit_layers} start anew, but {has}"
            raise UsageError(what, where="reinit_layers", do="a layer cannot be both")

    @contextmanager
    def applied(self, model: Model, seed: int) -> Iterator[Lora | None]:
        """Within it, `model` is ready to be trained; after it, it is as any other again, adapters merged.

        Yields the adapters, if there are any. UsageError: see `check`.
        """
        self.check(model.config)
        start_anew(model, self.reinit_layers, seed)
        freeze(model, self.freeze)
        lora = None
        if self.lora_rank is not None:
            lora = attach(model, self.lora_rank, self.lora_alpha or self.lora_rank, self.lora_targets, seed)
        try:
            yield lora
        finally:
            if lora is not None:
                lora.merge(model)
            model.requires_grad_(True)

    def of_random_start(self) -> Self:
        """The same settings for a model that knows nothing yet: all of it learns, at one rate.

        Frozen or low-rank, its body would stay at chance.
        """
        return self.model_copy(update={name: field.default for name, field in Adaptation.model_fields.items()})


@dataclass
class Fitted(Trained):
    """What came of fine-tuning. lora: the adapters that were merged into the model, if it was trained with LoRA."""

    lora: Lora | None = None
