"""Model folders as Hugging Face writes them: config.json, model.safetensors and the tokenizer's files.

`transformers` opens the folders of bert, roberta and albert as they are. `modern` has the same files with model_type
"pluri", which only Pluri opens.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pluri.checkpoints.checkpoint import sync
from pluri.checkpoints.config_json import CONFIG, FolderConfig, Problem, describe, read_config
from pluri.checkpoints.keymaps import (
    canonical,
    from_published,
    head_names,
    published_names,
    to_published,
    without_prefix,
)
from pluri.errors import CheckpointError
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"


def save_model(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    *,
    labels: Sequence[str] | None = None,
    problem: Problem | None = None,
) -> Path:
    """Writes a model folder, in fp32: aside first, synced, then renamed. Other files in the folder stay.

    labels: names of the classes of the head classify or tag. problem: "regression" if classify gives a number.
    UsageError if no published model has these heads; CheckpointError if the folder cannot be written.
    """
    folder = Path(folder)
    described = describe(model, labels, problem)
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()}
    tensors = to_published(model.config, state)
    if described["architectures"][0].endswith("Model"):
        tensors = without_prefix(model.config, tensors)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        (aside / CONFIG).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file(tensors, aside / WEIGHTS, metadata={"format": "pt", "sha256": _digest(tensors)})
        tokenizer.save(aside)
        for file in aside.iterdir():
            sync(file)
        folder.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
        sync(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be written: {error}", where=str(folder), do="free some space or choose another folder"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def load_model(folder: str | Path, *, heads: Mapping[str, int] | None = None, seed: int = 0) -> tuple[Model, Tokenizer]:
    """Reads a model folder, Pluri's or published, into fp32 on the CPU, whatever floating dtype the file has.

    heads: name to number of classes, as in Model; None takes the folder's own. A head that the folder lacks, or has
        with another number of classes, starts from initial values drawn by `seed` and is named in `model.new_heads`;
        if the folder has the pooling layer it reads, that is taken. Heads that are not asked for are left out.
    CheckpointError if a file is missing or damaged, or if tensors are missing, unexpected or of another shape.
    """
    folder = Path(folder)
    described = read_config(folder)
    config, where = described.config, str(folder / WEIGHTS)
    tensors = canonical(config, read_tensors(folder / WEIGHTS))
    if heads is None:
        base = not described.heads and config.family != "modern"
        pooled = base and published_names(config, "heads.pool.dense.weight")[0] in tensors
        heads = {"pool": config.hidden_size} if pooled else described.heads
    model = Model(config, heads, seed=seed)
    model.new_heads = tuple(head for head in heads if not _stored(model, head, described, tensors))
    _fill(model, tensors, described, where)
    return model, Tokenizer.load(folder)


def _stored(model: Model, head: str, described: FolderConfig, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a folder holds a head. classify and tag share names in some families: config.json tells which it is."""
    size = model.num_classes[head]
    if head in ("classify", "tag"):
        return described.heads.get(head) == size
    return head in described.heads or any(
        theirs in tensors
        for name in model.state_dict()
        if name.startswith(f"heads.{head}.") and ".pooler." not in name
        for theirs in published_names(model.config, name)
    )


def _fill(model: Model, tensors: Mapping[str, Tensor], described: FolderConfig, where: str) -> None:
    """Puts tensors into the body, the heads that are not new, and the pooling layers of new ones if they are there."""
    config, state = model.config, model.state_dict()
    names = {ours: published_names(config, ours) for ours in state}
    new = tuple(f"heads.{head}." for head in model.new_heads)
    wanted = [
        ours
        for ours, theirs in names.items()
        if not ours.startswith(new) or (".pooler." in ours and tensors.keys() >= set(theirs))
    ]
    missing = [theirs for ours in wanted for theirs in names[ours] if theirs not in tensors]
    if missing:
        raise CheckpointError(f"lacks {_listed(missing)}", where=where, do="the file or config.json is not whole")
    known = head_names(config).union(*names.values())
    others = tuple(f"heads.{head}." for head in described.heads)
    unexpected = [name for name in tensors if name not in known and not name.startswith(others)]
    if unexpected:
        what = f"has {_listed(unexpected)}, which config.json does not explain"
        raise CheckpointError(what, where=where, do="give the folder of a model that Pluri knows")
    for ours in wanted:
        expected = state[ours].chunk(len(names[ours]))
        for theirs, part in zip(names[ours], expected, strict=True):
            if tensors[theirs].shape != part.shape:
                found, made = tuple(tensors[theirs].shape), tuple(part.shape)
                what = f"{theirs} has the shape {found}, config.json makes it {made}"
                raise CheckpointError(what, where=where, do="the two files are not of one model")
    model.load_state_dict(from_published(config, wanted, tensors), strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, as fp32. CheckpointError if it is missing, cut, or altered after saving."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            expected = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        do = "pickled weights are not read: save the model again with save_pretrained of transformers"
        pickled = path.with_name("pytorch_model.bin").exists()
        raise CheckpointError("no such file", where=str(path), do=do if pickled else None) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"is damaged: {error}", where=str(path), do="take another copy") from None
    if expected is not None and expected != _digest(tensors):
        raise CheckpointError("is damaged: its sha256 is another", where=str(path), do="take another copy")
    strange = [name for name, tensor in tensors.items() if not (tensor.is_floating_point() or "position_ids" in name)]
    if strange:
        raise CheckpointError(f"{_listed(strange)} is not of a floating dtype", where=str(path))
    return {name: tensor.float() for name, tensor in tensors.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _listed(names: Iterable[str]) -> str:
    first, *others = names
    return ", ".join([first, *others]) if len(others) < 3 else f"{first} and {len(others)} more"
