"""A model whose weights, gradients and optimizer states are shared out among processes: FSDP2."""

import copy

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.runtime import pick_device, world_size
from pluri.training.spread import Spread, spread

COPIES, SHARDS = "copies", "shards"
"""Dimensions of the mesh: those of processes with one shard of several copies, and of those that make up one copy."""


def sharded(model: Model, shards: int | None, dtype: torch.dtype) -> tuple[Model, Spread]:
    """A copy of a model whose weights are shared out layer by layer, and how work on whole matrices is spread.

    The model is on the CPU and stays there: of its copy a layer at a time goes to the device, and a part of it stays.

    The shards are fp32, the optimizer's masters at once; products are of `dtype`, sums of gradients of fp32.
    shards: processes that share one copy of the weights, by default all.
    UsageError: the number of processes is no multiple of it.
    """
    size, shards = world_size(), shards or world_size()
    if size % shards:
        raise UsageError(f"{size} processes do not make groups of {shards}", where="parallel.shards")
    # Neighbours share a copy: torchrun numbers the processes of one host in a row.
    mesh = init_device_mesh(pick_device(), (size // shards, shards), mesh_dim_names=(COPIES, SHARDS))
    mesh = mesh if shards < size else mesh[SHARDS]
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    shared_out = copy.deepcopy(model)
    for parameter in shared_out.parameters():  # all begin with the weights of process 0
        dist.broadcast(parameter.data, 0)
    for stack in (shared_out.body, shared_out.body.decoder):
        if stack is not None and not model.config.shared_layers:
            for block in stack.blocks:
                fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(shared_out, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(shared_out, "learn")
    copies = mesh.get_group(COPIES) if shards < size else None
    return shared_out, spread(copies, mesh.get_group(SHARDS))
