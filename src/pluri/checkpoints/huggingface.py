"""Model folders as Hugging Face writes them: config.json, model.safetensors and the tokenizer's files.

`transformers` opens the folders of every family but `modern` as they are. `modern` has the same files with model_type
"pluri", which only Pluri opens; the preset of that name is EuroBERT or Llama.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pluri.checkpoints.adapters import ADAPTER_WEIGHTS, AdapterFolder
from pluri.checkpoints.checkpoint import sync, write_tensors
from pluri.checkpoints.config_json import CONFIG, FolderConfig, Problem, describe, read_config
from pluri.checkpoints.hub import conversion, local_folder
from pluri.checkpoints.keymaps import (
    canonical,
    from_published,
    published_names,
    to_published,
    unused_names,
    without_prefix,
)
from pluri.errors import CheckpointError
from pluri.models.heads import LACKS, Model
from pluri.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"  # of weights that are spread over several files
# The first of these that a head has tells whether a folder holds it.
_MARKS = ("bias", "weight", "dense.weight", "out.weight", "gain")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder gives.

    described: its config.json. dtype: of its weights; fp32 if they have several. left_out: tensors that nobody asked
    for, such as other heads, by their published names.
    """

    model: Model
    tokenizer: Tokenizer
    described: FolderConfig
    dtype: torch.dtype
    left_out: list[str]


