"""How high each weight stands in a model: what layer-wise learning rates, frozen layers and new layers go by.

Layers are counted from the lowest, 1, to the highest, n. Those that share their weights (ALBERT) are one layer.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field

from pluri.models.heads import Model


def _known(layers: Any) -> Any:
    if isinstance(layers, str) and layers not in ("embeddings", "body"):
        raise ValueError("should be a number of layers, 'embeddings' or 'body'")
    return layers


Freeze = Annotated[Annotated[int, Field(ge=0)] | Literal["embeddings", "body"], BeforeValidator(_known)]


def depths(model: Model) -> dict[str, int]:
    """Of each parameter by name: 0 in the embeddings, the layer's number in a layer, n + 1 above all layers.

    Above stand the norm that ends a pre-norm body, and the heads with their pooling layers. The layers of a decoder
    stand above those of its encoder, and their numbers go on.
    """
    above = num_layers(model) + 1

    def depth(name: str) -> int:
        stack, _, inner = name.removeprefix("body.decoder.").removeprefix("body.").partition(".")
        if name.startswith("heads.") or stack not in ("embeddings", "blocks"):
            return above
        below = len(model.body.blocks) if name.startswith("body.decoder.") else 0
        return 0 if stack == "embeddings" else below + int(inner.partition(".")[0]) + 1

    return {name: depth(name) for name, _ in model.named_parameters()}


def num_layers(model: Model) -> int:
    """Layers with weights of their own, those of a decoder beside the encoder too."""
    return len(model.body.blocks) + (0 if model.body.decoder is None else len(model.body.decoder.blocks))


def learning_rate_factors(model: Model, decay: float) -> dict[str, float]:
    """What multiplies the learning rate of each parameter, by name: decay ** (n + 1 - depth).

    Heads learn at the full rate, the highest layer at decay times that, the embeddings at decay ** (n + 1). Howard and
    Ruder (2018), section 3.2; Clark et al., "ELECTRA" (2020), appendix B, with 0.8 to 0.9. ELECTRA's code has one
    factor more between heads and highest layer. Empty where all learn at one rate.
    """
    if decay == 1:
        return {}
    above = num_layers(model) + 1
    return {name: decay ** (above - depth) for name, depth in depths(model).items()}


def freeze(model: Model, layers: Freeze) -> None:
    """Takes the embeddings and the `layers` lowest layers out of training; 0 takes nothing.

    "embeddings": these alone. "body": all but the heads. No gradient is computed below the lowest weight that learns.
    """
    if layers == "body":
        model.body.requires_grad_(False)
    elif layers:
        highest = 0 if layers == "embeddings" else layers
        for name, depth in depths(model).items():
            model.get_parameter(name).requires_grad_(depth > highest)


@torch.no_grad()
def start_anew(model: Model, layers: int, seed: int) -> None:
    """Gives the `layers` highest layers, and all above them, the initial values that `seed` draws; 0 changes nothing.

    Zhang et al., "Revisiting few-sample BERT fine-tuning" (2021), section 5: the pooling layer, too.
    """
    if not layers:
        return
    new = Model(model.config, model.num_classes, seed=seed)
    for name, depth in depths(model).items():
        if depth > num_layers(model) - layers:
            model.get_parameter(name).copy_(new.get_parameter(name))
