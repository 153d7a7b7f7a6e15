from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pluri.checkpoints.huggingface import save_model
from pluri.errors import DataError, UsageError
from pluri.inference.embedding_files import embed, embed_words
from pluri.inference.embeddings import embed_texts
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer

TEXTS = ["the cat sat on the mat", "the dog ran", "a", "mat " * 9, "", "the dog ran"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("embed")
    (root / "corpus.txt").write_text("the cat sat on the mat\nthe dog ran\n" * 9, encoding="utf-8")
    tokenizer = train_tokenizer([root / "corpus.txt"], vocab_size=60)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=16, hidden_size=32, num_heads=2)
    config = config.model_copy(update={"initializer_range": 0.5})
    save_model(root / "model", Model(config, {"masked": tokenizer.vocab_size}, seed=3), tokenizer)
    return root / "model"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> list[np.ndarray]:
    """The hidden states of transformers, text by text: (T, D) each."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=16)).last_hidden_state[0].numpy()
            for text in TEXTS
        ]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_transformers(folder, texts, theirs, tmp_path, pooling, normalize):
    done = embed(texts, folder, tmp_path / "v.npy", pooling=pooling, normalize=normalize)
    assert done == {"records": len(TEXTS), "width": 32, "truncated": 0}
    wanted = np.stack([states.mean(0) if pooling == "mean" else states[0] for states in theirs])
    if normalize:
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted, atol=1e-5)


def test_each_token_has_its_vector(folder, texts, theirs, tmp_path):
    embed(texts, folder, tmp_path / "v.parquet", pooling="token")
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["text"] for row in rows] == TEXTS
    assert rows[1]["tokens"][0] == "[CLS]"
    assert rows[1]["tokens"][-1] == "[SEP]"
    for row, states in zip(rows, theirs, strict=True):
        assert len(row["tokens"]) == len(states)
        np.testing.assert_allclose(np.array(row["vector"]), states, atol=1e-5)


def test_identifiers_are_kept(folder, tmp_path):
    (tmp_path / "t.fasta").write_text(">one of them\nthe\n>two\ndog\n")
    embed(tmp_path / "t.fasta", folder, tmp_path / "v.parquet")
    assert pq.read_table(tmp_path / "v.parquet")["id"].to_pylist() == ["one", "two"]
    embed(tmp_path / "t.fasta", folder, tmp_path / "v.txt")
    assert [line.split()[0] for line in (tmp_path / "v.txt").read_text().splitlines()[1:]] == ["one", "two"]


def test_word2vec_text_can_be_read(folder, texts, tmp_path):
    embed(texts, folder, tmp_path / "v.txt")
    embed(texts, folder, tmp_path / "v.npy")
    first, *lines = (tmp_path / "v.txt").read_text(encoding="utf-8").splitlines()
    assert [int(number) for number in first.split()] == [len(TEXTS), 32]
    assert [line.split(" ")[0] for line in lines][:3] == ["the_cat_sat_on_the_mat", "the_dog_ran", "a"]
    values = np.array([[float(value) for value in line.split(" ")[1:]] for line in lines])
    np.testing.assert_allclose(values, np.load(tmp_path / "v.npy"), rtol=1e-4, atol=1e-5)


def test_the_order_and_the_company_of_texts_do_not_matter(folder):
    from pluri.checkpoints.huggingface import load_model

    model, tokenizer = load_model(folder)
    many = [f"the cat {'sat ' * (i % 11)}" for i in range(3000)]  # two chunks
    together = np.concatenate([chunk.vectors for chunk in embed_texts(model, tokenizer, many)])
    alone = next(embed_texts(model, tokenizer, many[2999:])).vectors
    np.testing.assert_allclose(together[2999:], alone, atol=1e-5)


def test_words_of_chosen_layers_are_streamed_to_a_table(folder, texts, theirs, tmp_path):
    done = embed_words(texts, folder, tmp_path / "v.parquet", layers=[0, 2])
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert done == {"records": len(TEXTS), "words": len(rows), "width": 32, "truncated": 0}
    assert [row["word"] for row in rows if row["text"] == 1] == ["the", "dog", "ran"]
    assert [row["place"] for row in rows if row["text"] == 3] == list(range(9))
    found = np.array([row["layer_2"] for row in rows if row["text"] == 1])
    np.testing.assert_allclose(found, theirs[1][1:4], atol=1e-5)  # each is one piece
    with pytest.raises(UsageError, match="need a table"):
        embed_words(texts, folder, tmp_path / "v.npy")


def test_cut_texts_are_counted(folder, texts, tmp_path):
    assert embed(texts, folder, tmp_path / "v.npy", max_length=5)["truncated"] == 2


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("v.csv", {}, "unknown format"),
        ("v.npy", {"pooling": "token"}, "table"),
        ("v.npy", {"max_length": 17}, "at most 16"),
        ("v.npy", {"max_length": 2}, "at least 3"),
        ("v.npy", {"pooling": "max"}, "unknown pooling"),
    ],
)
def test_what_cannot_be_is_said(folder, texts, tmp_path, output, options, message):
    with pytest.raises(UsageError, match=message):
        embed(texts, folder, tmp_path / output, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["texts.jsonl"]


def test_a_failure_keeps_the_file_of_before(folder, tmp_path):
    (tmp_path / "v.npy").write_bytes(b"before")
    (tmp_path / "texts.jsonl").write_text('{"text": "fine"}\n{"text": broken}\n', encoding="utf-8")
    with pytest.raises(Exception, match=r"texts\.jsonl:2"):
        embed(tmp_path / "texts.jsonl", folder, tmp_path / "v.npy")
    assert (tmp_path / "v.npy").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_cannot_be_written_is_said_before_the_work(folder, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("pluri.inference.embeddings._chunk", None)  # no work may be done
    (tmp_path / "folder.npy").mkdir()
    for output in (tmp_path / "folder.npy", texts / "v.npy"):
        with pytest.raises(DataError, match="cannot be written"):
            embed(texts, folder, output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npy", "texts.jsonl"]
