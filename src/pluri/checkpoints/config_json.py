"""config.json of a model folder: what the published keys mean here, both ways."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pluri.checkpoints.config_keys import DEFAULTS, KEYS, LENGTH, ONLY, special_fields, special_keys
from pluri.checkpoints.hub import local_folder
from pluri.errors import CheckpointError, UsageError
from pluri.models.config import FIXED, ROBERTA_LIKE, ModelConfig
from pluri.models.heads import LACKS, Model

Problem = Literal["single_label_classification", "regression"]

CONFIG = "config.json"
_OWN = "pluri"  # the model_type of the family `modern`, whose keys are the fields of ModelConfig
_HEADS = "pluri_heads"  # all of a model some of whose heads no class of transformers has
_TASK = "pluri_task"  # what the heads do not tell, and transformers leaves alone
# older folders lack these
_ADDED = ("embedding_norm", "token_dropout", "window", "global_every", "local_rotary_base")
_ADDED += ("causal", "tied", "decoder_layers")

_PREFIX = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "albert": "Albert",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "esm": "Esm",
    "modernbert": "ModernBert",
    "eurobert": "EuroBert",
    "gpt2": "GPT2",
    "llama": "Llama",
    "bart": "Bart",
}
_ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "ForPreTraining": ("masked", "pair"),
    "ForMaskedLM": ("masked",),
    "LMHeadModel": ("next",),
    "ForCausalLM": ("next",),
    "ForConditionalGeneration": ("next",),
    "ForNextSentencePrediction": ("pair",),
    "ForSequenceClassification": ("classify",),
    "ForTokenClassification": ("tag",),
    "ForQuestionAnswering": ("answer",),
    "Model": (),
}
# Classes that transformers lacks, and those that open such a folder, without what heads they do not have.
_INSTEAD = {
    ("llama", "LMHeadModel"): "ForCausalLM",
    ("eurobert", "ForPreTraining"): "ForMaskedLM",
    ("eurobert", "ForNextSentencePrediction"): "Model",
    ("eurobert", "ForQuestionAnswering"): "Model",
}


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """What config.json says.

    heads: name to number of classes. labels: the classes' names in order, None without such a head.
    problem: classes, or a number (regression); None without such a head.
    task: "pair" if the model was fine-tuned on pairs; None if its heads say all.
    """

    config: ModelConfig
    heads: dict[str, int]
    labels: list[str] | None
    problem: Problem | None
    task: Literal["pair"] | None = None


def architecture(model: Model) -> str:
    """The published class that has a model's heads. UsageError if there is none."""
    family, heads = model.config.family, set(model.num_classes) - {"pool"}
    if family == "modern":
        return "PluriModel"
    if family == "albert" and heads == {"pair"}:
        return "AlbertForPreTraining"
    if family == "bart" and heads == {"next"}:
        return "BartForConditionalGeneration"
    for suffix, members in _ARCHITECTURES.items():
        if heads == set(members) and ("pool" not in model.num_classes or suffix == "Model"):
            return _PREFIX[family] + _INSTEAD.get((family, suffix), suffix)
    raise UsageError(
        f"no published {family} has the heads {', '.join(model.num_classes)}",
        where="model",
        do="keep masked, masked and pair, next, pair, classify, tag, or answer",
    )


def passed_over(model: Model) -> list[str]:
    """The heads of a model that its published class does not open: of `modern` all."""
    suffix = architecture(model).removeprefix(_PREFIX.get(model.config.family, ""))
    return [head for head in model.num_classes if head not in (*_ARCHITECTURES.get(suffix, ()), "pool")]


