"""Questions about documents, from files to files of answers."""

import csv
import json

import numpy as np
import pytest
import torch

from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.doctor import diagnose
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import evaluate, predict
from pluri.tokens.training import train_tokenizer

PLAIN, COLOURS = ("cat", "dog", "sat", "ran", "mat", "hat"), ("red", "blue", "green")
QUICK = {"min_steps": 60, "learning_rate": 5e-3, "batch_tokens": 512, "validations": 3, "seeds": 1}


def asked(count, seed, *, without=0.0):
    """The answer is the colour in a document of other words."""
    chance = np.random.default_rng(seed)
    found = []
    for i in range(count):
        words = [PLAIN[j] for j in chance.integers(0, len(PLAIN), chance.integers(4, 30))]
        place, colour = int(chance.integers(0, len(words))), COLOURS[int(chance.integers(0, 3))]
        start = len(" ".join(words[:place])) + (place > 0)
        if chance.random() < without:
            found.append((f"{seed}-{i}", " ".join(words), []))
        else:
            words[place] = colour
            found.append((f"{seed}-{i}", " ".join(words), [{"text": colour, "answer_start": start}]))
    return found


def squad(rows):
    paragraphs = [
        {"context": text, "qas": [{"id": i, "question": "which colour", "answers": a}]} for i, text, a in rows
    ]
    return json.dumps({"version": "1", "data": [{"title": "colours", "paragraphs": paragraphs}]})