def save_model(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    *,
    labels: Sequence[str] | None = None,
    problem: Problem | None = None,
    task: Literal["pair"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes a model folder: aside first, synced, then renamed. Other files in the folder stay.

    labels: names of the classes of the head classify or tag. problem: "regression" if classify gives a number.
    task: "pair" if classify reads two sequences. dtype: of the weights in the file.
    UsageError if no published model has these heads; CheckpointError if the folder cannot be written.
    """
    folder = Path(folder)
    described = describe(model, labels, problem, dtype, task)
    if model.config.family in ("modernbert", "eurobert", "llama", "gpt2", "bart"):  # defaults beyond small vocabularies
        described |= {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id}
    if model.config.family == "modernbert":
        described |= {"cls_token_id": tokenizer.cls_id, "sep_token_id": tokenizer.sep_id}
    if model.config.family == "eurobert" and tokenizer.mask_id is not None:
        described["mask_token_id"] = tokenizer.mask_id
    if model.config.family == "bart":
        described |= {"decoder_start_token_id": tokenizer.sep_id, "forced_eos_token_id": tokenizer.sep_id}
    if model.config.causal:  # whose tokenizer may have no padding
        described["pad_token_id"] = tokenizer.pad_id
    state = {name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}
    tensors = to_published(model.config, state)
    if not model.num_classes.keys() - {"pool"}:  # a base model
        tensors = without_prefix(model.config, tensors)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        (aside / CONFIG).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_tensors(aside / WEIGHTS, tensors, {"format": "pt", "sha256": digest(tensors)})
        types = ["token_type_ids"] if model.config.token_types > 1 else []  # others cannot read a second segment
        tokenizer.save(aside, model_input_names=["input_ids", *types, "attention_mask"])
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

    folder: or a name on the Hugging Face hub, org/name; or a folder of `peft` with LoRA adapters, which are merged into
        the model that it names.
    heads: name to number of classes, as in Model; None takes the folder's own. A head that the folder lacks, or has
        with another number of classes, starts from initial values drawn by `seed` and is named in `model.new_heads`;
        if the folder has the pooling layer it reads, that is taken. Heads that are not asked for are left out.
    CheckpointError if a file is missing or damaged, if tensors are missing, unexpected or of another shape, or if the
        tokenizer has more tokens than the model.
    """
    loaded = read_model(folder, heads=heads, seed=seed)
    return loaded.model, loaded.tokenizer


def read_model(folder: str | Path, *, heads: Mapping[str, int] | None = None, seed: int = 0) -> Loaded:
    """As `load_model`, with what else the folder tells."""
    source = local_folder(folder)
    adapter = AdapterFolder.read(source)
    folder = source if adapter is None else adapter.base
    described = read_config(folder)
    config, where = described.config, str(folder / WEIGHTS)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        what = f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}"
        raise CheckpointError(what, where=str(folder), do="put the model's own tokenizer there")
    tensors = canonical(config, read_tensors(folder / WEIGHTS))
    if adapter is not None:
        tensors = adapter.merged(config, tensors, read_tensors(source / ADAPTER_WEIGHTS))
    if heads is None:
        base = not described.heads and "pool" not in LACKS.get(config.family, ())
        pooled = base and published_names(config, "heads.pool.dense.weight")[0] in tensors
        heads = {"pool": config.hidden_size} if pooled else described.heads
    model = Model(config, heads, seed=seed)
    model.new_heads = tuple(head for head in heads if not _stored(model, head, described, tensors))
    left_out = _fill(model, tensors, described, where)
    dtypes = {tensor.dtype for name, tensor in tensors.items() if name not in left_out}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return Loaded(model, tokenizer, described, dtype, left_out)


def _stored(model: Model, head: str, described: FolderConfig, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a folder holds a head. classify and tag share names in some families: config.json tells which it is."""
    if next(model.heads[head].parameters(), None) is None:
        return True  # the token embedding is all of it
    if head in ("classify", "tag"):
        return described.heads.get(head) == model.num_classes[head]
    own = dict(model.heads[head].named_parameters())
    (mark,) = published_names(model.config, f"heads.{head}.{next(name for name in _MARKS if name in own)}")
    return head in described.heads or mark in tensors


def _fill(model: Model, tensors: Mapping[str, Tensor], described: FolderConfig, where: str) -> list[str]:
    """Puts tensors into the body, the heads that are not new, and the pooling layers of new ones if they are there.

    Returns the names of the tensors that it left out.
    """
    config, state = model.config, model.state_dict()
    names = {ours: published_names(config, ours) for ours in state}
    new = tuple(f"heads.{head}." for head in model.new_heads)
    buffers = {name for name, _ in model.named_buffers()}  # a folder may lack them: they have their values already
    wanted = [
        ours
        for ours, theirs in names.items()
        if not (ours in buffers or ours.startswith(new))
        or ((ours in buffers or ".pooler." in ours) and tensors.keys() >= set(theirs))
    ]
    missing = [theirs for ours in wanted for theirs in names[ours] if theirs not in tensors]
    if missing:
        raise CheckpointError(f"lacks {_listed(missing)}", where=where, do="the file or config.json is not whole")
    known = unused_names(config).union(*names.values())
    others = tuple(f"heads.{head}." for head in described.heads)
    unexpected = [name for name in tensors if name not in known and not name.startswith(others)]
    if unexpected:
        what = f"has {_listed(unexpected)}, which config.json does not explain"
        raise CheckpointError(what, where=where, do="give the folder of a model that Pluri knows")
    taken = {theirs for ours in wanted for theirs in names[ours]}
    strange = [name for name in sorted(taken) if not tensors[name].is_floating_point()]
    if strange:
        raise CheckpointError(f"{_listed(strange)} is not of a floating dtype", where=where)
    for ours in wanted:
        for theirs, part in to_published(config, {ours: state[ours]}).items():
            if tensors[theirs].shape != part.shape:
                found, made = tuple(tensors[theirs].shape), tuple(part.shape)
                what = f"{theirs} has the shape {found}, config.json makes it {made}"
                raise CheckpointError(what, where=where, do="the two files are not of one model")
    whole = {name: tensor.float() for name, tensor in tensors.items() if name in taken}
    model.load_state_dict(from_published(config, wanted, whole), strict=False)
    return sorted(tensors.keys() - taken)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a model's safetensors, in their own dtype: of one file, or of those that its index lists.

    CheckpointError if a file is missing, cut, or altered after saving.
    """
    index = path.with_name(_INDEX)
    if path.exists() or not index.exists():
        return _read_file(path)
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"is damaged: {error}", where=str(index), do="take another copy") from None
    return {name: tensor for file in files for name, tensor in _read_file(path.with_name(Path(file).name)).items()}


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            expected = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        pickled = path.with_name("pytorch_model.bin").exists()
        do = conversion(path.parent, str(path.parent), str(path.parent)) if pickled else None
        raise CheckpointError("no such file", where=str(path), do=do) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"is damaged: {error}", where=str(path), do="take another copy") from None
    if expected is not None and expected != digest(tensors):
        raise CheckpointError("is damaged: its sha256 is another", where=str(path), do="take another copy")
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
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
