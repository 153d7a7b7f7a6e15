"""Losses: what is to be made small, each divided by the true count of what is predicted in the whole step.

Legend: B rows, L positions, D width, E embedding width, V vocabulary, P predicted positions, N sequences, C classes,
K labelled positions of the sequence that has most."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.models.heads import Model
from pluri.models.placing import is_compiled

Loss = Callable[[Model, Batch, int, int], tuple[Tensor, dict[str, Tensor]]]
"""(model, micro-batch, labels in the step, labels of sequences in the step) -> (what to minimize, its named parts)."""

# Logits held at once, and what the number of outputs is made a multiple of. On a CPU the logits are 16 MB in fp32, few
# enough to stay in a last-level cache; a GPU wants more at once, and its matrix units such a multiple.
_ON_CPU, _ON_GPU = (4_000_000, 1), (1 << 27, 64)


class _BlockedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ weight.T + bias` (if any), never holding more than a block of the logits.

    The gradient of a softmax is known as soon as its value is, so the forward pass computes both, block after block,
    and the backward pass only scales: P x V logits are neither stored nor computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, scale: float, compiled: bool
    ) -> Tensor:
        wants_gradient, biased, outputs = any(ctx.needs_input_grad[:3]), bias is not None, len(weight)
        elements, multiple = _ON_CPU if hidden.is_cpu else _ON_GPU
        weight, bias = _padded(weight, bias, -outputs % multiple)
        rows = max(1, elements // weight.shape[0])
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        if wants_gradient:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight)
            grad_bias = torch.zeros_like(weight[:, 0], dtype=torch.float32)
        for start in range(0, len(labels), rows):
            block, target = hidden[start : start + rows], labels[start : start + rows].unsqueeze(1)
            logits = F.linear(block, weight, bias)  # (rows, V)
            if compiled and wants_gradient:
                loss, gradient, sums = _compiled()(logits, target, torch.full_like(total, scale))
            else:
                loss, gradient, sums = _differentiated(logits, target, scale, wants_gradient, biased)
            total += loss
            if gradient is None:
                continue
            if sums is not None:
                grad_bias += sums
            torch.mm(gradient, weight, out=grad_hidden[start : start + rows])
            grad_weight.addmm_(gradient.t(), block)
        if wants_gradient:
            grad_bias = grad_bias[:outputs].to(weight.dtype) if biased else None
            ctx.save_for_backward(grad_hidden, grad_weight[:outputs], grad_bias)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        (factor,) = upstream
        of_bias = None if grad_bias is None else grad_bias * factor
        return grad_hidden * factor, grad_weight * factor, of_bias, None, None, None


def _padded(weight: Tensor, bias: Tensor | None, more: int) -> tuple[Tensor, Tensor | None]:
    """The output layer with so many outputs more, whose probability is 0."""
    if not more:
        return weight, bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return F.pad(weight, (0, 0, 0, more)), F.pad(bias, (0, more), value=-torch.inf)


def _differentiated(
    logits: Tensor, target: Tensor, scale: float, wants_gradient: bool, biased: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of logits (rows, V), which it may overwrite, and targets (rows, 1): the summed cross-entropy; `scale` times its
    gradient, in their dtype, if that is wanted; and the sum of that over the rows, fp32 (V,), if there is a bias.
    """
    dtype, logits = logits.dtype, logits.float()
    # log-sum-exp is at least the largest logit, so that exp below cannot overflow
    logits -= logits.logsumexp(dim=1, keepdim=True)
    loss = -logits.gather(1, target).sum()
    if not wants_gradient:
        return loss, None, None
    probabilities = logits.exp_()
    probabilities.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))
    probabilities *= scale
    return loss, probabilities.to(dtype), probabilities.sum(dim=0) if biased else None


def _in_one_pass(logits: Tensor, target: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a compiler, which stores nothing in between. scale: of no dimension."""
    logs = logits.float()
    logs = logs - logs.logsumexp(dim=1, keepdim=True)
    wanted = torch.arange(logs.shape[1], device=logs.device) == target
    gradient = (logs.exp() - wanted.float()) * scale
    return -logs.gather(1, target).sum(), gradient.to(logits.dtype), gradient.sum(dim=0)


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(_in_one_pass)


def blocked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, count: int, *, compiled: bool = False
) -> Tensor:
    """Sum of the cross-entropies of P predictions, divided by `count`.

    hidden: (P, E). weight: (V, E). bias: (V,) or None. labels: int64 (P,), each in [0, V).
    compiled: what is not a product is compiled by torch at the first call.
    """
    scale = 1.0 / max(count, 1)
    return _BlockedCrossEntropy.apply(hidden, weight, bias, labels, scale, compiled)  # type: ignore[no-any-return]


def pretraining_loss(
    model: Model, batch: Batch, num_labels: int, num_sequences: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the masked tokens, in a causal model of the next ones, plus that of sentence pairs: whichever the batch
    has labels for (BERT, section 3.1).
    """
    parts: dict[str, Tensor] = {}
    where, pairs = batch.predicted, batch.sequence_labels is not None
    starts = batch.starts if pairs else where[:0]
    if model.config.generative or (pairs and model.config.pooling != "first"):  # every position is read
        hidden = model.hidden(batch)  # (B, L, D)
        states = hidden.flatten(0, 1).index_select(0, where)
        vectors = model.pooled(hidden, batch) if pairs else states[:0]
    else:
        vectors, states = model.hidden(batch, torch.cat((starts, where))).tensor_split([len(starts)])  # (N, D), (P, D)
    if batch.labels is not None:
        head = "next" if model.config.generative else "masked"
        features, labels = model.heads[head](states), batch.labels.reshape(-1).index_select(0, where)  # (P, E), (P,)
        loss = blocked_cross_entropy(features, *model.decoder, labels, num_labels, compiled=is_compiled(model))
        parts[f"{head}_loss"] = loss
    if batch.sequence_labels is not None:
        parts["pair_loss"] = _cross_entropy(model.heads["pair"](vectors), batch.sequence_labels, num_sequences)
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
        logits = model.heads["tag"](model.hidden(batch, where))  # (P, C)
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
    counts = torch.zeros_like(by_place).index_add_(0, owner, torch.ones_like(owner))  # (N,)
    most = int(counts.max()) if batch.spans is None else batch.spans.longest  # at most: the device is not asked
    firsts = torch.empty_like(counts)
    firsts[by_place] = counts[by_place].cumsum(0) - counts[by_place]
    rank = torch.arange(len(at), device=at.device) - firsts[owner]  # (P,)
    scores = model.heads["answer"](model.hidden(batch, at)).float()  # (P, 2)
    grid = scores.new_full((2, len(counts), most), -torch.inf)  # (2, N, K)
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
