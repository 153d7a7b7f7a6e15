"""Where a model computes, and in which form: batches on its device, blocks compiled."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from pluri.batches.batch import Batch
from pluri.batches.flat import flat
from pluri.models.flash import has_kernel
from pluri.models.heads import Model
from pluri.models.transformer import Transformer


def reads_flat(model: Model, dtype: torch.dtype | None = None) -> bool:
    """Whether batches in one row without gaps are what it reads fastest: attention has a kernel for them (`flash`).

    dtype: of its products; by default that of its weights.
    """
    if not isinstance(getattr(model, "body", None), Transformer):
        return False
    weight = next(model.parameters())
    return has_kernel(model.config, weight.device, dtype or weight.dtype)


def laid_for(model: Model, batch: Batch, dtype: torch.dtype | None = None) -> Batch:
    """The batch, still on the CPU, in the layout that the model reads fastest: sequences stay in their order."""
    return flat(batch) if reads_flat(model, dtype) else batch


def placed(model: Model, batch: Batch) -> Batch:
    """The batch in that layout and on the device of the model."""
    return laid_for(model, batch).to(next(model.parameters()).device)


def compile_blocks(model: Model, backend: str | Callable[..., Any] = "inductor") -> None:
    """Lets torch.compile make the kernels of the blocks at their first call. Layers of one kind share what is compiled.

    Numbers of tokens may change from call to call: nothing is compiled anew.
    """
    for block in _blocks(model):
        block.compile(dynamic=True, backend=backend)


def decompile(model: Model) -> None:
    """Undoes `compile_blocks`."""
    for block in _blocks(model):
        block._compiled_call_impl = None


def is_compiled(model: Model) -> bool:
    return any(block._compiled_call_impl is not None for block in _blocks(model))


def as_written(model: Model) -> contextlib.AbstractContextManager[object]:
    """Within it nothing is compiled: what runs for a moment is not worth it."""
    return torch.compiler.set_stance("force_eager") if is_compiled(model) else contextlib.nullcontext()


def _blocks(model: Model) -> list[torch.nn.Module]:
    if not isinstance(getattr(model, "body", None), Transformer):
        return []
    decoder = model.body.decoder
    return [*model.body.blocks, *([] if decoder is None else decoder.blocks)]
