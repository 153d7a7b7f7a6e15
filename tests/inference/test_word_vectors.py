from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import UsageError
from pluri.inference import word_vectors as module
from pluri.inference.word_vectors import WordVectors, word_vectors
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer

TEXTS = ["the cats sat on the mat", "", "Dogs, running!", "我喜歡 apples 蘋果", "mat"]
SPLIT = [
    ["the", "cats", "sat", "on", "the", "mat"],
    [],
    ["Dogs", ",", "running", "!"],
    ["我", "喜", "歡", "apples", "蘋", "果"],
    ["mat"],
]


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def folder(request, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("words")
    (root / "corpus.txt").write_text("the cats sat on the mat\nthe dogs ran running 我喜蘋果\n" * 9, encoding="utf-8")
    kind = "gpt2" if request.param == "gpt2" else "wordpiece"
    tokenizer = train_tokenizer([root / "corpus.txt"], vocab_size=300 if kind == "gpt2" else 36, kind=kind)
    config = preset(
        request.param, "tiny", vocab_size=tokenizer.vocab_size, max_length=48, hidden_size=32, num_heads=2, num_layers=3
    )
    config = config.model_copy(update={"initializer_range": 0.5})
    head = "next" if config.causal else "masked"
    save_model(root / "model", Model(config, {head: tokenizer.vocab_size}, seed=3), tokenizer)
    return root / "model"


def found(folder: Path, texts: Any, **options: Any) -> WordVectors:
    (chunk,) = word_vectors(*load_model(folder), texts, precision="fp32", **options)
    return chunk


def test_vectors_are_the_means_of_the_states_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    _, tokenizer = load_model(folder)
    ours = found(folder, TEXTS)
    assert ours.words == [word for words in SPLIT for word in words]
    assert ours.text.tolist() == [i for i, words in enumerate(SPLIT) for _ in words]
    assert ours.place.tolist() == [k for words in SPLIT for k in range(len(words))]
    n, shared = 0, 0
    for text, words in zip(TEXTS, SPLIT, strict=True):
        (encoding,) = tokenizer.encode_batch([text])
        ids = torch.tensor([[tokenizer.cls_id, *encoding.ids, tokenizer.sep_id]])
        with torch.inference_mode():
            states = torch.stack(theirs(input_ids=ids, output_hidden_states=True).hidden_states)[:, 0].numpy()
        begin = 0
        for word in words:
            begin = text.index(word, begin)
            characters = set(range(begin, begin + len(word)))
            pieces = [i + 1 for i, (s, e) in enumerate(encoding.offsets) if characters & set(range(s, e))]
            shared += len(pieces) > 1
            np.testing.assert_allclose(ours.vectors[:, n], states[:, pieces].mean(1), atol=1e-5)
            begin, n = begin + len(word), n + 1
    assert shared > 3, "no word of several pieces was tested"
    assert n == len(ours.words)


def test_given_words_are_kept_and_read_as_running_text(folder):
    split, plain = found(folder, SPLIT), found(folder, ["the cats sat on the mat"])
    assert split.words == [word for words in SPLIT for word in words]
    np.testing.assert_allclose(split.vectors[:, :6], plain.vectors, atol=1e-5)
    whole, each = found(folder, [["我", "喜歡", "蘋果"]]), found(folder, ["我喜歡蘋果"])
    assert whole.words == ["我", "喜歡", "蘋果"]
    np.testing.assert_allclose(whole.vectors[:, 0], each.vectors[:, 0], atol=1e-5)


def test_characters_and_layers_can_be_chosen(folder):
    some, every = found(folder, TEXTS[:1], characters=True, layers=[3, 0]), found(folder, TEXTS[:1], characters=True)
    assert some.words == list("thecatssatonthemat")
    np.testing.assert_array_equal(some.vectors, every.vectors[[3, 0]])


def test_words_beyond_the_length_are_counted(folder):
    assert found(folder, ["the the the the the"], max_length=5).words == ["the"] * 3
    assert found(folder, ["the the the the the"], max_length=5).cut == 2


def test_chunks_change_nothing(folder, monkeypatch):
    whole = found(folder, TEXTS * 3)
    monkeypatch.setattr(module, "_VALUES", 32 * 4 * 8)
    parts = list(word_vectors(*load_model(folder), TEXTS * 3, precision="fp32"))
    assert len(parts) > 5
    np.testing.assert_array_equal(np.concatenate([part.text for part in parts]), whole.text)
    np.testing.assert_allclose(np.concatenate([part.vectors for part in parts], 1), whole.vectors, atol=1e-5)


@pytest.mark.parametrize("options", [{"layers": [4]}, {"layers": [-1]}, {"layers": []}, {"max_length": 49}])
def test_what_cannot_be_is_said(folder, options):
    with pytest.raises(UsageError):
        found(folder, TEXTS, **options)
