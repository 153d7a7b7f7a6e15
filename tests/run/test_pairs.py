"""Two sequences to a class or a number, from files to predictions."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from pluri.__main__ import main
from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.exchange import convert_model
from pluri.checkpoints.huggingface import save_model
from pluri.errors import CheckpointError, DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.doctor import diagnose
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate, predict
from pluri.tokens.training import train_tokenizer

THINGS, OTHERS = ("cat", "dog", "hat", "sun"), ("a", "the", "my", "one", "no", "that")
QUICK = {"min_steps": 20, "epochs": 0.1, "learning_rate": 3e-3, "batch_tokens": 512, "validations": 2, "seeds": 1}


def pairs(count, seed):
    """(first, second, label): whether both speak of the same thing. Neither sequence alone tells it."""
    chance = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        one, other = (THINGS[i] for i in chance.integers(0, 4, 2))
        other = one if chance.random() < 0.4 else other
        before, after = (OTHERS[i] for i in chance.integers(0, 6, 2))
        rows.append((f"{before} {one}", f"{other} {after}", "same" if one == other else "new"))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with models, two of them with a next-sentence head, and files of pairs."""
    root = tmp_path_factory.mktemp("pairs")
    (root / "corpus.txt").write_text("\n".join(f"{first}\n{second}" for first, second, _ in pairs(200, 9)))
    tokenizer = train_tokenizer([str(root / "corpus.txt")], kind="wordpiece", vocab_size=80)
    for family, heads in {"bert": {"pair": 2}, "roberta": {}, "modern": {"pair": 2}}.items():
        config = preset(family, "tiny", vocab_size=tokenizer.vocab_size, max_length=24, hidden_size=32, num_heads=2)
        save_model(root / family, Model(config, {"masked": tokenizer.vocab_size, **heads}), tokenizer)
    for seed, (name, count) in enumerate({"train": 300, "validation": 60, "test": 100}.items()):
        rows = pairs(count, seed)
        lines = [f"{label},{first},{second}" for first, second, label in rows]
        (root / f"{name}.csv").write_text("\n".join(["label,sentence1,sentence2", *lines]) + "\n")
        numbers = [f"{first}\t{second}\t{5.0 * (label == 'same')}" for first, second, label in rows]
        (root / f"{name}.tsv").write_text("\n".join(["premise\thypothesis\tscore", *numbers]) + "\n")
    return root


def configured(folder, output, suffix="csv", **options):
    files = {name: str(folder / f"{name}.{suffix}") for name in ("train", "validation", "test")}
    values = {"task": "pair", "model": folder / "bert", "output": output, **files, **QUICK, **options}
    return FinetuneConfig.parse(values)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tuned(folder):
    output = folder / "tuned"
    return output, finetune(configured(folder, output), progress=False)


def value(results, metric, method="pretrained"):
    return next(row["value"] for row in results.rows if (row["metric"], row["method"]) == (metric, method))


def test_a_run_leaves_results_and_predictions(tuned):
    output, results = tuned
    methods = {"pretrained", "random start", "frozen features", "TF-IDF + logistic regression", "majority"}
    assert {row["method"] for row in results.rows} == methods
    assert {row["metric"] for row in results.rows} == {"accuracy", "macro_f1", "positive_f1", "mcc"}
    assert "positive_f1 is the F1 of the label 'same' alone" in results.notes
    lines = read_lines(output / "predictions.jsonl")
    assert list(lines[0]) == ["sentence1", "sentence2", "label", "score", "gold"]
    assert [(line["sentence1"], line["sentence2"], line["gold"]) for line in lines] == pairs(100, 2)
    assert np.mean([line["label"] == line["gold"] for line in lines]) == pytest.approx(value(results, "accuracy"))


def test_transformers_opens_the_folder_and_says_the_same(tuned):
    transformers = pytest.importorskip("transformers")
    output, _ = tuned
    model = transformers.AutoModelForSequenceClassification.from_pretrained(output).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    for line in read_lines(output / "predictions.jsonl")[:10]:
        with torch.no_grad():
            given = tokenizer(line["sentence1"], line["sentence2"], return_tensors="pt")
            scores = model(**given).logits.softmax(-1)[0]
        assert model.config.id2label[int(scores.argmax())] == line["label"]
        assert float(scores.max()) == pytest.approx(line["score"], abs=1e-4)


