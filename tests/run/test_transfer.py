"""Several training and test files by language, and the table of models and languages that is made of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluri.__main__ import main
from pluri.checkpoints.huggingface import save_model
from pluri.errors import UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.report.comparison import comparisons
from pluri.run import transfer as module
from pluri.run.finetune import FinetuneConfig, Results, finetune
from pluri.run.predict import evaluate
from pluri.run.transfer import TransferConfig, transfer
from pluri.tokens.training import train_tokenizer

QUICK = {"min_steps": 6, "epochs": 1, "batch_tokens": 256, "validations": 1, "seeds": 1, "learning_rate": 3e-3}
WORDS = {"en": ("cat", "dog", "mat", "hat", "sat", "ran"), "zh": ("猫", "狗", "人", "大", "小", "天")}
COLOURS = {"en": ("red", "blue"), "zh": ("红", "蓝")}


def asked(language: str, count: int, seed: int) -> str:
    """The answer is the colour; ids are the same in both languages."""
    chance = np.random.default_rng(seed)
    blank, paragraphs = " " if language == "en" else "", []
    for i in range(count):
        words = list(chance.choice(WORDS[language], int(chance.integers(4, 12))))
        place, colour = int(chance.integers(len(words))), str(chance.choice(COLOURS[language]))
        words[place] = colour
        start = len(blank.join([*words[:place], ""]))
        answers = [{"text": colour, "answer_start": start}]
        asked = {"id": str(i), "question": "colour 红", "answers": answers}
        paragraphs.append({"context": blank.join(words), "qas": [asked]})
    return json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    text = [" ".join([*WORDS["en"], *COLOURS["en"], "colour"]), "".join([*WORDS["zh"], *COLOURS["zh"]])]
    (root / "corpus.txt").write_text("\n".join(text * 3), encoding="utf-8")
    tokenizer = train_tokenizer([root / "corpus.txt"], vocab_size=120)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=32, hidden_size=32, num_heads=2)
    for name in ("multi", "mono"):
        save_model(root / name, Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    for seed, (part, count) in enumerate({"train": 40, "validation": 10, "test": 25}.items()):
        for language in WORDS:
            file = root / f"{part}.{language}.json"
            file.write_text(asked(language, count + (language == "zh"), seed), encoding="utf-8")
    return root


def files(folder: Path, part: str, *languages: str) -> dict[str, str]:
    return {language: str(folder / f"{part}.{language}.json") for language in languages or WORDS}


def test_several_test_files_are_each_judged_as_alone(folder: Path, tmp_path: Path):
    values: dict[str, Any] = {"task": "answer", "model": folder / "multi", "output": tmp_path / "out", **QUICK}
    values |= {part: files(folder, part) for part in ("train", "validation", "test")}
    found = finetune(FinetuneConfig.parse(values), progress=False)
    rows = {(row["method"], row["test"], row["metric"]): row for row in found.rows}
    for language in WORDS:
        alone = evaluate(tmp_path / "out", files(folder, "test")[language])
        for metric in ("exact_match", "f1"):
            row = rows["pretrained", language, metric]
            assert row["value"] == pytest.approx(alone[metric])
            assert row["low"] == pytest.approx(alone[f"{metric}_low"])
        assert alone["scoring"] == {"en": "words", "zh": "characters"}[language]
    assert "exact match and F1 compare words, as SQuAD's scripts do (en)" in found.notes
    assert any("25 questions" in note for note in found.notes)
    assert any("26 questions" in note for note in found.notes)
    tasks = {each.task for each in comparisons(found.rows)}
    assert tasks == {"answer on en", "answer on zh"}  # the report never averages over languages
    assert not (tmp_path / "out" / "predictions.json").exists()


def configured(folder: Path, output: Path, **values: Any) -> TransferConfig:
    given: dict[str, Any] = {"task": "answer", "models": {"mBERT-like": folder / "multi", "zh-BERT": folder / "mono"}}
    given |= {part: files(folder, part) for part in ("train", "validation", "test")}
    given |= {"only": {"zh-BERT": "zh"}, "output": output, "settings": {**QUICK, "baselines": False, "qanet": 1}}
    return TransferConfig.parse({**given, **values})


def test_one_table_of_models_and_languages(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []

    def stand_in(config: FinetuneConfig, *, progress: bool) -> Results:
        """What `finetune` gives back and leaves on disk, without the training."""
        del progress
        assert isinstance(config.test, dict)
        assert isinstance(config.train, dict)
        calls.append(config.output.name)
        methods = ["pretrained", "random start"] + ["QANet"] * bool(config.qanet)
        rows = [
            {"task": "answer", "method": method, "test": test, "metric": metric, "seed": 0, "labelled": 40,
             "value": 0.5 + 0.1 * i, "low": 0.4, "high": 0.6}
            for i, method in enumerate(methods) for test in config.test for metric in ("f1", "exact_match")
        ]  # fmt: skip
        (config.output / "results.json").write_text(json.dumps({"rows": rows, "notes": ["a note"]}), encoding="utf-8")
        return Results(rows, [], {}, "test", {}, ["a note"])

    monkeypatch.setattr(module, "finetune", stand_in)
    config = configured(folder, tmp_path / "out")
    found = transfer(config, progress=False)
    assert calls == ["mBERT-like-en", "mBERT-like-zh", "mBERT-like-en+zh", "zh-BERT-zh"]
    assert sum(row["method"].startswith("QANet") for row in found.rows) == 3 * 4  # once for each training language
    lines = str(found).splitlines()
    assert lines[0] == "exact_match / f1, per cent"
    assert lines[1].split() == ["model", "trained", "on", "en", "zh"]
    assert any(line.startswith("mBERT-like ") and "en + zh" in line and "50.0 / 50.0 (40.0" in line for line in lines)
    assert any(line.startswith("random start (zh-BERT)") for line in lines)
    assert lines[-1] == "a note"
    assert len(comparisons(found.rows)[0].methods) == 4 * 2 + 3  # none of them overwrites another in a report
    assert transfer(config, progress=False) == found  # nothing is run again
    assert len(calls) == 4
    with pytest.raises(UsageError, match="mBERT-like-en: holds a fine-tuning with other settings"):
        transfer(configured(folder, tmp_path / "out", settings={**QUICK, "epochs": 2}), progress=False)


def test_the_verb_runs_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = configured(folder, tmp_path / "out", models={"multi": folder / "multi"}, only={}, together=False)
    config = config.model_copy(update={"settings": {**QUICK, "baselines": False}})
    values = config.model_dump(mode="json")
    lines = [f"{name} = {json.dumps(v)}" for name, v in values.items() if not isinstance(v, dict | bool)]
    lines += ["together = false"]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    (tmp_path / "transfer.toml").write_text("\n".join(lines), encoding="utf-8")
    assert main(["transfer", str(tmp_path / "transfer.toml"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["train"], row["test"]) for row in rows} == {(a, b) for a in WORDS for b in WORDS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": {"en": "x.json"}}, "train has en, zh, validation en; name the same languages"),
        ({"only": {"multi": "fr"}}, "names no model or no language"),
        ({"settings": {"test": "x"}}, "'test' is not set here"),
        ({"settings": {"labelled": [10, 20]}}, "several numbers of labels; give one"),
        ({"settings": {"epoch": 2}}, "settings: unknown key 'epoch'"),
    ],
)
def test_what_does_not_fit_is_told(folder: Path, tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        transfer(configured(folder, tmp_path / "out", **change), progress=False)
