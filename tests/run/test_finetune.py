import json

import numpy as np
import pytest
import torch

from pluri.checkpoints.huggingface import save_model
from pluri.errors import DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate, predict
from pluri.tokens.training import train_tokenizer

WORDS = ("fine", "good", "great", "poor", "bad", "awful", "film", "book", "song", "was")
QUICK = {"min_steps": 30, "learning_rate": 3e-3, "batch_tokens": 256, "validations": 2, "seeds": 1}


def texts(count, seed):
    """(text, label): a word of praise or blame somewhere among others."""
    chance = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = [WORDS[i] for i in chance.integers(6, 10, 4)]
        kind = int(chance.integers(0, 2))
        words[int(chance.integers(0, 4))] = WORDS[3 * kind + int(chance.integers(0, 3))]
        rows.append((" ".join(words), ("up", "down")[kind]))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a pretrained model of BERT's kind, and files of both tasks."""
    root = tmp_path_factory.mktemp("finetune")
    (root / "corpus.txt").write_text("\n".join(text for text, _ in texts(50, 9)))
    tokenizer = train_tokenizer([str(root / "corpus.txt")], kind="wordpiece", vocab_size=80)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=16, hidden_size=32, num_heads=2)
    save_model(root / "model", Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    for seed, (name, count) in enumerate({"train": 80, "validation": 20, "test": 30}.items()):
        rows = texts(count, seed)
        lines = [f"{text},{label}" for text, label in rows]
        (root / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        numbers = [f"{text}\t{text.count('film') + text.count('book') / 2}" for text, _ in rows]
        (root / f"{name}.tsv").write_text("\n".join(["text\tlabel", *numbers]) + "\n")
        tags = ["\n".join(f"{w} {'ADJ' if w in WORDS[:6] else 'X'}" for w in text.split()) for text, _ in rows]
        (root / f"{name}.conll").write_text("\n\n".join(tags) + "\n")
    return root


def configured(folder, output, suffix="csv", **options):
    files = {name: str(folder / f"{name}.{suffix}") for name in ("train", "validation", "test")}
    task = "tag" if suffix == "conll" else "classify"
    values = {"task": task, "model": folder / "model", "output": output, **files, **QUICK, **options}
    return FinetuneConfig.parse(values)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def classifier(folder):
    output = folder / "classifier"
    return output, finetune(configured(folder, output), progress=False)


def test_a_run_leaves_a_model_folder_results_and_predictions(classifier):
    output, results = classifier
    written = json.loads((output / "results.json").read_text())
    assert written["rows"] == results.rows
    assert written["labels"] == ["down", "up"]
    assert written["confusion"]["labels"] == ["down", "up"]
    assert written["measured_on"] == "test"
    assert {"task", "method", "labelled", "seed", "metric", "value", "low", "high"} == set(written["rows"][0])
    methods = {"pretrained", "random start", "frozen features", "TF-IDF + logistic regression", "majority"}
    assert {row["method"] for row in written["rows"]} == methods
    best = next(row["value"] for row in written["rows"] if row["method"] == "pretrained")
    lines = read_lines(output / "predictions.jsonl")
    assert len(lines) == 30
    assert sum(line["label"] == line["gold"] for line in lines) / 30 == pytest.approx(best)
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "down", "1": "up"}
    assert config["label2id"] == {"down": 0, "up": 1}
    assert not list(output.glob(".*"))


def test_transformers_opens_the_folder_and_says_the_same(classifier):
    transformers = pytest.importorskip("transformers")
    output, _ = classifier
    model = transformers.AutoModelForSequenceClassification.from_pretrained(output).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    for line in read_lines(output / "predictions.jsonl")[:10]:
        with torch.no_grad():
            scores = model(**tokenizer(line["text"], return_tensors="pt")).logits.softmax(-1)[0]
        assert model.config.id2label[int(scores.argmax())] == line["label"]
        assert float(scores.max()) == pytest.approx(line["score"], abs=1e-4)


def test_evaluation_repeats_the_row(classifier, folder):
    output, results = classifier
    found = evaluate(output, str(folder / "test.csv"))
    for row in results.rows:
        if row["method"] == "pretrained":
            assert found[row["metric"]] == pytest.approx(row["value"])
            assert found[f"{row['metric']}_low"] == pytest.approx(row["low"])
    assert found["sequences"] == 30


def test_prediction_needs_no_labels_and_repeats_itself(classifier, folder):
    output, _ = classifier
    (folder / "new.txt").write_text("".join(line.split(",")[0] + "\n" for line in (folder / "test.csv").open()))
    assert predict(output, str(folder / "new.txt"), folder / "new.jsonl") == 31
    lines, known = read_lines(folder / "new.jsonl"), read_lines(output / "predictions.jsonl")
    assert lines[0]["text"] == "text"
    assert lines[1:] == [{name: line[name] for name in ("text", "label", "score")} for line in known]


def test_lora_leaves_a_whole_model_and_its_adapter_beside(folder, tmp_path):
    """The settings as a user gives them; every program opens the one, `peft` the other."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    values = configured(folder, tmp_path / "lora", baselines=False).model_dump(mode="json", exclude_unset=True)
    given = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    finetune(FinetuneConfig.load(None, [*given, "lora_rank=4", "lora_targets=all_linear"]), progress=False)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2)
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "lora" / "adapter").eval()
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "lora").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "lora")
    for line in read_lines(tmp_path / "lora" / "predictions.jsonl")[:5]:
        words = tokenizer(line["text"], return_tensors="pt")
        with torch.no_grad():
            said, expected = opened(**words).logits, whole(**words).logits
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)
        assert float(said.softmax(-1).max()) == pytest.approx(line["score"], abs=1e-4)
    again = {"model": tmp_path / "lora" / "adapter", "baselines": False, "min_steps": 1}
    finetune(configured(folder, tmp_path / "more", **again), progress=False)
    assert not (tmp_path / "more" / "adapter").exists()


def test_tags(folder):
    output = folder / "tagger"
    results = finetune(configured(folder, output, "conll", labelled=40, seeds=[3]), progress=False)
    assert {row["labelled"] for row in results.rows} == {40}
    assert {row["seed"] for row in results.rows} == {3}
    assert "character windows + linear" in {row["method"] for row in results.rows}
    line = read_lines(output / "predictions.jsonl")[0]
    assert len(line["tokens"]) == len(line["tags"]) == len(line["scores"]) == len(line["gold_tags"])
    assert evaluate(output, str(folder / "test.conll"))["accuracy"] > 0.9


def test_numbers(folder):
    output = folder / "numbers"
    results = finetune(configured(folder, output, "tsv", regression=True), progress=False)
    assert {row["metric"] for row in results.rows} == {"pearson", "spearman"}
    assert results.confusion == {}
    config = json.loads((output / "config.json").read_text())
    assert config["problem_type"] == "regression"
    assert isinstance(read_lines(output / "predictions.jsonl")[0]["label"], float)
    found = evaluate(output, str(folder / "test.tsv"))
    expected = next(r["value"] for r in results.rows if r["method"] == "pretrained" and r["metric"] == "pearson")
    assert found["pearson"] == pytest.approx(expected)


def test_several_numbers_of_labels(folder, tmp_path):
    options = {"labelled": [40, 10, 40], "seeds": 2, "min_steps": 6, "epochs": 0.1}
    results = finetune(configured(folder, tmp_path / "out", **options), progress=False)
    rows = [row for row in results.rows if row["metric"] == "accuracy"]
    assert [row["labelled"] for row in rows] == [10] * (len(rows) // 2) + [40] * (len(rows) // 2)
    curves = read_lines(tmp_path / "out" / "curves.jsonl")
    runs = {(row["method"], row["labelled"], row["seed"]) for row in curves}
    assert runs == {(m, n, s) for m in ("pretrained", "random start") for n in (10, 40) for s in (0, 1)}
    assert {tuple(row)[:6] for row in curves} == {("method", "seed", "labelled", "step", "tokens", "loss")}
    best: dict[int, float] = {}  # validation accuracy of each seed, with most labels
    for row in curves:
        if (row["method"], row["labelled"]) == ("pretrained", 40) and "accuracy" in row:
            best[row["seed"]] = max(best.get(row["seed"], 0), row["accuracy"])
    kept = max(best, key=lambda seed: best[seed])
    (value,) = [
        row["value"] for row in rows if (row["method"], row["labelled"], row["seed"]) == ("pretrained", 40, kept)
    ]
    assert evaluate(tmp_path / "out", str(folder / "test.csv"))["accuracy"] == pytest.approx(value)
    assert sum(map(sum, results.confusion["matrix"])) == 30


def test_leaks_and_a_missing_test_file_are_said(folder):
    train = (folder / "train.csv").read_text().splitlines()
    (folder / "leaky.csv").write_text("\n".join(train[:4]) + "\n")
    options = {"baselines": False, "min_steps": 1}
    leaky = configured(folder, folder / "leaky", validation=str(folder / "leaky.csv"), test=None, **options)
    results = finetune(leaky, progress=False)
    assert results.leaks["validation"] == 3
    assert results.measured_on == "validation"
    assert any("3 of 3 validation sequences also stand in the training data" in note for note in results.notes)
    assert any("measured on the validation data" in note for note in results.notes)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"metric": "f1"}, UsageError, "has no metric 'f1'; choose one of accuracy, macro_f1"),
        ({"labelled": 81}, UsageError, "cannot draw 81 of 80"),
        ({"labelled": [10, 81]}, UsageError, "cannot draw 81 of 80"),
        ({"seeds": []}, UsageError, "at least one seed"),
        ({"regression": True}, DataError, r"train\.csv:2: label '\w+' is not a number"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(folder, tmp_path, monkeypatch, options, kind, message):
    monkeypatch.setattr("pluri.tasks.compare.fit", lambda *_, **__: 1 / 0)
    with pytest.raises(kind, match=message):
        finetune(configured(folder, tmp_path / "out", **options), progress=False)
    assert not (tmp_path / "out").exists()


def test_a_label_that_training_never_showed_counts_as_wrong_and_is_said(classifier, folder, tmp_path):
    rows = "text,label\nfilm was fine book,up\nbook was bad film,sideways\nbook was bad film,down\n"
    (tmp_path / "odd.csv").write_text(rows)
    odd = {"validation": str(tmp_path / "odd.csv"), "test": str(tmp_path / "odd.csv"), "min_steps": 4, "epochs": 0.1}
    results = finetune(configured(folder, tmp_path / "out", metric="positive_f1", **odd), progress=False)
    assert results.labels == ["down", "up"]
    assert results.confusion["labels"] == ["down", "up", "sideways"]
    assert np.array(results.confusion["matrix"]).sum(1).tolist() == [1, 1, 1]
    line = "1 labels of the test data are unknown to the training data, and count as wrong: 'sideways' "
    assert f"{line}({tmp_path / 'odd.csv'}:3)" in results.notes
    found = evaluate(classifier[0], str(tmp_path / "odd.csv"))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["positive_f1"] == 1
    assert "count as wrong: 'sideways'" in found["notes"][0]
    tags = tmp_path / "odd.conll"
    tags.write_text("film X\nfine ADV\n")
    results = finetune(configured(folder, tmp_path / "tags", "conll", test=str(tags), min_steps=4), progress=False)
    assert any("odd.conll:1" in note for note in results.notes)


def test_what_a_task_does_not_read_is_not_named_in_vain(folder, tmp_path):
    with pytest.raises(UsageError, match="text_column: a pair has two texts, not one in 'body'"):
        finetune(configured(folder, tmp_path / "out", task="pair", text_column="body"), progress=False)
    with pytest.raises(DataError, match=r"train\.csv: has no place for a tag a token; give CoNLL columns"):
        finetune(configured(folder, tmp_path / "out", task="tag"), progress=False)


def test_identifiers_of_the_input_are_kept(classifier, folder, tmp_path):
    """A FASTA record, and a table's column."""
    (tmp_path / "new.fasta").write_text(">first one\nFILM\n>second\nfine\n")
    (tmp_path / "new.jsonl").write_text('{"id": 7, "text": "film"}\n{"text": "fine"}\n')
    for name, wanted in {
        "new.fasta": [("first", "FILM"), ("second", "fine")],
        "new.jsonl": [("7", "film"), (None, "fine")],
    }.items():
        assert predict(classifier[0], str(tmp_path / name), tmp_path / "said.jsonl") == 2
        assert [(line.get("id"), line["text"]) for line in read_lines(tmp_path / "said.jsonl")] == wanted


def test_weights_have_the_permissions_of_other_files(classifier):
    modes = {file.name: file.stat().st_mode for file in classifier[0].iterdir() if file.is_file()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_long_texts_are_an_error_or_cut_and_said(folder, tmp_path):
    (tmp_path / "long.csv").write_text("text,label\nfilm was fine,up\n" + "was " * 40 + ",down\n")
    options = {"test": str(tmp_path / "long.csv"), "baselines": False, "min_steps": 1}
    with pytest.raises(DataError, match=r"long\.csv:3: a text of 40 tokens, the model reads 14; .*--set truncate=true"):
        finetune(configured(folder, tmp_path / "out", **options), progress=False)
    results = finetune(configured(folder, tmp_path / "out", truncate=True, **options), progress=False)
    assert any("1 test texts were longer" in note for note in results.notes)


def test_a_model_that_was_not_fine_tuned_cannot_be_asked(folder):
    with pytest.raises(UsageError, match="was not fine-tuned; run pluri finetune first"):
        evaluate(folder / "model", str(folder / "test.csv"))


def test_no_model_is_replaced_that_was_not_made_here(folder, classifier):
    before = (folder / "model" / "config.json").read_bytes()
    with pytest.raises(UsageError, match="holds a model that this fine-tuning would replace; choose another output"):
        finetune(configured(folder, folder / "model"), progress=False)
    assert (folder / "model" / "config.json").read_bytes() == before
    output, _ = classifier
    with pytest.raises(UsageError, match="would replace"):
        finetune(configured(folder, output, model=output), progress=False)


def test_a_place_that_cannot_be_written_is_told_before_training(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("pluri.run.finetune.compare", lambda *_, **__: 1 / 0)
    for output in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(DataError, match="cannot be written: Not a directory"):
            finetune(configured(folder, output), progress=False)


def test_predictions_do_not_replace_their_input(classifier, tmp_path):
    output, _ = classifier
    data = tmp_path / "new.csv"
    data.write_text("text\nfilm was fine book\n")
    with pytest.raises(UsageError, match="would replace the input"):
        predict(output, str(data), tmp_path / "." / "new.csv")
    assert data.read_text() == "text\nfilm was fine book\n"


@pytest.mark.parametrize("seeds", [[-1], [2**70], "many"])
def test_impossible_seeds(folder, tmp_path, seeds):
    with pytest.raises(UsageError, match="seeds"):
        configured(folder, tmp_path, seeds=seeds)


def test_a_wrong_kind_of_setting_is_named_without_the_kinds_it_may_have(folder, tmp_path):
    with pytest.raises(UsageError, match=r"^configuration: seeds: Input should be a valid integer"):
        configured(folder, tmp_path, seeds="many")
    with pytest.raises(UsageError, match=r"^configuration: class_weights: Input should be 'balanced'"):
        configured(folder, tmp_path, class_weights="even")


@pytest.mark.parametrize("labelled", [0, [], [10, 0]])
def test_impossible_numbers_of_labels(folder, tmp_path, labelled):
    with pytest.raises(UsageError, match="labelled"):
        configured(folder, tmp_path, labelled=labelled)
