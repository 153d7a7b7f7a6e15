"""A configuration as the command line that does the same again."""

import json
import shlex
from typing import Any

from pluri.config import Config


def finetune_command(config: Config) -> str:
    """`pluri finetune` with what is not as by default."""
    words = ["pluri", "finetune"]
    for name, value in config.model_dump(mode="json", exclude_defaults=True).items():
        if isinstance(value, dict):
            table = ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
            words += ["--set", f"{name}={{{table}}}"]
        elif name in ("task", "model", "train", "validation", "test", "output"):
            words += [f"--{name}", str(value)]
        else:
            words += ["--set", f"{name}={_toml(value)}"]
    return shlex.join(words)


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
