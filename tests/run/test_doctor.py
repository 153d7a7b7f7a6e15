import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pluri.errors import UsageError
from pluri.run.doctor import Finding, diagnose, show_findings
from pluri.run.folder import load_journal, read_run
from pluri.run.symptoms_data import diagnose_ledger
from pluri.run.symptoms_training import diagnose_journal
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer

ENTROPY = 6.0
CHARACTERS = [chr(0x4E00 + i) for i in range(60)]


def found(findings: list[Finding], name: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def write_journal(
    folder: Path, loss: Callable[[int], float], *, steps: int = 400, end: bool = True, **start: Any
) -> Path:
    """loss(step) plus noise of 0.05 nats, from one random start."""
    noise = np.random.default_rng(0).normal(0, 0.05, steps + 1)
    machine = {"fast_bf16": True}
    lines: list[dict[str, Any]] = [
        {"event": "start", "unigram_entropy": ENTROPY, "machine": machine, "config": {}, **start}
    ]
    for step in range(1, steps + 1):
        value = loss(step) + noise[step]
        event = {"event": "step", "step": step, "tokens": 1000 * step, "seconds": step / 10, "loss": value}
        lines.append({**event, "masked_loss": value, "learning_rate": 0.003})
    lines += [{"event": "end", "step": steps, "reason": "budget spent"}] if end else []
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "journal.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def falling(step: int) -> float:
    return 9.0 - 0.8 * math.log(step)


def settled(step: int) -> float:
    return 3.0 + 5.0 * math.exp(-step / 30)


def rising(step: int) -> float:
    return settled(step) + max(0, step - 300) * 0.03


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("".join("".join(random.choice(CHARACTERS, 40)) + "\n" for _ in range(120)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def store(text: Path) -> Path:
    tokenizer = train_tokenizer([text], kind="char", vocab_size=100)
    return prepare([text], tokenizer, text.parent / "store", workers=1, language="zh").path


def test_a_healthy_run_has_no_complaint(tmp_path):
    write_journal(tmp_path, settled)
    findings = diagnose(tmp_path)
    assert {finding.severity for finding in findings} == {"ok"}
    assert found(findings, "under-trained").evidence == pytest.approx(0, abs=0.05)


def test_plateau_at_the_unigram_entropy(tmp_path):
    write_journal(tmp_path, lambda step: ENTROPY + 3 * math.exp(-step / 20))
    findings = diagnose(tmp_path)
    plateau = found(findings, "plateau at unigram entropy")
    assert plateau.severity == "problem"
    assert plateau.evidence == pytest.approx(1, abs=0.02)
    assert plateau.do
    assert findings[0] == plateau


def test_a_loss_below_the_entropy_is_no_plateau(tmp_path):
    write_journal(tmp_path, lambda step: settled(step) + 2)
    assert not [f for f in diagnose(tmp_path) if f.name == "plateau at unigram entropy"]


def test_under_trained_says_what_a_longer_run_may_buy(tmp_path):
    write_journal(tmp_path, falling)
    finding = found(diagnose(tmp_path), "under-trained")
    assert finding.severity == "warn"
    assert finding.evidence == pytest.approx(0.8 * math.log(2), abs=0.08)
    assert "twice the tokens" in finding.what


def test_still_falling_above_the_entropy_is_under_trained_not_stuck(tmp_path):
    write_journal(tmp_path, lambda step: falling(step) + 3)
    findings = diagnose(tmp_path)
    assert found(findings, "under-trained").severity == "warn"
    assert not [f for f in findings if f.name == "plateau at unigram entropy"]


def test_diverging_loss_names_the_learning_rate(tmp_path):
    write_journal(tmp_path, rising)
    findings = diagnose(tmp_path)
    finding = found(findings, "diverging loss")
    assert finding.severity == "problem"
    assert finding.evidence == pytest.approx(2.7, abs=0.4)
    assert "0.003" in finding.what
    assert "0.001" in finding.do
    assert not [f for f in findings if f.name == "under-trained"]


def test_spikes_are_counted(tmp_path):
    write_journal(tmp_path, lambda step: settled(step) + 2 * (step in (200, 300)))
    finding = found(diagnose(tmp_path), "loss spikes")
    assert (finding.severity, finding.evidence) == ("warn", 2)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_non_finite_loss(tmp_path, broken):
    write_journal(tmp_path, lambda step: broken if step == 123 else settled(step))
    finding = found(diagnose(tmp_path), "non-finite loss")
    assert (finding.severity, finding.evidence) == ("problem", 123)


def test_a_killed_run(tmp_path):
    file = write_journal(tmp_path, settled, end=False)
    file.write_text(file.read_text()[:-20])
    finding = found(diagnose(tmp_path), "unfinished run")
    assert "1 line(s)" in finding.what
    assert finding.evidence == 399


def test_a_few_steps_are_not_judged(tmp_path):
    write_journal(tmp_path, falling, steps=5)
    assert found(diagnose(tmp_path), "too short to judge").evidence == 5


def test_a_resumed_run_counts_the_newer_steps(tmp_path):
    file = write_journal(tmp_path, settled, steps=30, end=False)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, *lines[21:]]) + "\n")
    assert [step["step"] for step in load_journal(file).steps] == list(range(1, 31))


