"""Losses: what is to be made small, each divided by the true count of what is predicted in the whole step.

Legend: B rows, L positions, D width, E embedding width, V vocabulary, P predicted positions, N sequences, C classes,
K labelled positions of the sequence that has most."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.models.heads import Model

Loss = Callable[[Model, Batch, int, int], tuple[Tensor, dict[str, Tensor]]]
"""(model, micro-batch, labels in the step, labels of sequences in the step) -> (what to minimize, its named parts)."""

_BLOCK_ELEMENTS = 4_000_000  # logits held at once: 16 MB in fp32, small enough to stay in a last-level cache


class _BlockedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ weight.T + bias` (if any), never holding more than a block of the logits.

    The gradient of a softmax is known as soon as its value is, so the forward pass computes both, block after block,
    and the backward pass only scales: P x V logits are neither stored nor computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, scale: float) -> Tensor:
        wants_gradient = any(ctx.needs_input_grad[:3])
        rows = max(1, _BLOCK_ELEMENTS // weight.shape[0])
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        if wants_gradient:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight)
            grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for start in range(0, len(labels), rows):
            block, target = hidden[start : start + rows], labels[start : start + rows].unsqueeze(1)
            logits = F.linear(block, weight, bias).float()  # (rows, V)
            # log-sum-exp is at least the largest logit, so that exp below cannot overflow
            logits -= logits.logsumexp(dim=1, keepdim=True)
            total -= logits.gather(1, target).sum()
            if not wants_gradient:
                continue
            probabilities = logits.exp_()
            probabilities.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))
            probabilities *= scale
            if grad_bias is not None:
                grad_bias += probabilities.sum(dim=0)
            gradient = probabilities.to(hidden.dtype)
            torch.mm(gradient, weight, out=grad_hidden[start : start + rows])
            grad_weight.addmm_(gradient.t(), block)
        if wants_gradient:
            ctx.save_for_backward(grad_hidden, grad_weight, None if bias is None else grad_bias.to(bias.dtype))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        (factor,) = upstream
        return grad_hidden * factor, grad_weight * factor, None if grad_bias is None else grad_bias * factor, None, None


def blocked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, count: int) -> Tensor:
    """Sum of the cross-entropies of P predictions, divided by `count`.

    hidden: (P, E). weight: (V, E). bias: (V,) or None. labels: int64 (P,), each in [0, V).
    """
    return _BlockedCrossEntropy.apply(hidden, weight, bias, labels, 1.0 / max(count, 1))  # type: ignore[no-any-return]


def pretraining_loss(
    model: Model, batch: Batch, num_labels: int, num_sequences: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the masked tokens, in a causal model of the next ones, plus that of sentence pairs: whichever the batch
    has labels for (BERT, section 3.1).
    """
    hidden = model.hidden(batch)  # (B, L, D)
    parts: dict[str, Tensor] = {}
    if batch.labels is not None:
        where, head = batch.predicted, "next" if model.config.generative else "masked"
        features = model.heads[head](hidden.flatten(0, 1).index_select(0, where))  # (P, E)
        labels = batch.labels.reshape(-1).index_select(0, where)
        parts[f"{head}_loss"] = blocked_cross_entropy(features, *model.decoder, labels, num_labels)
    if batch.sequence_labels is not None:
        parts["pair_loss"] = _cross_entropy(model.outputs("pair", hidden, batch), batch.sequence_labels, num_sequences)
    return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}


def classification_loss(weights: Tensor | None = None) -> Loss:
    """Cross-entropy of one class a sequence; mean squared error where the labels are numbers.

    weights: (C,), one for each class: the mean of each class's loss then counts that much.
    """

    def loss(model: Model, batch: Batch, num_labels: int, num_sequences: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.sequence_labels is not None
        logits = model(batch, "classify")  # (N, C)
        if batch.sequence_labels.is_floating_point():
            value = F.mse_loss(logits.squeeze(1).float(), batch.sequence_labels, reduction="sum") / num_sequences
        else:
            value = _cross_entropy(logits, batch.sequence_labels, num_sequences, weights)
        return value, {"classify_loss": value.detach()}

    return loss


def tagging_loss(weights: Tensor | None = None) -> Loss:
    """Cross-entropy of one label a position, at labelled positions only. weights: (C,), as in classification."""

    def loss(model: Model, batch: Batch, num_labels: int, num_sequences: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.labels is not None
        where = batch.predicted
        logits = model.heads["tag"](model.hidden(batch).flatten(0, 1).index_select(0, where))  # (P, C)
        value = _cross_entropy(logits, batch.labels.reshape(-1)[where], num_labels, weights)
        return value, {"tag_loss": value.detach()}

    return loss


def span_logits(model: Model, batch: Batch) -> Tensor:
    """How well each labelled position of a sequence begins and ends the answer: (2, N, K), in order.

    The first of a sequence stands for "no answer". -inf after the last.
    """
    at = batch.predicted  # (P,), ascending
    by_place = torch.argsort(batch.starts)
    owner = by_place[torch.searchsorted(batch.starts[by_place], at, right=True) - 1]  # (P,)
    counts = torch.bincount(owner, minlength=len(by_place))  # (N,)
    firsts = torch.empty_like(counts)
    firsts[by_place] = counts[by_place].cumsum(0) - counts[by_place]
    rank = torch.arange(len(at), device=at.device) - firsts[owner]  # (P,)
    scores = model.heads["answer"](model.hidden(batch).flatten(0, 1).index_select(0, at)).float()  # (P, 2)
    grid = scores.new_full((2, len(counts), int(counts.max())), -torch.inf)  # (2, N, K)
    grid[:, owner, rank] = scores.t()
    return grid


def answer_loss(model: Model, batch: Batch, num_labels: int, num_sequences: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of the cross-entropies of start and end, each over the labelled positions of its window (BERT, 4.2).

    Two labels a sequence, (N, 2): which of its labelled positions is the start, and which the end.
    """
    assert batch.sequence_labels is not None
    logits = span_logits(model, batch).flatten(0, 1)  # (2N, K)
    value = _cross_entropy(logits, batch.sequence_labels.t().reshape(-1), num_sequences)
    return value, {"answer_loss": value.detach()}


def _cross_entropy(logits: Tensor, labels: Tensor, count: int, weights: Tensor | None = None) -> Tensor:
    total = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    return total / max(count, 1)
