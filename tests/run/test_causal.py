"""Pretraining on next tokens, from text to a folder that transformers opens."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pluri.errors import UsageError
from pluri.inference.fill import fill
from pluri.run.pretrain import PretrainConfig, pretrain, split_documents
from pluri.run.verify import verify_resume
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.journal import read_journal

WORDS = ["the", "a", "river", "bank", "money", "of", "in", "water", "lends", "runs", "deep", "old", "house"]
MODELS: dict[str, dict[str, Any]] = {"gpt2": {"preset": "gpt2"}, "modern": {"preset": "modern", "causal": True}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    chosen = np.random.default_rng(0).integers(0, len(WORDS), (300, 40))
    lines = [" ".join(WORDS[w] for w in row[: 5 + i % 35]) + "." for i, row in enumerate(chosen)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer([str(folder / "text.txt")], kind="gpt2", vocab_size=280)
    return prepare([str(folder / "text.txt")], tokenizer, folder / "store", workers=1).path


def config(store: Path, output: Path, model: str, **training: Any) -> PretrainConfig:
    shape = {"size": "tiny", "hidden_size": 32, "max_length": 32, **MODELS[model]}
    training = {"steps": 6, "batch_tokens": 300, **training}
    values = {"store": store, "output": output, "model": shape, "training": training, "validation": 0.1}
    return PretrainConfig.parse({**values, "objective": {"next": True}})


def test_gpt2_learns_and_transformers_opens_it(store: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = pretrain(config(store, tmp_path, "gpt2", steps=40), progress=False)
    journal = read_journal(tmp_path / "journal.jsonl")
    steps = [event for event in journal if event["event"] == "step"]
    assert steps[0]["next_loss"] == pytest.approx(math.log(280), rel=0.1)
    assert steps[-1]["next_loss"] < journal[0]["unigram_entropy"]
    (measured,) = (event for event in journal if event["event"] == "validation")
    assert measured["eval_perplexity"] == pytest.approx(math.exp(measured["eval_next_loss"]))
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(opened).__name__ == "GPT2LMHeadModel"
    words = transformers.AutoTokenizer.from_pretrained(folder)
    # what the journal says of the held-out documents, from the other side: token by token, and byte by byte
    made = TokenStore.open(store)
    _, held_out = split_documents(made.num_documents, 0.1, 0)
    lines = (store.parent / "text.txt").read_text(encoding="utf-8").splitlines()
    nats, predicted, size = 0.0, 0, 0
    for document in held_out:
        ids = words(lines[document], return_tensors="pt")["input_ids"]
        assert ids[0, 0] == words.eos_token_id  # it stands before a text, as in training
        size += len(lines[document].encode())
        row = torch.cat([ids[0], ids[0, :1]])
        for first in range(0, len(row) - 1, 32):
            piece = row[first : first + 33]
            with torch.no_grad():
                logits = opened(piece[None, :-1]).logits[0]
            nats += float(torch.nn.functional.cross_entropy(logits, piece[1:], reduction="sum"))
            predicted += len(piece) - 1
    assert measured["eval_next_loss"] == pytest.approx(nats / predicted, rel=1e-3)
    assert measured["eval_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_resuming_is_exact(store: Path, tmp_path: Path, model: str):
    verdict = verify_resume(config(store, tmp_path / "unused", model), steps=4)
    assert verdict.equal, verdict.differences


def test_models_and_objectives_that_do_not_go_together(store: Path, tmp_path: Path):
    masked = config(store, tmp_path, "gpt2").model_dump() | {"objective": {}}
    with pytest.raises(UsageError, match=r"gpt2 has no masked head.*objective\.next = true"):
        pretrain(PretrainConfig.parse(masked), progress=False)
    both_ways = config(store, tmp_path, "modern").model_dump() | {"model": {"preset": "modern", "size": "tiny"}}
    with pytest.raises(UsageError, match="eurobert has no next head; only a decoder"):
        pretrain(PretrainConfig.parse(both_ways), progress=False)


def test_blanks_are_not_for_a_causal_model(store: Path, tmp_path: Path):
    folder = pretrain(config(store, tmp_path, "gpt2", steps=1), progress=False)
    with pytest.raises(UsageError, match=r"reads from left to right.*pluri generate"):
        fill("the [MASK]", folder)
