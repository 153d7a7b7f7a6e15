"""From text to text: fine-tuning, beam search and files, on a task that a tiny model can learn."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate, predict
from pluri.tasks.formats import read_labelled
from pluri.tasks.translate import TextExamples, Writing, write_targets
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

pytest.importorskip("sacrebleu")
WORDS = ["river", "bank", "money", "water", "house", "old"]
OTHERS = ["Fluss", "Ufer", "Geld", "Wasser", "Haus", "alt"]


def write(file: Path, seed: int, count: int) -> str:
    """Words and their translations, one for one."""
    chance = np.random.default_rng(seed)
    rows = [chance.integers(0, len(WORDS), chance.integers(1, 4)) for _ in range(count)]
    with file.open("w", encoding="utf-8", newline="") as stream:
        texts = [(" ".join(WORDS[i] for i in row), " ".join(OTHERS[i] for i in row)) for row in rows]
        csv.writer(stream).writerows([("source", "target"), *texts])
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART that knows nothing, and three files."""
    folder = tmp_path_factory.mktemp("translate")
    (folder / "text.txt").write_text(" ".join(WORDS + OTHERS) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(folder / "text.txt", vocab_size=200)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_layers": 1, "num_heads": 2}
    config = preset("bart", "tiny", vocab_size=tokenizer.vocab_size, max_length=24, **sizes)
    save_model(folder / "model", Model(config, {"next": tokenizer.vocab_size}), tokenizer)
    for seed, (name, count) in enumerate({"train": 600, "validation": 30, "test": 30}.items()):
        write(folder / f"{name}.csv", seed, count)
    return folder


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")}
    settings = {"task": "translate", "model": folder / "model", "output": folder / "tuned", "seeds": 1, **files}
    settings |= {
        "epochs": 1,
        "min_steps": 160,
        "batch_tokens": 1000,
        "learning_rate": 3e-3,
        "validations": 1,
        "dropout": 0,
    }
    finetune(FinetuneConfig.parse(settings), progress=False)
    return folder / "tuned"


def test_a_tiny_model_learns_words(tuned: Path, folder: Path):
    results = json.loads((tuned / "results.json").read_text())
    value = {(row["method"], row["metric"]): row["value"] for row in results["rows"]}
    assert value["pretrained", "exact_match"] > 0.9
    assert value["pretrained", "chrf"] > 95
    assert value["pretrained", "length_ratio"] == pytest.approx(1, abs=0.1)
    assert value["source copied", "exact_match"] == 0
    assert value["random start", "chrf"] > 50  # this much was learnt from the labels alone
    lines = [json.loads(line) for line in (tuned / "predictions.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [
        r.units[0] for r in read_labelled(str(folder / "test.csv"), "translate")
    ]
    assert np.mean([line["target"] == line["gold"] for line in lines]) == value["pretrained", "exact_match"]
    found = evaluate(tuned, str(folder / "test.csv"))
    assert found["exact_match"] == value["pretrained", "exact_match"]
    assert found["chrf_low"] <= found["chrf"] <= found["chrf_high"]


def test_prediction_needs_no_target(tuned: Path, tmp_path: Path):
    (tmp_path / "new.txt").write_text("old house\nold river\n", encoding="utf-8")
    assert predict(tuned, str(tmp_path / "new.txt"), tmp_path / "out.jsonl", settings=["beams=1"]) == 2
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[0] == {"source": "old house", "target": "alt Haus"}


def test_what_a_text_becomes_does_not_depend_on_the_others(tuned: Path, folder: Path):
    model, tokenizer = load_model(tuned)
    records = read_labelled(str(folder / "test.csv"), "translate")[:12]
    for settings in (Writing(beams=1), Writing(beams=3), Writing(beams=2, max_new_tokens=2)):
        together = write_targets(model.eval(), TextExamples(records, tokenizer, length=24), settings)
        alone = [write_targets(model, TextExamples([r], tokenizer, length=24), settings)[0] for r in records]
        assert together == alone
    assert all(len(text.split()) <= 1 for text in alone)  # the first of the two tokens is [CLS]


def test_transformers_writes_the_same(tuned: Path, folder: Path):
    """Greedy and by beams, with its own search and cache."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tuned).eval()
    model, tokenizer = load_model(tuned)
    records = read_labelled(str(folder / "test.csv"), "translate")[:4]
    examples = TextExamples(records, tokenizer, length=24)
    for beams in (1, 4):
        ours = write_targets(model.eval(), examples, Writing(beams=beams, max_new_tokens=20))
        for i, text in enumerate(ours):
            ids = examples.sources.ids[examples.sources.offsets[i] : examples.sources.offsets[i + 1]]
            given = torch.from_numpy(ids.astype(np.int64))[None]
            options: dict[str, Any] = {"num_beams": beams, "do_sample": False, "max_new_tokens": 20}
            found = theirs.generate(given, forced_eos_token_id=None, early_stopping=False, **options)
            assert tokenizer.decode(found[0].numpy()).strip() == text


def test_bad_input_is_told(folder: Path, tuned: Path, tmp_path: Path):
    def run(name: str, text: str, **more: Any) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")
        files = {"train": str(tmp_path / name), "validation": str(folder / "test.csv")}
        settings = {"task": "translate", "model": folder / "model", "output": tmp_path / "out", **files, **more}
        finetune(FinetuneConfig.parse(settings), progress=False)

    with pytest.raises(DataError, match=r"none\.csv:3: column 'target' is empty"):
        run("none.csv", "source,target\nold house,alt Haus\nold river,\n")
    with pytest.raises(DataError, match=r"other\.csv:2: no column 'target' among source"):
        run("other.csv", "source\nold house\n")
    with pytest.raises(DataError, match=r"long\.csv:2: a text of 30 tokens, the model reads 22"):
        run("long.csv", f"source,target\nold,{'alt ' * 30}\n")
    with pytest.raises(UsageError, match="translate has no metric 'accuracy'"):
        run("good.csv", "source,target\nold,alt\n", metric="accuracy")
    with pytest.raises(DataError, match="no column 'target'"):
        evaluate(tuned, str(tmp_path / "other.csv"))
    gpt = Model(preset("bert", "tiny", vocab_size=200, max_length=24), {"masked": 200})
    save_model(tmp_path / "bert", gpt, Tokenizer.load(folder / "model"))
    with pytest.raises(UsageError, match="bert has no decoder beside an encoder"):
        run("good.csv", "source,target\nold,alt\n", model=tmp_path / "bert")
