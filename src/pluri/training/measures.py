"""What a step costs, what its losses are divided by, and the losses of a whole validation set."""

from collections.abc import Iterator

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.losses import Loss
from pluri.models.config import ModelConfig, train_flops
from pluri.models.heads import Model, positions_read
from pluri.models.placing import placed
from pluri.training.parallel import my_parts, summed


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

    Reads one batch at a time, each process of a group its share of it, and keeps sums only. A loss of which nothing was
    predicted is left out; {} if all are.
    """
    sums: dict[str, float] = {}
    totals: dict[str, int] = {}
    for batch in batches:
        num_labels, num_sequences = counts(batch)
        ((part, times),) = my_parts(batch)
        _, named = model.learn(loss, placed(model, part), 1, 1)
        for name, value in named.items():
            sums[name] = sums.get(name, 0.0) + times * value.item()
            count = num_sequences if name in ("pair_loss", "classify_loss", "answer_loss") else num_labels
            totals[name] = totals.get(name, 0) + count
    means = {f"eval_{name}": total / totals[name] for name, total in summed(sums).items() if totals[name]}
    return {"eval_loss": sum(means.values()), **means} if means else {}
