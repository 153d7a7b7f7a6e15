"""What the doctor advises: of k-mers, packing, tags of spans, and fine-tuned folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from pluri.checkpoints.huggingface import save_model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import ObjectiveConfig
from pluri.run.doctor import diagnose
from pluri.run.findings import Finding
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.run.symptoms_data import diagnose_kmers
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer


def found(findings: list[Finding], name: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 3-mers."""
    root, chance = tmp_path_factory.mktemp("genome"), np.random.default_rng(0)
    (root / "g.fasta").write_text("".join(f">{i}\n{''.join(chance.choice([*'ACGT'], 60))}\n" for i in range(40)))
    tokenizer = train_tokenizer(root / "g.fasta", kind="kmer", k=3, vocab_size=80)
    return prepare(root / "g.fasta", tokenizer, root / "store", workers=1).path


@pytest.mark.parametrize(
    ("objective", "severity", "said"),
    [
        ({}, "problem", "single 3-mers are covered, and the neighbours that overlap with them tell what they are"),
        ({"unit": "span", "span_mean": 1.5}, "warn", "spans of 1.5 3-mers are covered"),
        ({"unit": "span", "span_mean": 6, "span_max": 12}, "ok", ""),
    ],
)
def test_kmers_that_their_neighbours_give_away(objective, severity, said):
    finding = diagnose_kmers(3, ObjectiveConfig.parse(objective))
    assert finding is not None
    assert finding.severity == severity
    assert said in finding.what
    if severity != "ok":  # what is advised is enough, see the last row
        assert "unit = 'span', span_mean = 6, span_max = 12" in finding.do
    assert diagnose_kmers(None, ObjectiveConfig()) is None
    assert diagnose_kmers(3, ObjectiveConfig(next=True, masked=False)) is None


def test_a_run_of_kmers_is_advised_before_it_and_by_the_doctor(genome, tmp_path, monkeypatch, capsys):
    """And packed rows are not advised to be packed, however full they are."""
    config = {"store": genome, "output": tmp_path, "model": {"size": "tiny", "max_length": 32}}
    pretrain(PretrainConfig.parse(config | {"training": {"steps": 1, "batch_tokens": 256}}), progress=False)
    assert "single 3-mers are covered" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr("pluri.run.doctor.EMPTY_PACKING", (-1.0, 2.0))
    findings = diagnose(tmp_path)
    assert found(findings, "k-mers given away").severity == "problem"
    assert found(findings, "packing efficiency").do.startswith("lower model.max_length")


def test_tags_of_spans_are_not_judged_by_macro_f1(tmp_path):
    for name, tags in {"spans": ["B-X", "I-X"], "words": ["A", "B"]}.items():
        (tmp_path / f"{name}.conll").write_text("".join(f"w{i} O\n" for i in range(60)) + f"a {tags[0]}\nb {tags[1]}\n")
    assert "span_f1" in found(diagnose(tmp_path / "spans.conll"), "label imbalance").do
    assert "macro_f1" in found(diagnose(tmp_path / "words.conll"), "label imbalance").do


def test_a_fine_tuned_folder_is_checked(tmp_path):
    (tmp_path / "c.txt").write_text("the cat sat on the mat\n" * 9)
    tokenizer = train_tokenizer(tmp_path / "c.txt", vocab_size=60)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=16, hidden_size=32, num_heads=2)
    save_model(tmp_path / "m", Model(config, {"classify": 2}), tokenizer, labels=["a", "b"])
    row = {"metric": "accuracy", "labelled": 50, "seed": 0}
    rows = [{**row, "method": "pretrained", "value": 0.7}, {**row, "method": "majority", "value": 0.8}]
    (tmp_path / "m" / "results.json").write_text(json.dumps({"rows": rows}))
    findings = diagnose(tmp_path / "m")
    assert "heads: classify" in found(findings, "model").what
    gain = found(findings, "no gain over the baselines")
    assert gain.evidence == pytest.approx(-0.1)
    assert "pretrained 0.700, majority 0.800" in gain.what
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert found(diagnose(tmp_path / "m"), "damaged model").severity == "problem"