@pytest.mark.parametrize(
    ("fast", "precision", "severity"), [(True, "auto", "ok"), (False, "auto", "warn"), (False, "bf16", "problem")]
)
def test_machine_without_fast_bf16(tmp_path, fast, precision, severity):
    config = {"training": {"precision": precision}}
    file = write_journal(tmp_path, settled, machine={"fast_bf16": fast}, config=config)
    assert found(diagnose_journal(load_journal(file)), "no fast bf16").severity == severity


def test_the_machine_is_measured_where_no_run_recorded_it(tmp_path, monkeypatch):
    monkeypatch.setattr("pluri.run.symptoms_training.fast_bf16", lambda: False)
    file = write_journal(tmp_path, settled, machine={})
    assert found(diagnose_journal(load_journal(file)), "no fast bf16").severity == "warn"


def test_of_many_fine_tunings_only_what_is_wrong_is_told(tmp_path):
    write_journal(tmp_path / "pretrain", settled)
    for seed in range(3):
        folder = tmp_path / "runs" / f"pretrained-50-{seed}"
        file = write_journal(folder, rising if seed == 1 else settled)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [{k: v for k, v in line.items() if k not in ("masked_loss", "unigram_entropy")} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    findings = diagnose(tmp_path)
    told = [f.what.partition(":")[0] for f in findings if f.name == "diverging loss"]
    assert sorted(told) == ["pretrain", "pretrained-50-1"]


def test_a_ledger_that_does_not_add_up_and_bad_shares():
    ledger = {"read": 1000, "kept": 800, "truncated": 150, "dropped": 0, "unk": 90, "documents": 10}
    findings = diagnose_ledger({**ledger, "duplicate_documents": 3, "empty_documents": 0})
    severities = {finding.name: (finding.severity, finding.evidence) for finding in findings}
    assert severities["ledger"] == ("problem", 50)
    assert severities["unknown tokens"] == ("problem", pytest.approx(90 / 800))
    assert severities["truncation"] == ("problem", 0.15)
    assert severities["duplicate documents"] == ("problem", 0.3)
    assert severities["empty documents"] == ("ok", 0)
    dropped = diagnose_ledger({**ledger, "truncated": 0, "dropped": 200, "duplicate_documents": 3})
    assert found(dropped, "duplicate documents").severity == "ok"
    assert found(dropped, "ledger").severity == "ok"


def test_a_healthy_store(store):
    findings = diagnose(store)
    assert {finding.severity for finding in findings} == {"ok"}
    assert found(findings, "tokenizer does not fit").evidence == 0


def test_a_damaged_store(store, tmp_path):
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    shard = next(copy.glob("*.shard"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert found(diagnose(copy), "damaged store").severity == "problem"


def test_an_idle_vocabulary_does_not_fit(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(
        "".join(chr(0x5E00 + i % 90) * 3 + "\n" for i in range(400)) + text.read_text()[:2000], encoding="utf-8"
    )
    tokenizer = train_tokenizer([other], kind="char", vocab_size=200)
    path = prepare([text], tokenizer, tmp_path / "store", workers=1, language="zh").path
    finding = found(diagnose(path), "tokenizer does not fit")
    assert finding.severity == "warn"
    assert finding.evidence == pytest.approx(90 / 150, abs=0.05)


def test_files_beside_a_store_are_judged_by_its_tokenizer(store, text, tmp_path):
    strange = tmp_path / "strange.txt"
    strange.write_text("".join(chr(0x6E00 + i) * 5 + "\n" for i in range(50)), encoding="utf-8")
    findings = diagnose([store, text, strange])
    unknown = {
        f.what.partition(" of the tokens of ")[2].split(" are")[0]: f for f in findings if "of the tokens of" in f.what
    }
    assert unknown[str(text)].severity == "ok"
    assert unknown[str(strange)].severity == "problem"
    assert unknown[str(strange)].evidence == 1
    fits = [f for f in findings if f.name == "tokenizer does not fit" and str(text) in f.what]
    assert [f.severity for f in fits] == ["ok"]


def test_packing_is_measured_from_the_store_of_the_run(store, tmp_path):
    for packed, least, most in ((True, 0.75, 1.0), (False, 0.5, 1.0)):
        config = {
            "store": str(store),
            "objective": {},
            "model": {"max_length": 96},
            "training": {"seed": 0, "batch_tokens": 2000, "packed": packed},
        }
        write_journal(tmp_path / str(packed), settled, config=config)
        share = found(diagnose(tmp_path / str(packed)), "packing efficiency").evidence
        assert share is not None
        assert least < share <= most


def write_table(file: Path, rows: list[tuple[str, str]]) -> Path:
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return file


def test_a_leak_between_train_and_test_is_located(tmp_path):
    train = write_table(tmp_path / "train.csv", [(f"sentence {i}", "ab"[i % 2]) for i in range(100)])
    test = write_table(tmp_path / "test.csv", [("Sentence  7", "a")] + [(f"other {i}", "ab"[i % 2]) for i in range(49)])
    leak = found(diagnose([train, test]), "leak between files")
    assert (leak.severity, leak.evidence) == ("problem", 1 / 50)
    assert f"{test}:2 = {train}:9" in leak.what
    clean = write_table(tmp_path / "clean.csv", [(f"clean {i}", "ab"[i % 2]) for i in range(50)])
    assert found(diagnose([train, clean]), "leak between files").severity == "ok"


def test_label_imbalance_and_copies(tmp_path):
    file = write_table(tmp_path / "train.csv", [(f"s {i % 50}", "yes" if i else "no") for i in range(100)])
    findings = diagnose(file)
    assert found(findings, "label imbalance").evidence == 0.99
    assert found(findings, "label imbalance").severity == "problem"
    assert "'no'" in found(findings, "label imbalance").what
    assert found(findings, "duplicate documents").evidence == 0.5


def test_tags(tmp_path):
    block = "a\tX\nb\tY\n\n"
    (tmp_path / "train.conll").write_text(block + "c\tX\nd\tY\n\n")
    (tmp_path / "test.conll").write_text(block)
    leak = found(diagnose([tmp_path / "train.conll", tmp_path / "test.conll"]), "leak between files")
    assert leak.evidence == 1


def test_an_unusable_file_is_a_finding_with_its_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    finding = found(diagnose(tmp_path / "bad.jsonl"), "unusable file")
    assert "bad.jsonl:2" in finding.what


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(UsageError):
        diagnose([])
    with pytest.raises(UsageError):
        diagnose(tmp_path / "missing")


def test_findings_are_shown_and_are_json(tmp_path):
    write_journal(tmp_path, lambda step: ENTROPY)
    findings = diagnose(tmp_path)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_findings(findings, console)
    shown = console.export_text()
    assert shown.index("plateau at unigram entropy") < shown.index("non-finite loss")
    assert "1 problem, 0 warnings" in shown
    assert json.loads(json.dumps([asdict(f) for f in findings]))[0]["severity"] == "problem"


def test_leaks_that_a_fine_tuning_counted_are_told(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rows": [], "leaks": {"validation": 0, "test": 3}}))
    finding = found(diagnose(tmp_path), "leak between files")
    assert (finding.severity, finding.evidence) == ("problem", 3)


def test_what_is_unreadable_is_told(tmp_path):
    (tmp_path / "results.json").write_text("{")
    assert read_run(tmp_path).unreadable
    assert found(diagnose(tmp_path), "unreadable file").severity == "problem"
