"""LoRA adapters in the format of `peft`, both ways: adapter_config.json and adapter_model.safetensors.

`peft` opens such a folder on the published base model. What no other program opens has no such folder.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pluri.checkpoints.checkpoint import atomic_folder, write_tensors
from pluri.checkpoints.config_json import passed_over
from pluri.checkpoints.hub import local_folder
from pluri.checkpoints.keymaps import canonical, prefix_of, published_names, to_published
from pluri.errors import CheckpointError
from pluri.models.config import ModelConfig
from pluri.models.heads import Model
from pluri.models.lora import Lora

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of every tensor
_TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "answer": "QUESTION_ANS"}
# What is read: plain LoRA. Every other value of these keys would be another formula.
_ONLY = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    **dict.fromkeys(("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"), (None, False, {})),
}


def save_adapter(folder: Path, model: Model, lora: Lora | None, *, base: str | Path) -> None:
    """Writes the adapters and the heads of a fine-tuned published model, whole or not at all.

    lora: None (and BART, whose folder has the adapters merged alone, and heads that `transformers` has no class for)
    removes what an earlier run left there. base: the model that was fine-tuned, as `peft` is to find it.
    CheckpointError if the folder cannot be written.
    """
    config = model.config
    if lora is None or config.family == "bart" or passed_over(model):
        if (folder / ADAPTER_CONFIG).exists():
            shutil.rmtree(folder)
        return
    tensors, targets = dict[str, Tensor](), dict[str, None]()
    for name, adapter in lora.adapters.items():
        names = [theirs.removesuffix(".weight") for theirs in published_names(config, f"{name}.weight")]
        stack = torch.zeros(adapter.stacked * adapter.b[0].shape[0], lora.rank)
        for part, b in zip(adapter.parts, adapter.b, strict=True):
            stack.chunk(adapter.stacked)[part].copy_(b.detach())
        published = list(to_published(config, {f"{name}.weight": stack}).values())  # in the order of the weight's rows
        for part, a in zip(adapter.parts, adapter.a, strict=True):
            tensors |= {f"{names[part]}.lora_A.weight": a.detach(), f"{names[part]}.lora_B.weight": published[part]}
            targets[_within_layer(names[part])] = None
    heads = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("heads.")}
    learned = to_published(config, heads)
    described = {
        "peft_type": "LORA",
        "task_type": next((_TASKS[head] for head in model.num_classes if head in _TASKS), None),
        "base_model_name_or_path": str(base),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "modules_to_save": sorted({_module(name, prefix_of(config)) for name in learned}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    tensors = {f"{_PREFIX}{name}": tensor.cpu().contiguous() for name, tensor in (tensors | learned).items()}
    with atomic_folder(folder) as aside:
        (aside / ADAPTER_CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        write_tensors(aside / ADAPTER_WEIGHTS, tensors, {"format": "pt"})


def _within_layer(module: str) -> str:
    """What a module is called in every layer: attention.self.query of bert.encoder.layer.0.attention.self.query."""
    parts = module.split(".")
    number = max(i for i, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[number + 1 :])


def _module(name: str, prefix: str) -> str:
    """The module of a head's tensor that is kept whole: a pooling layer that stands in the body, or the outermost."""
    return name.rpartition(".")[0] if name.startswith(prefix) else name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """base: the folder of the model that the adapters change. scale: of their products."""

    path: Path
    base: Path
    scale: float

    @classmethod
    def read(cls, path: Path) -> "AdapterFolder | None":
        """None if there are no adapters in a folder. CheckpointError if it has others than plain LoRA."""
        file = path / ADAPTER_CONFIG
        if not file.exists():
            return None
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            for key, known in _ONLY.items():
                if values.get(key, known[0]) not in known:
                    raise CheckpointError(f"{key} = {values[key]!r} is not supported", where=str(file))
            return cls(path, local_folder(values["base_model_name_or_path"]), values["lora_alpha"] / values["r"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise CheckpointError(f"is damaged: {error}", where=str(file), do="take another copy") from None

    def merged(
        self, config: ModelConfig, base: Mapping[str, Tensor], adapters: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The base model's tensors under their published names, with the adapters' products added.

        Modules that the adapters hold whole, such as heads, take the place of the base model's. CheckpointError if the
        two are not of one model.
        """
        factors: dict[str, dict[str, Tensor]] = {}
        whole: dict[str, Tensor] = {}
        for name, tensor in adapters.items():
            module, mark, factor = name.removeprefix(_PREFIX).rpartition(".lora_")
            if mark:
                factors.setdefault(f"{module}.weight", {})[factor] = tensor.float()
            else:
                whole[factor] = tensor
        where = str(self.path / ADAPTER_WEIGHTS)
        try:
            if any(pair.keys() != {"A.weight", "B.weight"} for pair in factors.values()):
                raise RuntimeError("some update is not a product of two matrices")
            products = {name: self.scale * pair["B.weight"] @ pair["A.weight"] for name, pair in factors.items()}
            changed = {name: base[name] + product for name, product in canonical(config, products).items()}
        except (KeyError, RuntimeError) as error:
            what = f"does not fit the model {self.base}: {error}"
            raise CheckpointError(what, where=where, do="give the model that it was made for") from None
        return {**base, **changed, **canonical(config, whole)}
