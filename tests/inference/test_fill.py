from typing import Any

import pytest
import torch

from pluri.checkpoints.huggingface import save_model
from pluri.errors import UsageError
from pluri.inference.fill import fill, fill_blanks
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    def made(kind: Any = "wordpiece", text="the cat sat on the mat\nthe dog ran\n" * 9, **options):
        root = tmp_path_factory.mktemp("fill")
        (root / "corpus.txt").write_text(text, encoding="utf-8")
        tokenizer = train_tokenizer([str(root / "corpus.txt")], kind=kind, **{"vocab_size": 60, **options})
        config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=16, hidden_size=32, num_heads=2)
        config = config.model_copy(update={"initializer_range": 0.5})
        return Model(config, {"masked": tokenizer.vocab_size}, seed=3), tokenizer, root

    return made


@pytest.mark.parametrize("text", ["the cat [MASK] on the mat", "[MASK] cat sat [MASK]"])
@pytest.mark.filterwarnings("ignore")
def test_it_says_what_the_pipeline_of_transformers_says(made, text):
    transformers = pytest.importorskip("transformers")
    model, tokenizer, root = made()
    save_model(root / "model", model, tokenizer)
    theirs = transformers.pipeline("fill-mask", model=str(root / "model"), top_k=4, device="cpu")(text)
    theirs = theirs if isinstance(theirs[0], list) else [theirs]
    ours = fill(text, root / "model", top_k=4)
    assert len(ours) == 4 * len(theirs)
    for guess, other in zip(ours, [guess for blank in theirs for guess in blank], strict=True):
        assert guess["token"] == other["token"]
        assert guess["score"] == pytest.approx(other["score"], abs=1e-5)
        if len(theirs) == 1:
            assert guess["sequence"] == other["sequence"]
    assert [guess["blank"] for guess in ours] == [i for i in range(len(theirs)) for _ in range(4)]


def test_scores_fall_and_are_probabilities(made):
    model, tokenizer, _ = made()
    found = fill_blanks(model, tokenizer, "the [MASK] sat", top_k=1000)
    scores = [guess["score"] for guess in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-4)
    assert len(found) == tokenizer.vocab_size


def test_other_blanks_stay_blank(made):
    model, tokenizer, _ = made()
    found = fill_blanks(model, tokenizer, "the [MASK] sat on [MASK]", top_k=1)
    assert [guess["sequence"].count("[MASK]") for guess in found] == [1, 1]


def test_a_chinese_character_is_one_blank(made):
    model, tokenizer, _ = made("char", "我们是学生\n他们是老师\n")
    (guess,) = fill_blanks(model, tokenizer, "我们是学[MASK]", top_k=1)
    assert guess["sequence"].startswith("我们是学")


def test_a_blank_among_kmers_is_one_kmer(made):
    model, tokenizer, _ = made("kmer", "ACGTACGTTT\nACGGACGT\n", k=3)
    (guess,) = fill_blanks(model, tokenizer, "ACGT[MASK]TACG", top_k=1)
    assert guess["token"] in range(tokenizer.vocab_size)


@pytest.mark.parametrize(
    ("text", "message"),
    [("the cat sat", r"no \[MASK\] in 'the cat sat'"), ("the " * 20 + "[MASK]", "23 tokens, the model reads 16")],
)
def test_texts_that_cannot_be_filled(made, text, message):
    model, tokenizer, _ = made()
    with pytest.raises(UsageError, match=message):
        fill_blanks(model, tokenizer, text)


def test_a_model_without_the_head_says_so(made):
    model, tokenizer, root = made()
    other = Model(model.config, {"classify": 2})
    save_model(root / "classifier", other, tokenizer)
    with pytest.raises(UsageError, match="does not predict tokens"):
        fill("the [MASK]", root / "classifier")


def test_it_leaves_no_gradient(made):
    model, tokenizer, _ = made()
    fill_blanks(model, tokenizer, "the [MASK]")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_guess_is_no_answer(made, top_k):
    model, tokenizer, _ = made()
    with pytest.raises(UsageError, match="at least 1 guess"):
        fill_blanks(model, tokenizer, "the [MASK] sat", top_k=top_k)