def describe(
    model: Model,
    labels: Sequence[str] | None,
    problem: Problem | None,
    dtype: torch.dtype = torch.float32,
    task: Literal["pair"] | None = None,
) -> dict[str, Any]:
    """config.json of a model. UsageError if the labels are not as many as the classes."""
    config = model.config
    values: dict[str, Any] = {"architectures": [architecture(model)]}
    if config.family == "modern":
        values |= {"model_type": _OWN} | config.model_dump() | {"heads": dict(model.num_classes)}
    else:
        values["model_type"] = config.family
        values |= {theirs: getattr(config, ours) for ours, theirs in KEYS[config.family].items()}
        uncounted = config.family == "bart"  # whose table of positions is longer than config.json says
        values[LENGTH[config.family]] = config.max_length + (0 if uncounted else config.position_offset)
        values |= {"tie_word_embeddings": config.tied} | special_keys(config)
        if passed_over(model):
            values[_HEADS] = dict(model.num_classes)
    values["dtype"] = str(dtype).removeprefix("torch.")
    classes = [n for head, n in model.num_classes.items() if head in ("classify", "tag")]
    if classes:
        names = list(labels) if labels is not None else [f"LABEL_{i}" for i in range(classes[0])]
        if len(names) != classes[0]:
            raise UsageError(f"{len(names)} labels for {classes[0]} classes", where="model")
        values["id2label"] = {str(i): name for i, name in enumerate(names)}
        values["label2id"] = {name: i for i, name in enumerate(names)}
    if "classify" in model.num_classes:
        values["problem_type"] = problem or "single_label_classification"
    if task is not None:
        values[_TASK] = task
    return values


def read_config(folder: str | Path) -> FolderConfig:
    """Reads config.json of a model folder. CheckpointError if it is missing, damaged, or of an unknown model."""
    path = local_folder(folder) / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = path.parent / "model"
        do = f"the run's model is {inside}" if (inside / CONFIG).is_file() else "give the folder of a model"
        raise CheckpointError("no such file", where=str(path), do=do) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(values, dict):
        raise CheckpointError("is not a JSON object", where=str(path))
    try:
        return _own(values) if values.get("model_type") == _OWN else _published(values)
    except UsageError as error:
        raise CheckpointError(error.what, where=str(path), do=error.do) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"is not whole: {type(error).__name__} at {error}", where=str(path)) from None


def _own(values: dict[str, Any]) -> FolderConfig:
    fields = {name: values[name] for name in ModelConfig.model_fields if name in values or name not in _ADDED}
    heads = {str(name): int(size) for name, size in values["heads"].items()}
    return FolderConfig(ModelConfig.parse(fields), heads, *_labels(values, heads), _task(values, heads))


def _published(values: dict[str, Any]) -> FolderConfig:
    family = values.get("model_type")
    if family not in KEYS:
        raise UsageError(f"model_type {family!r} is unknown", do=f"use one of {', '.join(KEYS)}, or {_OWN}")
    for key, only in ONLY[family].items():
        if values.get(key, only) != only:
            raise UsageError(f"{key} = {values[key]!r} is not supported, only {only!r}")
    values = DEFAULTS[family] | values
    special = special_fields(family, values)
    plain = {ours: values[theirs] for ours, theirs in KEYS[family].items() if ours not in special}
    fields = FIXED[family] | plain | special | {"family": family}
    offset = fields["pad_id"] + 1 if family in ROBERTA_LIKE else 0
    config = ModelConfig.parse(fields | {"max_length": values[LENGTH[family]] - offset})
    name = str((values.get("architectures") or [""])[0])
    members = _ARCHITECTURES.get(name.removeprefix(_PREFIX[family]), ())
    if "pair" in members and "pair" in LACKS.get(family, ()):
        members = ()  # ELECTRA's pretraining class tells replaced tokens: a head that nobody fine-tunes
    sizes = {"masked": config.vocab_size, "next": config.vocab_size, "pair": 2, "answer": 2}
    heads = {head: sizes.get(head, len(values.get("id2label") or "01")) for head in members}
    if name.removeprefix(_PREFIX[family]) in _INSTEAD.values():
        heads |= {str(head): int(size) for head, size in values.get(_HEADS, {}).items()}
    return FolderConfig(config, heads, *_labels(values, heads), _task(values, heads))


def _labels(values: dict[str, Any], heads: dict[str, int]) -> tuple[list[str] | None, Problem | None]:
    classes = [n for head, n in heads.items() if head in ("classify", "tag")]
    if not classes:
        return None, None
    names = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(classes[0])}
    labels = [str(names[str(i)]) for i in range(classes[0])]
    if "classify" not in heads:
        return labels, None
    problem = values.get("problem_type") or ("regression" if heads["classify"] == 1 else "single_label_classification")
    if problem not in ("single_label_classification", "regression"):
        raise UsageError(f"problem_type {problem!r} is not supported")
    return labels, problem


def _task(values: dict[str, Any], heads: dict[str, int]) -> Literal["pair"] | None:
    task = values.get(_TASK) if "classify" in heads else None  # transformers keeps it when it changes the head
    if task not in (None, "pair"):
        raise UsageError(f"{_TASK} {task!r} is not supported")
    return task
