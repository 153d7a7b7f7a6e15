import json
import shlex

from pluri.run.command import command_line, finetune_command
from pluri.run.finetune import FinetuneConfig


def read_back(command: str) -> FinetuneConfig:
    """As the command line reads it."""
    words = shlex.split(command)
    assert words[:2] == ["pluri", "finetune"]
    settings = [
        value if flag == "--set" else f"{flag.removeprefix('--')}={json.dumps(value)}"
        for flag, value in zip(words[2::2], words[3::2], strict=True)
    ]
    return FinetuneConfig.load(None, settings)


def test_a_command_says_the_whole_configuration():
    given = {"task": "classify", "model": "a model", "train": "l'été.csv", "validation": "dev.csv", "output": "o"}
    given |= {"epochs": 2.5, "class_weights": {"a": 2.0, "b c": 0.5}, "labelled": [50, 200], "truncate": True}
    config = FinetuneConfig.parse(given)
    assert read_back(finetune_command(config)) == config


def test_a_command_names_several_files():
    files = {"en": "en.csv", "zh": "数据.csv"}
    given = {"task": "pair", "model": "m", "train": files, "validation": "dev.csv", "test": files, "output": "o"}
    config = FinetuneConfig.parse(given)
    assert read_back(finetune_command(config)) == config


def test_options_are_said_as_the_command_line_reads_them():
    said = command_line(
        "layers", "a b.txt", model="m", tags=None, segmented=True, seed=0, corpus=("a", "b"), set=["x", "y"]
    )
    assert said == "pluri layers 'a b.txt' --model m --segmented --seed 0 --corpus a b --set x --set y"
    assert command_line("layers", segmented=False) == "pluri layers"
