"""Weights in 8 bits: a quarter of the memory to be read for every token, which is what writing on a CPU waits for.

Legend: P positions, I inputs and O outputs of a layer, D width, V vocabulary.
"""

import torch
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.errors import CheckpointError, UsageError
from pluri.models.heads import Model

_HIGHEST = 127


class Int8Linear(nn.Module):
    """A linear layer with weights in int8, a scale for each output; inputs are rounded to 7 bits as they come.

    Seven: with eight, sums of products overflow 16 bits on processors without VNNI instructions.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: fp32 (O, I). bias: fp32 (O,) or None."""
        super().__init__()
        scales = weight.abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / _HIGHEST  # (O,)
        rounded = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales).long(), 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """fp32 (..., I) to (..., O)."""
        return torch.ops.quantized.linear_dynamic(x.contiguous(), self._packed, True)


class Int8Model(Model):
    """A causal model with every matrix of its blocks, and its output layer, in int8: for inference on a CPU.

    Embeddings, norms and biases stay. Takes the parts of `model`, which is of no use after it.
    UsageError: the model is not fp32 on a CPU, or has no output layer for next tokens. CheckpointError: a weight of it
    is not finite, and cannot be rounded.
    """

    def __init__(self, model: Model) -> None:
        nn.Module.__init__(self)
        weight, bias = model.decoder
        if "next" not in model.heads or weight.device.type != "cpu" or weight.dtype != torch.float32:
            do = "leave it out on other machines"
            raise UsageError("int8 is for causal models in fp32 on a CPU", where="int8", do=do)
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            do = "take another copy, or pretrain again with a lower learning rate"
            raise CheckpointError("weights of the model are not finite", where="model", do=do)
        self.config, self.num_classes, self.new_heads = model.config, model.num_classes, model.new_heads
        self.body, self.heads = model.body, model.heads
        with torch.no_grad():
            for module in list(self.body.blocks.modules()):
                for name, layer in module.named_children():
                    if isinstance(layer, nn.Linear):
                        setattr(module, name, Int8Linear(layer.weight, layer.bias))
            self.output = Int8Linear(weight, bias)
        self.eval()

    def outputs(self, head: str, hidden: Tensor, batch: Batch, at: Tensor | None = None) -> Tensor:
        """Of the head next alone: logits (P, V) at the flat positions `at`, by default those that have a label."""
        where = batch.predicted if at is None else at
        return self.output(self.heads[head](hidden.flatten(0, 1).index_select(0, where)))