def course(rows, *, answers):
    questions = []
    for number, (_, _, (answer,)) in enumerate(rows):
        text, start = answer["text"], answer["answer_start"]
        kept = (text, start, start + len(text) - 1) if answers else (None, "null", None)
        known = dict(zip(("answer_text", "answer_start", "answer_end"), kept, strict=True))
        questions.append({"id": number, "paragraph_id": number, "question_text": "which colour", **known})
    return json.dumps({"questions": questions, "paragraphs": [text for _, text, _ in rows]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of BERT's kind, and files of questions."""
    root = tmp_path_factory.mktemp("answers")
    (root / "corpus.txt").write_text("\n".join([text for _, text, _ in asked(50, 9)] + ["which colour"]))
    tokenizer = train_tokenizer([str(root / "corpus.txt")], kind="wordpiece", vocab_size=80)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=24, hidden_size=32, num_heads=2)
    save_model(root / "model", Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    for seed, (name, count) in enumerate({"train": 120, "validation": 30, "test": 40}.items()):
        (root / f"{name}.json").write_text(squad(asked(count, seed)))
        (root / f"{name}-2.json").write_text(squad(asked(count, seed + 3, without=0.4)))
        (root / f"{name}-course.json").write_text(course(asked(count, seed + 6), answers=True))
    (root / "new-course.json").write_text(course(asked(25, 20), answers=False))
    return root


def configured(folder, output, suffix="", **options):
    files = {name: str(folder / f"{name}{suffix}.json") for name in ("train", "validation", "test")}
    values = {"task": "answer", "model": folder / "model", "output": output, "doc_stride": 4, **files, **QUICK}
    return FinetuneConfig.parse(values | options)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def answerer(folder):
    return folder / "answerer", finetune(configured(folder, folder / "answerer"), progress=False)


def test_a_run_leaves_a_model_folder_results_and_the_files_of_squad(answerer, folder):
    output, results = answerer
    written = read(output / "results.json")
    assert written["rows"] == results.rows
    assert {row["method"] for row in results.rows} == {"pretrained", "random start"}
    assert {row["metric"] for row in results.rows} == {"f1", "exact_match"}
    best = {row["metric"]: row["value"] for row in results.rows if row["method"] == "pretrained"}
    assert best["f1"] > 0.7
    notes = "\n".join(results.notes)
    assert "train.json: 120 questions; 120 answers read = 120 right + 0 repaired + 0 dropped" in notes
    assert "exact match and F1 compare words, as SQuAD's scripts do" in notes
    assert "predict labels, not spans: they are not in the table" in notes
    rows = asked(40, 2)
    answers, nbest, odds = (read(output / f"{name}.json") for name in ("predictions", "nbest_predictions", "null_odds"))
    assert list(answers) == list(nbest) == list(odds) == [name for name, _, _ in rows]
    for name, text, _ in rows:
        assert answers[name] == nbest[name][0]["text"] != ""
        assert all(text[answer["start"] : answer["end"]] == answer["text"] for answer in nbest[name])
    right = np.mean([answers[name] == answer["text"] for name, _, (answer,) in rows])
    assert right == pytest.approx(best["exact_match"])
    mistakes = read(output / "mistakes.json")
    assert (mistakes["questions"], mistakes["right"]) == (40, round(40 * right))
    assert len(mistakes["mistakes"]) == 40 - mistakes["right"]
    assert mistakes["mistakes"] == sorted(mistakes["mistakes"], key=lambda mistake: mistake["f1"])
    for mistake in mistakes["mistakes"]:
        assert mistake["context"][slice(*mistake["said"])] == answers[mistake["id"]]
        assert [mistake["context"][slice(*span)] for span in mistake["true"]] == mistake["answers"]
        assert "".join(mistake["question"][start:end] for start, end, _ in mistake["attention"])
        assert sum(weight for *_, weight in mistake["attention"]) == pytest.approx(1, abs=0.01)
    assert not (output / "submission.csv").exists()
    assert not list(output.glob(".*"))


def test_transformers_opens_the_folder_and_says_the_same(answerer):
    transformers = pytest.importorskip("transformers")
    output, _ = answerer
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(output).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    answers, nbest = read(output / "predictions.json"), read(output / "nbest_predictions.json")
    short = [(name, text) for name, text, _ in asked(40, 2) if len(text.split()) < 15]
    assert len(short) > 5
    for name, text in short:
        encoded = tokenizer("which colour", text, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            found = model(**encoded)
        best = nbest[name][0]
        inside = [i for i, sequence in enumerate(encoded.sequence_ids(0)) if sequence == 1]
        first = next(i for i in inside if offsets[i][0] == best["start"])
        last = next(i for i in inside if offsets[i][1] == best["end"])
        assert float(found.start_logits[0, first]) == pytest.approx(best["start_logit"], abs=1e-4)
        assert float(found.end_logits[0, last]) == pytest.approx(best["end_logit"], abs=1e-4)
        assert answers[name] == best["text"]


def test_evaluation_repeats_the_rows_and_prediction_the_answers(answerer, folder):
    output, results = answerer
    found = evaluate(output, str(folder / "test.json"))
    for row in results.rows:
        if row["method"] == "pretrained":
            assert found[row["metric"]] == pytest.approx(row["value"])
            assert found[f"{row['metric']}_low"] == pytest.approx(row["low"])
    assert (found["sequences"], found["scoring"]) == (40, "words")
    assert predict(output, str(folder / "test.json"), folder / "again") == 40
    assert read(folder / "again" / "predictions.json") == read(output / "predictions.json")


def test_settings_are_kept_and_can_be_changed(answerer, folder):
    output, _ = answerer
    assert "doc_stride = 4" in (output / "answering.toml").read_text()
    predict(output, str(folder / "test.json"), folder / "one", settings=["n_best_size=1", "max_answer_length=1"])
    assert {len(found) for found in read(folder / "one" / "nbest_predictions.json").values()} == {1}
    assert evaluate(output, str(folder / "test.json"), settings=["scoring=characters"])["scoring"] == "characters"
    with pytest.raises(UsageError, match="did you mean 'doc_stride'"):
        predict(output, str(folder / "test.json"), folder / "one", settings=["doc_strid=1"])


def test_questions_without_an_answer(folder):
    output = folder / "answerer-2"
    results = finetune(configured(folder, output, "-2", min_steps=120, baselines=False), progress=False)
    values = {row["metric"]: row["value"] for row in results.rows}
    assert set(values) == {"f1", "exact_match", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"}
    assert values["f1"] > 0.6
    assert values["NoAns_f1"] > 0
    answers, odds = read(output / "predictions.json"), read(output / "null_odds.json")
    nbest = read(output / "nbest_predictions.json")
    settings = dict(line.split(" = ") for line in (output / "answering.toml").read_text().splitlines())
    threshold = float(settings["null_score_diff_threshold"])
    assert all((answers[name] == "") == (odds[name] > threshold) for name in answers)
    assert all("" in [answer["text"] for answer in found] for found in nbest.values())
    assert any("above the best span (chosen on the validation data)" in note for note in results.notes)
    assert evaluate(output, str(folder / "test-2.json"))["f1"] == pytest.approx(values["f1"])
    always = evaluate(output, str(folder / "test-2.json"), settings=["null_score_diff_threshold=1e9"])
    assert always["NoAns_f1"] == 0


def test_the_courses_files_give_the_courses_answer_file(folder):
    output = folder / "answerer-course"
    finetune(configured(folder, output, "-course", min_steps=20, baselines=False), progress=False)
    for place, file, count in ((output, "test-course", 40), (folder / "new", "new-course", 25)):
        if place != output:
            assert predict(output, str(folder / f"{file}.json"), place) == count
        with (place / "submission.csv").open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
        assert rows[0] == ["ID", "Answer"]
        assert dict(rows[1:]) == read(place / "predictions.json")
        assert len(rows) == count + 1


def test_what_cannot_be_learnt_is_said(folder, tmp_path):
    rows = asked(30, 0)
    rows[3] = (rows[3][0], rows[3][1], [{"text": "purple", "answer_start": 0}])
    (tmp_path / "odd.json").write_text(squad(rows))
    options = {"train": str(tmp_path / "odd.json"), "min_steps": 1, "baselines": False}
    results = finetune(configured(folder, tmp_path / "out", **options), progress=False)
    assert {row["labelled"] for row in results.rows} == {29}
    assert any("30 answers read = 29 right + 0 repaired + 1 dropped" in note for note in results.notes)
    assert any("id 0-3: the answer 'purple' is not at 0, and is not in its document" in note for note in results.notes)
    with pytest.raises(DataError, match=r"new-course\.json, id 0: a question whose answer is not given"):
        finetune(configured(folder, tmp_path / "none", test=str(folder / "new-course.json")), progress=False)
    with pytest.raises(UsageError, match="has no metric 'accuracy'; choose one of exact_match, f1"):
        finetune(configured(folder, tmp_path / "none", metric="accuracy"), progress=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("family", ["roberta", "albert", "modern"])
def test_every_family_answers(folder, tmp_path, family):
    _, tokenizer = load_model(folder / "model")
    config = preset(family, "tiny", vocab_size=tokenizer.vocab_size, max_length=24, hidden_size=32, num_heads=2)
    save_model(tmp_path / "model", Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    options = {"model": tmp_path / "model", "min_steps": 2, "epochs": 0.01, "baselines": False}
    finetune(configured(folder, tmp_path / "out", **options), progress=False)
    assert len(read(tmp_path / "out" / "predictions.json")) == 40
    if family != "modern":
        transformers = pytest.importorskip("transformers")
        opened, report = transformers.AutoModelForQuestionAnswering.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert type(opened).__name__ == f"{family.title()}ForQuestionAnswering"
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


@pytest.mark.parametrize("suffix", ["", "-course"])
def test_the_doctor_reads_questions_and_sees_leaks(folder, suffix):
    files = [str(folder / f"{name}{suffix}.json") for name in ("train", "test")]
    assert {finding.name for finding in diagnose(files)} == {"duplicate documents", "leak between files"}
    assert all(finding.severity == "ok" for finding in diagnose(files))
    leaks = [finding for finding in diagnose([files[0], files[0]]) if finding.name == "leak between files"]
    assert [finding.severity for finding in leaks] == ["problem"]


def test_qanet_stands_in_the_table_where_it_is_asked_for(folder, tmp_path):
    options = {"qanet": 1, "min_steps": 2, "epochs": 0.01, "validations": 1, "baselines": False, "seeds": 2}
    results = finetune(configured(folder, tmp_path / "out", "-2", **options), progress=False)
    rows = [row for row in read(tmp_path / "out" / "results.json")["rows"] if row["method"] == "QANet"]
    assert len(rows) == len(results.rows) / 2
    assert {(row["metric"], row["seed"]) for row in rows[:4]} == {(m, s) for m in ("f1", "exact_match") for s in (0, 1)}
    assert any("QANet learnt its word vectors from the training data" in note for note in results.notes)
    with pytest.raises(UsageError, match="qanet"):
        configured(folder, tmp_path / "out", qanet=True)
