"""Models that transformers saved are pretrained further and fine-tuned here, and transformers opens what comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.tokens.prepare import prepare
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [f"the {a} {b} runs deep" for a in ("old", "new", "red", "wide") for b in ("river", "road", "bank", "bed")]
OPTIONS: dict[str, dict[str, Any]] = {
    "Bert": {},
    "XLMRoberta": {},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "Electra": {"embedding_size": 16},
    "Esm": {"position_embedding_type": "rotary", "token_dropout": True},
    "ModernBert": {"local_attention": 4},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    (root / "corpus.txt").write_text("\n".join(TEXTS))
    train_tokenizer([str(root / "corpus.txt")], kind="wordpiece", vocab_size=90).save(root / "tokenizer")
    prepare([str(root / "corpus.txt")], root / "tokenizer", root / "store", workers=1)
    rows = [f"{text},{'water' if 'river' in text else 'land'}" for text in TEXTS]
    (root / "labelled.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return root


@pytest.mark.parametrize("name", OPTIONS)
def test_from_transformers_to_transformers(name: str, files: Path, tmp_path: Path):
    tokenizer = Tokenizer.load(files / "tokenizer")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    options = dict(OPTIONS[name]) if "dim" in OPTIONS[name] else sizes | OPTIONS[name]
    options |= {"max_position_embeddings": 32, "pad_token_id": tokenizer.pad_id, "mask_token_id": tokenizer.mask_id}
    options["vocab_size"] = tokenizer.vocab_size + 3  # as published embeddings often are: padded
    theirs = getattr(transformers, f"{name}ForMaskedLM")(getattr(transformers, f"{name}Config")(**options))
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")

    settings = {"store": files / "store", "output": tmp_path / "run", "model": {"init": str(tmp_path / "theirs")}}
    training = {"steps": 2, "batch_tokens": 128}
    folder = pretrain(PretrainConfig.parse({**settings, "training": training}), progress=False)
    opened, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(opened) is type(theirs)
    assert not report["unexpected_keys"]
    before, after = theirs.get_input_embeddings().weight, opened.get_input_embeddings().weight
    assert before.shape == after.shape
    assert not torch.equal(before, after)

    data = dict.fromkeys(("train", "validation", "test"), str(files / "labelled.csv"))
    quick = {"min_steps": 3, "epochs": 1, "seeds": 1, "baselines": False}
    output = tmp_path / "tuned"
    finetune(
        FinetuneConfig.parse({"task": "classify", "model": folder, "output": output, **data, **quick}), progress=False
    )
    tuned = transformers.AutoModelForSequenceClassification.from_pretrained(output).eval()
    words = transformers.AutoTokenizer.from_pretrained(output)
    for line in (output / "predictions.jsonl").read_text().splitlines()[:5]:
        said = json.loads(line)
        logits = tuned(input_ids=words(said["text"], return_tensors="pt")["input_ids"]).logits[0]
        assert tuned.config.id2label[int(logits.argmax())] == said["label"]
        assert abs(float(logits.softmax(-1).max()) - said["score"]) < 1e-3
