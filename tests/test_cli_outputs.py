"""What verbs write, and what they leave alone."""

from pathlib import Path
from typing import Any

import pytest

from pluri.__main__ import main


@pytest.mark.parametrize(
    "command",
    [
        "tokenizer corpus.txt -o old",
        "finetune --task tag --model m --train a --validation b -o old",
        "predict --model m --input in.csv -o old.jsonl",
        "predict --model m --input in.json -o old",
        "embed corpus.txt --model m -o old.jsonl",
        "prompt task.toml --model m -o old",
        "compare word --sentences a.txt --model m -o old.jsonl",
        "layers a.txt --model m -o old.jsonl",
        "import m -o old",
        "export --model m -o old",
    ],
)
def test_what_is_there_is_never_replaced(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It is said before any work: the model and the files need not even exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for file in ("old/results.json", "old.jsonl"):
        (tmp_path / file).write_text("hours of work")
    assert main(command.split()) == 2
    name = command.split()[-1]
    assert capsys.readouterr().err == f"error: {name}: is there already; name another with -o, or move that one away\n"
    assert (tmp_path / "old.jsonl").read_text() == (tmp_path / "old/results.json").read_text() == "hours of work"


def test_an_empty_folder_is_nothing_to_lose(tmp_path: Path):
    (tmp_path / "new").mkdir()
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 9)
    arguments: list[Any] = ["tokenizer", tmp_path / "corpus.txt", "--vocab-size", "60", "-o", tmp_path / "new"]
    assert main(list(map(str, arguments))) == 0
    assert (tmp_path / "new" / "tokenizer.json").is_file()


def test_unknown_tokens_are_said_and_not_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """DNA on the way that is for words: each record is one word, longer than the tokenizer reads."""
    monkeypatch.chdir(tmp_path)
    Path("genome.fasta").write_text("".join(f">{i}\n{'ACGTTGCA' * (i + 20)}\n" for i in range(20)))
    settings = "store = 'store'\noutput = 'run'\nmodel = {size = 'tiny', max_length = 32}\ntraining.steps = 2\n"
    Path("pretrain.toml").write_text(settings)
    assert main(["tokenizer", "genome.fasta", "--vocab-size", "60", "-o", "tokenizer"]) == 0
    capsys.readouterr()
    assert main(["prepare", "genome.fasta", "--tokenizer", "tokenizer", "-o", "store", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "20 tokens, 100.00% of them unknown: store\n"
    assert "warning: 20 of 20 (100.00%) tokens are unknown to the tokenizer; " in err
    assert "--kind dna" in err
    assert main(["pretrain", "pretrain.toml"]) == 2
    assert "store: 100% of the tokens are unknown to the tokenizer" in capsys.readouterr().err
