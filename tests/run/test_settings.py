"""The settings that --help lists, and docs/settings.md."""

from pathlib import Path

from pluri.__main__ import main
from pluri.run.settings import settings, settings_document


def test_the_document_is_what_the_configurations_say():
    written = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings_document(), "python -m pluri.run.settings > docs/settings.md"


def test_every_setting_says_what_it_means():
    told = {verb: {name: default for name, default, _ in settings(verb)} for verb in ("finetune", "pretrain")}
    known = {"epochs": "3", "min_steps": "120", "text_column": '"text"', "lora_rank": "", "beams": "4"}
    assert known.items() <= told["finetune"].items()
    assert {"training.warmup": "0.05", "objective.denoise.span": "3.0"}.items() <= told["pretrain"].items()
    assert "model.num_layers" in told["pretrain"]
    for verb in told:
        assert [name for name, _, meaning in settings(verb) if not meaning and not name.startswith("model.")] == []


def test_help_lists_them(capsys):
    assert main(["finetune", "--help"]) == 0
    assert "  min_steps = 120\n" in capsys.readouterr().out
