"""What a model is asked, and how likely it finds each answer."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from pluri.errors import CheckpointError, DataError, UsageError
from pluri.inference.fill import fill_blanks
from pluri.inference.prompting import Prompter, Query
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer

TEXT = "the cat sat on the mat\nthe dog ran to the red house\n" * 9


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompting")
    (root / "corpus.txt").write_text(TEXT, encoding="utf-8")
    kinds: list[Any] = ["wordpiece", "byte_bpe"]
    return {kind: train_tokenizer([str(root / "corpus.txt")], kind=kind, vocab_size=400) for kind in kinds}


@pytest.fixture(scope="module")
def masked(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, max_length=32, hidden_size=32, num_heads=2)
    config = config.model_copy(update={"initializer_range": 0.5})
    return Model(config, {"masked": tokenizer.vocab_size}, seed=3), tokenizer


def test_one_masked_token_is_scored_as_fill_fills_it(masked):
    model, tokenizer = masked
    guesses = {guess["token_str"]: guess["score"] for guess in fill_blanks(model, tokenizer, "the [MASK] sat", 1000)}
    prompter = Prompter(model, tokenizer)
    scores = prompter.scores(prompter.encode([Query("the ", ("cat", "dog"), " sat")]))[0]
    assert scores == pytest.approx([math.log(guesses["cat"]), math.log(guesses["dog"])], abs=1e-5)


def test_several_masked_tokens_are_filled_from_left_to_right(masked):
    model, tokenizer = masked
    both = fill_blanks(model, tokenizer, "the [MASK] [MASK] sat", 1000)
    first = {guess["token_str"]: guess["score"] for guess in both if guess["blank"] == 0}
    second = {g["token_str"]: g["score"] for g in fill_blanks(model, tokenizer, "the red [MASK] sat", 1000)}
    prompter = Prompter(model, tokenizer)
    scores = prompter.scores(prompter.encode([Query("the ", ("red cat",), " sat")]))[0]
    assert scores == pytest.approx([math.log(first["red"]) + math.log(second["cat"])], abs=1e-5)


def test_many_queries_at_once_are_answered_as_one_by_one(masked):
    prompter = Prompter(*masked)
    queries = [Query("the " * n, ("cat", "red dog", "house"), " ran") for n in (1, 2, 5, 9)]
    together = prompter.scores(prompter.encode(queries))
    alone = [prompter.scores(prompter.encode([query]))[0] for query in queries]
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-4)


def test_nothing_is_learnt(masked):
    model, tokenizer = masked
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prompter = Prompter(model, tokenizer)
    prompter.scores(prompter.encode([Query("the ", ("cat", "dog"))]))
    assert not any(p.requires_grad or p.grad is not None for p in prompter.model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_cannot_be_asked(masked, tokenizers):
    model, tokenizer = masked
    with pytest.raises(UsageError, match="does not predict tokens"):
        Prompter(Model(model.config, {"classify": 2}), tokenizer)
    with pytest.raises(DataError, match="the choice ' ' has no token"):
        Prompter(model, tokenizer).encode([Query("the ", (" ", "cat"))])
    broken = Model(model.config, {"masked": tokenizer.vocab_size})
    broken.body.embeddings.tokens.weight.data.fill_(math.nan)
    prompter = Prompter(broken, tokenizer)
    with pytest.raises(CheckpointError, match="not finite"):
        prompter.scores(prompter.encode([Query("the ", ("cat", "dog"))]))


class Chain(torch.nn.Module):
    """A causal stand-in whose next token depends on the last one alone: every score is known."""

    def __init__(self, tokenizer) -> None:
        super().__init__()
        size = tokenizer.vocab_size
        self.config = preset("bert", "tiny", vocab_size=size, max_length=64)
        self.heads = {"next": None}
        self.table = torch.nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(1)))

    def hidden(self, batch):
        return self.table[batch.input_ids]

    def outputs(self, head, hidden, batch, at):
        assert head == "next"
        return hidden.flatten(0, 1)[at]

    def score(self, ids: list[int], begin: int) -> float:
        logs = self.table.log_softmax(-1)
        return sum(float(logs[ids[i - 1], ids[i]]) for i in range(begin, len(ids)))


@pytest.mark.parametrize("prompt", ["the cat", "the cat ", "the cat\n", "the"])
def test_a_continuation_is_what_the_joint_encoding_has_beyond_the_prompt(tokenizers, prompt: str):
    tokenizer = tokenizers["byte_bpe"]
    chain = Chain(tokenizer)
    prompter = Prompter(chain, tokenizer)  # type: ignore[bad-argument-type]
    choices = ("sat", " sat on the mat", "\nthe dog", "s")
    scores = prompter.scores(prompter.encode([Query(prompt, choices, ".")]))[0]
    wholes = [tokenizer.encode_batch([f"{prompt}{said}."])[0].ids for said in choices]
    begin = len(tokenizer.encode_batch([prompt])[0].ids)
    if prompt == "the cat ":  # the space at its end belongs to the word that follows
        assert tokenizer.tokens(wholes[0])[begin - 1] != "Ġ"
        begin -= 1
    start = [] if tokenizer.cls_id is None else [tokenizer.cls_id]
    begin, wholes = begin + len(start), [[*start, *ids] for ids in wholes]
    assert scores == pytest.approx([chain.score(ids, begin) for ids in wholes], abs=1e-4)


def test_an_empty_prompt_needs_a_token_to_begin_with(tokenizers):
    tokenizer = copy.copy(tokenizers["byte_bpe"])
    prompter = Prompter(Chain(tokenizer), tokenizer)  # type: ignore[bad-argument-type]
    if tokenizer.cls_id is not None:
        assert np.isfinite(prompter.scores(prompter.encode([Query("", ("the", "dog"))]))[0]).all()
        tokenizer.cls_id = None
    with pytest.raises(UsageError, match="an empty prompt"):
        prompter.encode([Query("", ("the", "dog"))])