def test_the_folder_knows_that_it_reads_pairs(tuned, folder, tmp_path):
    output, results = tuned
    convert_model(output, tmp_path / "copy")
    for place in (output, tmp_path / "copy"):
        found = evaluate(place, str(folder / "test.csv"))
        assert found["positive"] == "same"
        for metric in ("accuracy", "positive_f1", "mcc"):
            assert found[metric] == pytest.approx(value(results, metric))
    renamed = (folder / "test.csv").read_text().replace("sentence1,sentence2", "a,b").replace("label,", "gold,")
    (tmp_path / "other.csv").write_text(renamed)
    other = str(tmp_path / "other.csv")
    assert evaluate(output, other, label_column="gold", pair_columns=("a", "b")) == found
    files = ["--model", str(output), "--input", other, "--output", str(tmp_path / "said.jsonl")]
    assert main(["predict", *files, "--pair-columns", "a", "b"]) == 0
    known = read_lines(output / "predictions.jsonl")
    assert read_lines(tmp_path / "said.jsonl") == [{k: v for k, v in line.items() if k != "gold"} for line in known]
    with pytest.raises(DataError, match=r"test\.tsv:2: no column 'sentence1' among premise, hypothesis, score;"):
        predict(output, str(folder / "test.tsv"), tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="legal=true: a model of the task pair has no such setting"):
        evaluate(output, str(folder / "test.csv"), settings=["legal=true"])


def test_the_task_is_believed_only_beside_its_head(tuned, tmp_path):
    told = json.loads((tuned[0] / "config.json").read_text())
    for change, task in (({}, "pair"), ({"architectures": ["BertForTokenClassification"]}, None)):
        (tmp_path / "config.json").write_text(json.dumps(told | change))
        assert read_config(tmp_path).task == task
    (tmp_path / "config.json").write_text(json.dumps(told | {"pluri_task": "triple"}))
    with pytest.raises(CheckpointError, match="pluri_task 'triple' is not supported"):
        read_config(tmp_path)


def test_a_next_sentence_head_is_no_fine_tuning(folder):
    with pytest.raises(UsageError, match="was not fine-tuned"):
        evaluate(folder / "bert", str(folder / "test.csv"))


def test_it_learns_what_neither_sequence_tells_alone(folder):
    options = {"model": folder / "modern", "min_steps": 60, "baselines": False}
    results = finetune(configured(folder, folder / "learnt", **options), progress=False)
    often = max(np.mean([label == kind for _, _, label in pairs(100, 2)]) for kind in ("same", "new"))
    assert often < 0.65
    assert value(results, "accuracy") > 0.95


def test_numbers(folder):
    names: Any = {"pair_columns": ("premise", "hypothesis"), "label_column": "score"}
    output, options = folder / "numbers", {"model": folder / "roberta", "regression": True, **names}
    results = finetune(configured(folder, output, "tsv", **options), progress=False)
    assert {row["metric"] for row in results.rows} == {"pearson", "spearman"}
    assert value(results, "pearson", "TF-IDF + ridge regression") > 0.8
    assert evaluate(output, str(folder / "test.tsv"), **names)["pearson"] == pytest.approx(value(results, "pearson"))
    assert isinstance(read_lines(output / "predictions.jsonl")[0]["label"], float)


def test_the_doctor_reads_pairs_and_sees_leaks(folder):
    train, test = (str(folder / f"{name}.csv") for name in ("train", "test"))
    assert not [finding for finding in diagnose([train, test]) if finding.name == "unusable file"]
    leaks = [finding for finding in diagnose([train, train]) if finding.name == "leak between files"]
    assert [finding.severity for finding in leaks] == ["problem"]


def test_cut_pairs_are_counted(folder, tmp_path):
    long = f"sentence1,sentence2,label\n{'cat ' * 30},cat one,same\nthe cat,dog one,new\n"
    (tmp_path / "long.csv").write_text(long)
    options = {"test": str(tmp_path / "long.csv"), "baselines": False, "min_steps": 1}
    with pytest.raises(DataError, match=r"long\.csv:2: a pair of 30 and 2 tokens, the model reads 21;"):
        finetune(configured(folder, tmp_path / "out", **options), progress=False)
    results = finetune(configured(folder, tmp_path / "out", truncate=True, **options), progress=False)
    assert "1 test pairs were longer than the model reads, and were cut" in results.notes
