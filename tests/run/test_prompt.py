"""Prompting from files to results."""

import json
from pathlib import Path

import pytest

import pluri
from pluri.__main__ import main
from pluri.checkpoints.huggingface import save_model
from pluri.errors import DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer

WORDS = {"good": "warm clean kind", "bad": "cold dirty rude"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompt")
    lines = [
        f"{word} {other} it was {label}"
        for label, words in WORDS.items()
        for word in words.split()
        for other in words.split()
    ]
    (root / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer([str(root / "corpus.txt")], vocab_size=200)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=24, hidden_size=32, num_heads=2)
    for seed in (0, 1):
        model = Model(config.model_copy(update={"initializer_range": 0.5}), {"masked": tokenizer.vocab_size}, seed=seed)
        save_model(root / f"bert-{seed}", model, tokenizer)
    for name, first in (("test", 0), ("train", 1)):
        rows = [
            {"text": " ".join(words.split()[i] for i in (first, j)), "label": label}
            for label, words in WORDS.items()
            for j in range(3)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _there(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)


def write_task(**changes) -> Path:
    settings = {"test": "test.jsonl", "train": "train.jsonl", "template": "{text} it was {answer}", "separator": " "}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**settings, **changes}.items() if name != "choices"]
    choices = changes.get("choices", {"good": "good", "bad": "bad"})
    Path("polarity.toml").write_text(
        "\n".join([*lines, "[choices]", *(f"{k} = {json.dumps(v)}" for k, v in choices.items())])
    )
    return Path("polarity.toml")


def test_models_stand_in_one_table_with_the_proof_that_nothing_was_learnt():
    results = pluri.prompt(write_task(), ["bert-0", "bert-1"], shots=[2, 0], seeds=3, output="out")
    assert json.loads(Path("out/results.json").read_text(encoding="utf-8"))["rows"] == results.rows
    assert set(results.rows[0]) == {"task", "method", "shots", "seed", "metric", "value", "low", "high", "dropped"}
    found = [(row["method"], row["shots"], row["seed"]) for row in results.rows if row["metric"] == "acc"]
    assert found == [(m, k, s) for m in ("bert-0", "bert-1") for k, seeds in ((0, 1), (2, 3)) for s in range(seeds)]
    assert {row["metric"] for row in results.rows} == {"acc", "acc_norm", "acc_calibrated"}
    assert all(row["low"] <= row["high"] for row in results.rows)
    for model in results.models:
        assert model["sha256_before"] == model["sha256_after"]
        assert model["gradients"] is False
    assert len({model["sha256_before"] for model in results.models}) == 2
    assert "50.0% are 'good'" in results.notes[0]
    assert len(str(results).splitlines()) == 1 + 4 + len(results.notes)


def test_the_result_depends_on_nothing_but_the_task_and_the_seed():
    again = [pluri.prompt(write_task(), "bert-0", shots=[2], seeds=2).rows for _ in range(2)]
    assert again[0] == again[1]


def test_examples_that_do_not_fit_are_dropped_and_counted():
    few = pluri.prompt(write_task(), "bert-0", shots=[4], seeds=1)
    many = pluri.prompt(write_task(), "bert-0", shots=[5], seeds=1)
    dropped = [results.rows[0]["dropped"] for results in (few, many)]
    # [CLS] and [SEP] leave 22 tokens: an example has 5, and so has the prompt with its answer
    assert dropped == [6, 12]
    assert any("lost examples" in note for note in many.notes)
    write_task(template="{text} it was {answer} " + "it was " * 10)
    with pytest.raises(DataError, match=r"test.jsonl:1: a prompt of 27 tokens without examples, the model reads 24"):
        pluri.prompt("polarity.toml", "bert-0", shots=[1], seeds=1)


def test_what_is_wrong_is_said_before_the_model_is_read():
    with pytest.raises(UsageError, match="16 shots of 6 examples"):
        pluri.prompt(write_task(), "no-such-model", shots=[0, 16])
    with pytest.raises(UsageError, match="give counts from 0"):
        pluri.prompt(write_task(), "no-such-model", shots=[-1])
    assert main(["prompt", "polarity.toml", "--model", "bert-0", "--shots", "one"]) == 2


def test_the_command_line_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]):
    write_task()
    arguments = ["prompt", "polarity.toml", "--model", "bert-0", "--model", "bert-1", "--shots", "0,1", "--seeds", "2"]
    assert main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["shots", "acc", "acc_norm", "acc_calibrated", "model"]
    assert [(line.split()[0], line.split()[-1]) for line in out[1:5]] == [
        ("0", "bert-0"), ("0", "bert-1"), ("1", "bert-0"), ("1", "bert-1"),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["models"][0]["gradients"] is False
