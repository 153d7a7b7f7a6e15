"""The losses of pretraining on documents held out: of one store, or of several each and their mean."""

import math
from itertools import islice

from pluri.batches.loader import Batches
from pluri.losses import pretraining_loss
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.training.measures import mean_loss
from pluri.training.trainer import Validate

_MOST_TOKENS = 1_000_000


def validation(held_out: dict[str, Batches], weights: dict[str, int], batch_tokens: int) -> Validate:
    """The losses over the first million tokens of all stores together; of next tokens also the perplexity and bits per
    byte of their text. Of several stores the weighted mean, and each one's own under its name."""
    most = max(1, _MOST_TOKENS // batch_tokens // len(held_out))
    per_byte = {
        name: each.source.tokens_per_byte(most * each.sequences_per_batch) / math.log(2)
        for name, each in held_out.items()
        if isinstance(each.source, NextTokens)
    }

    def measured(model: Model, name: str) -> dict[str, float]:
        found = mean_loss(model, islice(held_out[name].once(), most), pretraining_loss)
        if name not in per_byte:
            return found
        loss = found["eval_loss"]
        return found | {"eval_perplexity": math.exp(min(loss, 700)), "eval_bits_per_byte": loss * per_byte[name]}

    def validate(model: Model) -> dict[str, float]:
        each = {name: found for name in held_out if (found := measured(model, name))}
        if len(weights) == 1 or not each:
            return next(iter(each.values()), {})
        total = sum(weights[name] for name in each)
        means = {
            metric: sum(weights[name] * found[metric] for name, found in each.items()) / total
            for metric in next(iter(each.values()))
        }
        return means | {f"{metric}_{name}": value for name, found in each.items() for metric, value in found.items()}

    return validate
