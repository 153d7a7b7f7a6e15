"""Tags that spell spans, from files to files."""

import json

import numpy as np
import pytest

from pluri.checkpoints.huggingface import save_model
from pluri.errors import UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate, predict
from pluri.run.spans import keep_tagging, kept_tagging
from pluri.tasks.spans import Tagging
from pluri.tasks.task import Labelled, define_task
from pluri.tokens.training import train_tokenizer

NAMES, PLAIN = ("anna", "ben", "clara"), ("saw", "met", "the", "dog", "and")
QUICK = {"min_steps": 40, "learning_rate": 5e-3, "batch_tokens": 256, "validations": 2, "seeds": 1}


def sentences(count, seed):
    """(words, tags): one or two names are a person, who may be named beside another."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words, tags = [], []
        for _ in range(int(chance.integers(2, 6))):
            if chance.random() < 0.4:
                size = int(chance.integers(1, 3))
                words += ["mr", *(NAMES[i] for i in chance.integers(0, 3, size))]
                tags += ["B-PER", *["I-PER"] * size]
            else:
                words.append(PLAIN[int(chance.integers(0, 5))])
                tags.append("O")
        found.append((words, tags))
    return found


def conll(rows):
    return "\n".join("".join(f"{word}\t{tag}\n" for word, tag in zip(*row, strict=True)) for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("spans")
    (root / "corpus.txt").write_text("\n".join(" ".join(words) for words, _ in sentences(50, 9)))
    tokenizer = train_tokenizer([str(root / "corpus.txt")], kind="wordpiece", vocab_size=60)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=8, hidden_size=32, num_heads=2)
    save_model(root / "model", Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    for seed, (name, count) in enumerate({"train": 80, "validation": 20, "test": 30}.items()):
        (root / f"{name}.conll").write_text(conll(sentences(count, seed)))
    with (root / "train.conll").open("a") as file:
        file.write("\nthe\tO\nben\tI-PER\n")  # what the scheme forbids
    return root


def tuned(folder, output, **options):
    files = {name: str(folder / f"{name}.conll") for name in ("train", "validation", "test")}
    values = {"task": "tag", "model": folder / "model", "output": output, **files, **QUICK, "baselines": False}
    return finetune(FinetuneConfig.parse(values | options), progress=False)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tagger(folder):
    return folder / "tagger", tuned(folder, folder / "tagger")


def test_results_are_of_spans_and_say_how_they_are_counted(tagger, folder):
    output, results = tagger
    metrics = list(dict.fromkeys(row["metric"] for row in results.rows))
    assert metrics[:3] == ["span_f1", "span_precision", "span_recall"]
    assert results.rows[0]["value"] > 0.8
    assert any(note.startswith("the tags spell spans (IOB2): span_f1") for note in results.notes)
    last = len((folder / "train.conll").read_text().splitlines())
    (wrong,) = (note for note in results.notes if "training tags" in note)
    assert wrong.startswith("IOB2 forbids 1 of ")
    assert wrong.endswith(f"first I-PER, token 2 of the sentence at {folder}/train.conll:{last - 1}")
    assert any(note.startswith("IOB2 forbids ") and "predicted tags" in note for note in results.notes)
    found = evaluate(output, str(folder / "test.conll"))
    assert found["span_f1"] == pytest.approx(results.rows[0]["value"])
    assert found["span_f1_low"] == pytest.approx(results.rows[0]["low"])


def test_predictions_name_the_spans(tagger, folder):
    output, _ = tagger
    predict(output, str(folder / "test.conll"), folder / "new.jsonl")
    known = read_lines(output / "predictions.jsonl")
    for line, new in zip(known, read_lines(folder / "new.jsonl"), strict=True):
        assert new == {name: line[name] for name in ("tokens", "tags", "scores", "spans")}
        for span in line["spans"]:
            assert span["type"] == "PER"
            assert span["text"].split() == line["tokens"][span["start"] : span["end"]]
        inside = [i for span in line["spans"] for i in range(span["start"], span["end"])]
        assert inside == [i for i, tag in enumerate(line["tags"]) if tag != "O"]


def broken(lines):
    """Sentences in which I-PER stands where it may not."""
    pairs = [zip(["O", *line["tags"]], line["tags"], strict=False) for line in lines]
    return sum(any(pair == ("O", "I-PER") for pair in line) for line in pairs)


def test_legal_tags_only(folder):
    """A model that has learned little breaks the scheme, unless it may not, also between the windows of a sentence; its
    folder remembers."""
    little = {"min_steps": 1, "epochs": 0.01, "learning_rate": 1e-4}
    free = tuned(folder, folder / "free", **little)
    results = tuned(folder, folder / "legal", legal=True, **little)
    assert broken(read_lines(folder / "free" / "predictions.jsonl")) > 0
    assert any("(legal = true predicts only what it allows)" in note for note in free.notes)
    assert broken(read_lines(folder / "legal" / "predictions.jsonl")) == 0
    assert any(note.startswith("IOB2 forbids 0 of ") and note.endswith("where they stand") for note in results.notes)
    test = str(folder / "test.conll")
    for model, settings, same in (("legal", [], "legal"), ("legal", ["legal=false"], "free"), ("free", [], "free")):
        predict(folder / model, test, folder / "again.jsonl", settings=settings)
        tags = [line["tags"] for line in read_lines(folder / same / "predictions.jsonl")]
        assert [line["tags"] for line in read_lines(folder / "again.jsonl")] == tags
    value = next(row["value"] for row in results.rows if row["metric"] == "span_f1")
    assert evaluate(folder / "legal", test)["span_f1"] == pytest.approx(value)


def test_settings_that_do_not_fit_are_refused(tagger, folder):
    output, _ = tagger
    with pytest.raises(UsageError, match=r"^scheme: the labels are not named as in BIOES; leave it out: they say IOB2"):
        evaluate(output, str(folder / "test.conll"), settings=["scheme=BIOES"])
    with pytest.raises(UsageError, match=r"unknown key 'doc_stride'"):
        evaluate(output, str(folder / "test.conll"), settings=["doc_stride=3"])
    plain = folder / "plain.conll"
    plain.write_text("a\tNOUN\nb\tVERB\n")
    with pytest.raises(UsageError, match=r"^legal: these labels spell no spans"):
        tuned(folder, folder / "none", legal=True, train=str(plain), validation=str(plain), test=str(plain))


def test_static_vectors_are_one_more_row_and_their_coverage_is_said(folder):
    pytest.importorskip("sklearn")
    known = [*NAMES, "mr", *PLAIN[:3]]
    (folder / "vectors.txt").write_text("".join(f"{word} {int(word in NAMES)} {i}.5\n" for i, word in enumerate(known)))
    options = {"baselines": True, "static_vectors": str(folder / "vectors.txt"), "min_steps": 1, "epochs": 0.01}
    results = tuned(folder, folder / "static", **options)
    method = "static vectors + logistic regression"
    value = next(row["value"] for row in results.rows if (row["method"], row["metric"]) == (method, "span_f1"))
    assert value > 0.5
    words = [word for sentence, _ in sentences(30, 2) for word in sentence]
    share = sum(word in known for word in words) / len(words)
    assert f"{share:.1%} of the words judged on have a vector in {folder}/vectors.txt" in results.notes


def test_a_folder_keeps_nothing_of_an_earlier_task(tmp_path):
    named, plain = (
        define_task("tag", [Labelled(("a", "b"), tags, "f:1")], legal=legal)
        for tags, legal in ((("B-X", "I-X"), True), (("NOUN", "VERB"), False))
    )
    keep_tagging(tmp_path, named)
    assert kept_tagging(tmp_path, named.labels, []) == Tagging(scheme="IOB2", legal=True)
    keep_tagging(tmp_path, plain)
    assert kept_tagging(tmp_path, plain.labels, []) == Tagging()
    assert kept_tagging(tmp_path, named.labels, []) == Tagging(scheme="IOB2")  # a model from elsewhere
