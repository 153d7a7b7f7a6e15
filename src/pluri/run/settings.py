"""What can be set: every setting of a verb with its default and meaning, as its configuration says.

python -m pluri.run.settings > docs/settings.md
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeGuard, get_args, get_origin

from pydantic.fields import FieldInfo

from pluri.config import Config
from pluri.models.config import ModelConfig
from pluri.run.finetune import FinetuneConfig
from pluri.run.pretrain import NOT_TO_BE_SET, PretrainConfig

_ENTRY = re.compile(r"(\w+(?:, \w+)*): ")
_OF_PRESET = "the preset's"


class Setting(NamedTuple):
    """name: as --set takes it, training.steps. default: as TOML spells it; "" where there is none."""

    name: str
    default: str
    meaning: str


def settings(verb: str) -> list[Setting]:
    """Those of "finetune" or "pretrain"."""
    return list(_settings(FinetuneConfig if verb == "finetune" else PretrainConfig))


def settings_text(verb: str) -> str:
    """For a terminal: a setting and its default a line, and what it means below it."""
    lines = [f"Settings of {verb}, in its TOML file or with --set NAME=VALUE:"]
    for name, default, meaning in settings(verb):
        lines.append(f"  {name} = {default}" if default else f"  {name}")
        lines += textwrap.wrap(meaning, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _settings(config: type[Config], prefix: str = "") -> Iterator[Setting]:
    meanings = _meanings(config)
    own_first = dict.fromkeys(name for base in config.__mro__ for name in inspect.get_annotations(base))
    for name in (name for name in own_first if name in config.model_fields):
        info = config.model_fields[name]
        inner = next((kind for kind in (info.annotation, *get_args(info.annotation)) if _is_config(kind)), None)
        if config is PretrainConfig and name == "model":
            yield Setting(name, "", meanings[name])
            inner = ModelConfig
        if inner is not None:
            yield from _settings(inner, f"{prefix}{name}.")
        elif config is not ModelConfig or name not in NOT_TO_BE_SET:
            meaning = meanings.get(name, "")
            choices = _choices(info.annotation)
            if not all(choice in meaning for choice in choices):
                meaning += ". " * bool(meaning) + f"One of {', '.join(choices)}"
            yield Setting(prefix + name, _OF_PRESET if config is ModelConfig else _default(info), meaning)


def _is_config(kind: Any) -> TypeGuard[type[Config]]:
    return isinstance(kind, type) and issubclass(kind, Config)


def _meanings(config: type[Config]) -> dict[str, str]:
    """What each field says of itself, or the docstrings of its configuration and of the bases: `name, name: text`."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        text = " ".join((base.__dict__.get("__doc__") or "").split())
        entries = [entry for entry in _ENTRY.finditer(text) if set(entry[1].split(", ")) <= config.model_fields.keys()]
        ends = [*(entry.start() for entry in entries[1:]), None]
        for entry, end in zip(entries, ends, strict=False):
            meaning = text[entry.end() : end].strip().rstrip(".")
            found |= dict.fromkeys(entry[1].split(", "), meaning)
    return found | {name: info.description for name, info in config.model_fields.items() if info.description}


def _choices(kind: Any) -> list[str]:
    return [str(choice) for each in (kind, *get_args(kind)) if get_origin(each) is Literal for choice in get_args(each)]


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if info.is_required() or value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def settings_document() -> str:
    """docs/settings.md."""
    lines = ["# Settings", "", "Written by `python -m pluri.run.settings`; `pluri finetune --help` and"]
    lines += ["`pluri pretrain --help` say the same. A setting without a default is left out, or has to be given."]
    for verb in ("finetune", "pretrain"):
        lines += ["", f"## pluri {verb}", "", "| setting | default | meaning |", "|---|---|---|"]
        for name, default, meaning in settings(verb):
            lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_document(), end="")
