"""The command line that does the same again, for results to carry."""

import json
import shlex
from typing import Any

from pluri.config import Config

_NAMED = ("task", "model", "train", "validation", "test", "output")  # options of `pluri finetune` itself


def command_line(*words: str, **options: Any) -> str:
    """`pluri` with these words and options; those that are None or False are left out.

    True is an option without a value; a list repeats it; a tuple is several values of one.
    """
    said = ["pluri", *words]
    for name, value in options.items():
        if value is None or value is False:
            continue
        for each in value if isinstance(value, list) else [value]:
            values = each if isinstance(each, tuple) else () if each is True else (each,)
            said += [f"--{name}", *map(str, values)]
    return shlex.join(said)


def finetune_command(config: Config) -> str:
    """`pluri finetune` with what is not as by default."""
    given = config.model_dump(mode="json", exclude_defaults=True)
    named = {name: given[name] for name in _NAMED if isinstance(given.get(name), str)}
    settings = [f"{name}={_toml(value)}" for name, value in given.items() if name not in named]
    return command_line("finetune", **named, set=settings)


def _toml(value: Any) -> str:
    """As a value of TOML, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
