"""Optimizers: AdamW for everything, or Muon for the matrices inside blocks and AdamW for the rest.

Weights may be bf16: the optimizer then keeps fp32 masters and writes back rounded copies, so that nothing is cast twice
and small updates are not lost.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pluri.errors import CheckpointError
from pluri.training.spread import Spread, alone

# Newton-Schulz coefficients of Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024): the steepest
# slope at zero that keeps every singular value between 0.7 and 1.2 after five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_NEWTON_SCHULZ_STEPS = 5
# Muon's updates are scaled to the root mean square that AdamW's have, about 0.2 (Liu et al., "Muon is scalable for LLM
# training", 2025, section 2.2), so that one learning rate serves both.
_ADAMW_RMS = 0.2


def orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix of each, approximately: singular values go to between 0.7 and 1.2.

    matrices: (K, R, C), fp32 or bf16. Newton-Schulz iteration in the matrices' own dtype; on a GPU in bf16, which is as
    good (Jordan 2024).
    """
    given, matrices = matrices.dtype, matrices.bfloat16() if matrices.is_cuda else matrices
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices  # rows <= columns: the Gram matrix is the small one
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.transpose(1, 2) if tall else x).to(given)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized (Jordan 2024). Matrices of one shape are orthogonalized in one batched product.

    stacked: how many matrices a parameter holds, one above the other (queries, keys and values in one product); each is
        orthogonalized by itself. One, if it is not named here.
    spread: which process orthogonalizes what.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        stacked: dict[Tensor, int] | None = None,
        spread: Spread = alone,
    ) -> None:
        self.stacked = stacked or {}
        self.spread = spread
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                gradient, buffer = _local(parameter.grad), _local(state["momentum_buffer"])
                buffer.lerp_(gradient, 1 - group["momentum"])
                updates.append(gradient.lerp(buffer, group["momentum"]))  # Nesterov
            counts = [self.stacked.get(p, 1) for p in parameters]

            def directions(which: Sequence[int], matrices: list[Tensor], counts: list[int] = counts) -> list[Tensor]:
                return _each_orthogonalized(matrices, [counts[i] for i in which])

            # A product of a Gram matrix (m, m), m the shorter side, costs m * m * the longer side.
            costs = [
                float(p.numel() * min(p.shape[0] // n, p.shape[1])) for p, n in zip(parameters, counts, strict=True)
            ]
            found = self.spread(directions, updates, [p.shape[0] for p in parameters], costs)
            for parameter, count, direction in zip(parameters, counts, found, strict=True):
                size = group["lr"] * _ADAMW_RMS * max(parameter.shape[0] // count, parameter.shape[1]) ** 0.5
                _local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-size)


def _each_orthogonalized(matrices: list[Tensor], counts: list[int]) -> list[Tensor]:
    """Those of one shape in one batched product. counts: how many stand in each, one above the other."""
    shapes: dict[torch.Size, list[tuple[int, int]]] = defaultdict(list)
    parts = [list(matrix.chunk(count)) for matrix, count in zip(matrices, counts, strict=True)]
    for i, each in enumerate(parts):
        shapes[each[0].shape] += [(i, k) for k in range(len(each))]
    for places in shapes.values():
        done = orthogonalized(torch.stack([parts[i][k] for i, k in places]))
        for (i, k), matrix in zip(places, done, strict=True):
            parts[i][k] = matrix
    return [torch.cat(each) if len(each) > 1 else each[0] for each in parts]


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is shared out."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[attr-defined]


class MasterOptimizer:
    """The optimizers of a model together with its fp32 masters: one `step`, one flat state to save.

    model: its parameters may be fp32 (they are their own masters) or bf16.
    name: "adamw" or "muon". betas: AdamW's. Weight decay spares vectors (norms, biases).
    factors: what multiplies the learning rate of a parameter, by name; 1 where it is not named.
    spread: of Muon's work over processes.
    A parameter that needs no gradient is left out of everything; rounded by `dtype`, its fp32 value stays in `frozen`.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        weight_decay: float,
        betas: tuple[float, float],
        dtype: torch.dtype,
        factors: Mapping[str, float] | None = None,
        spread: Spread = alone,
    ) -> None:
        self.names = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = dict(self.names)
        self.frozen: dict[str, Tensor] = {}
        if dtype != torch.float32:
            self.masters = {n: nn.Parameter(p.detach().float().clone()) for n, p in self.names.items()}
            frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
            self.frozen = {n: p.detach().to("cpu", copy=True) for n, p in frozen.items()}
            model.to(dtype)
        self.low_precision = dtype != torch.float32
        matrices = [n for n, p in self.names.items() if name == "muon" and p.ndim == 2 and ".blocks." in f".{n}"]
        rest = [n for n in self.names if n not in set(matrices)]
        self.factors = factors or {}
        decayed = self._groups([n for n in rest if self.names[n].ndim >= 2], weight_decay)
        spared = self._groups([n for n in rest if self.names[n].ndim < 2], 0.0)
        adamw = torch.optim.AdamW(decayed + spared, lr=0.0, betas=betas, eps=1e-8, fused=True)
        self.optimizers: list[torch.optim.Optimizer] = [adamw]
        if matrices:
            counts = {f"{n}.weight": getattr(m, "stacked", 1) for n, m in model.named_modules()}
            stacked: dict[Tensor, int] = {self.masters[n]: counts.get(n, 1) for n in matrices}
            self.optimizers.append(Muon(self._groups(matrices, weight_decay), 0.0, stacked=stacked, spread=spread))

    def _groups(self, names: Iterable[str], weight_decay: float) -> list[dict[str, Any]]:
        """The masters of these parameters, those of one factor together."""
        together: dict[float, list[Tensor]] = defaultdict(list)
        for name in names:
            together[self.factors.get(name, 1.0)].append(self.masters[name])
        return [{"params": p, "factor": f, "weight_decay": weight_decay} for f, p in together.items()]

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Scales all gradients so that their joint norm is at most `max_norm`; returns the norm before."""
        parameters = [p for p in self.names.values() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # type: ignore[attr-defined]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update at `learning_rate` times each parameter's factor; gradients are released."""
        if self.low_precision:
            for name, parameter in self.names.items():
                self.masters[name].grad = None if parameter.grad is None else parameter.grad.float()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["factor"]
            optimizer.step()
        if self.low_precision:
            for name, parameter in self.names.items():
                parameter.copy_(self.masters[name])
        for parameter in (*self.names.values(), *self.masters.values()):
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every master and every optimizer state by name: what a checkpoint keeps."""
        tensors = {f"weights.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(master, {}).items():
                    tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        return tensors

    def like(self, name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A place for the part that this process has of a tensor of `state`, or of the weights under another name."""
        master = self.masters.get(name.split(".", 2 if name.startswith("optimizer.") else 1)[-1])
        if master is None or master.shape != shape:
            return torch.empty(shape, dtype=dtype)
        return torch.empty_like(master, dtype=dtype)

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `state` gave, bit for bit. CheckpointError: it is the state of another model."""
        for name, master in self.masters.items():
            found = tensors.get(f"weights.{name}")
            if found is None or found.shape != master.shape:
                shape = "missing" if found is None else f"{tuple(found.shape)}, not {tuple(master.shape)}"
                do = "give each model a folder of its own"
                raise CheckpointError(f"the checkpoint is of another model: {name} is {shape}", do=do)
        owner = {id(p): o for o in self.optimizers for g in o.param_groups for p in g["params"]}
        for name, master in self.masters.items():
            master.copy_(tensors[f"weights.{name}"])
            self.names[name].copy_(master)
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, state_name, name = key.split(".", 2)
                master = self.masters[name]
                owner[id(master)].state[master][state_name] = value.to(master.device).clone()
