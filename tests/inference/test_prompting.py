"""What a model is asked, and how likely it finds each answer."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from pluri.checkpoints.huggingface import save_model
from pluri.errors import CheckpointError, DataError, UsageError
from pluri.inference.fill import fill_blanks
from pluri.inference.prompting import Prompter, Query
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer
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
    beside = preset("bart", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=32, num_heads=2)
    with pytest.raises(UsageError, match="a decoder beside an encoder goes on with no prompt"):
        Prompter(Model(beside, {"next": tokenizer.vocab_size}), tokenizer)
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
        self.config = preset("gpt2", "tiny", vocab_size=size, max_length=64)
        self.heads = {"next": None}
        self.table = torch.nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(1)))

    def hidden(self, batch):
        return self.table[batch.input_ids]

    def outputs(self, head, hidden, batch, at):
        assert head == "next"
        return hidden.flatten(0, 1)[at]

    def score(self, ids: list[Any], begin: int) -> float:
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


def test_an_empty_prompt_begins_a_document(tokenizers, tmp_path):
    tokenizers["byte_bpe"].save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition | {"post_processor": None}), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)  # puts nothing before a text, as GPT-2's
    chain = Chain(tokenizer)
    prompter = Prompter(chain, tokenizer)  # type: ignore[bad-argument-type]
    empty, some = prompter.scores(prompter.encode([Query("", ("the", "dog")), Query("the", (" cat", " dog"))]))
    the, the_cat = (tokenizer.encode_batch([text])[0].ids for text in ("the", "the cat"))
    assert empty[0] == pytest.approx(chain.score([tokenizer.cls_id, *the], 1), abs=1e-4)
    assert some[0] == pytest.approx(chain.score(the_cat, len(the)), abs=1e-4)
    tokenizer.cls_id = None
    with pytest.raises(UsageError, match="an empty prompt"):
        prompter.encode([Query("", ("the", "dog"))])
    with pytest.raises(DataError, match="the choice '' has no token"):
        prompter.encode([Query("the", ("", " dog"))])


@pytest.fixture(scope="module")
def causal(tokenizers):
    tokenizer = tokenizers["byte_bpe"]
    config = preset("gpt2", "tiny", vocab_size=tokenizer.vocab_size, max_length=128, hidden_size=32, num_heads=2)
    config = config.model_copy(update={"initializer_range": 0.3})
    return Model(config, {"next": tokenizer.vocab_size}, seed=3), tokenizer


def test_likelihoods_are_those_of_transformers(causal, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, tokenizer = causal
    save_model(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    queries = [Query("the cat", (" sat", " ran to the"), "."), Query("the red", (" dog sat", " mat"))]
    prompter = Prompter(model, tokenizer)
    for query, scores in zip(queries, prompter.scores(prompter.encode(queries)), strict=True):
        begin = 1 + len(tokenizer.encode_batch([query.before])[0].ids)
        for said, score in zip(query.choices, scores, strict=True):
            ids = torch.tensor([tokenizer.cls_id, *tokenizer.encode_batch([query.before + said + query.after])[0].ids])
            with torch.no_grad():
                logs = theirs(ids[None]).logits[0].log_softmax(-1)
            expected = sum(float(logs[i - 1, ids[i]]) for i in range(begin, len(ids)))
            assert score == pytest.approx(expected, abs=1e-4)


def test_a_common_beginning_is_read_once(causal, monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = causal
    prompter = Prompter(model, tokenizer)
    shots = "the cat sat on the mat. the dog ran to the red house. " * 3
    queries = [Query(shots + "the " * n, ("cat", "red dog", "house"), " ran") for n in range(1, 33)]
    encoded = prompter.encode(queries)
    read: list[int] = []
    hook = model.body.embeddings.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].num_tokens))
    once = np.stack(prompter.scores(encoded))
    tokens_once = sum(read)
    monkeypatch.setattr("pluri.inference.prompting._SAVED", 2**60)
    each = np.stack(prompter.scores(encoded))
    hook.remove()
    np.testing.assert_allclose(once, each, atol=1e-4)
    shared = len(tokenizer.encode_batch([shots + "the"])[0].ids)  # and what begins a text, but not what is read last
    assert sum(read) - 2 * tokens_once == shared * (3 * len(queries) - 1)


def test_a_prompt_may_stand_without_choices(causal):
    model, tokenizer = causal
    (encoded,) = Prompter(model, tokenizer).encode([Query("the cat", ())])
    assert encoded.longest == 1 + len(tokenizer.encode_batch(["the cat"])[0].ids)
