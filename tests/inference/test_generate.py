"""Going on with texts: what transformers writes, the same in a batch as alone, and by the seed."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from pluri.__main__ import main
from pluri.checkpoints.huggingface import save_model
from pluri.errors import CheckpointError, UsageError
from pluri.inference.generate import generate, generate_texts, stream, stream_texts
from pluri.inference.search import Generation, drawn, penalized
from pluri.inference.steps import CausalSteps
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

TEXT = "the cat sat on the mat\nthe dog ran to the old red house\nça va, 人们 drink tea\n" * 9
PROMPTS = ["the cat", "", "the dog ran to the old", "tea, ça", "the cat", "人"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("generate") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return train_tokenizer([path], kind="gpt2", vocab_size=300)


def random_model(tokenizer: Tokenizer, family: str = "gpt2", seed: int = 3, **overrides: Any) -> Model:
    """Weights so large that no two tokens are nearly alike, and that an end comes now and then."""
    shape = {"hidden_size": 32, "num_heads": 2, "max_length": 64, "initializer_range": 0.4}
    config = preset(family, "tiny", vocab_size=tokenizer.vocab_size, **{**shape, **overrides})
    model = Model(config, {"next": tokenizer.vocab_size}, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or name.endswith(("out.weight", "down.weight")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.body.embeddings.tokens.weight[0] *= 2  # the token that ends a text
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    return random_model(tokenizer)


def same(prompts: list[str], model: Model, tokenizer: Tokenizer, **settings: Any) -> list[dict[str, Any]]:
    """The texts, after checking that each alone is the same."""
    together = generate_texts(model, tokenizer, prompts, **settings)
    for prompt, text in zip(prompts, together, strict=True):
        if prompts.count(prompt) == 1:
            assert generate_texts(model, tokenizer, [prompt], **settings) == [text]
    return together


@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 1.3}, {"beams": 3}, {"beams": 4, "length_penalty": 0.5}]
)
@pytest.mark.filterwarnings("ignore")
def test_transformers_writes_the_same(tokenizer: Tokenizer, tmp_path: Path, settings: dict[str, Any]):
    transformers = pytest.importorskip("transformers")
    names = {"beams": "num_beams"}
    options = {names.get(key, key): value for key, value in settings.items()}
    ends = 0
    for seed in (0, 4):  # one that goes on, one that ends
        model = random_model(tokenizer, seed=seed)
        save_model(tmp_path, model, tokenizer)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        words = transformers.AutoTokenizer.from_pretrained(tmp_path)
        ours = generate(PROMPTS, tmp_path, max_new_tokens=12, temperature=0, **settings)
        for prompt, text in zip(PROMPTS, ours, strict=True):
            ids = words(prompt, return_tensors="pt")["input_ids"]
            out = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, **options)[0, ids.shape[1] :]
            written = out.tolist()
            ended = 0 in written
            ends += ended
            assert text["tokens"] == (written.index(0) + 1 if ended else 12)
            assert text["stopped"] == ("end" if ended else "length")
            if "\ufffd" not in text["text"]:
                assert text["text"] == words.decode(written, skip_special_tokens=True)
    assert 0 < ends < 12  # both ways to end were seen


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {"causal": True},
    "modern, windowed": {"causal": True, "window": 6, "num_layers": 3},
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_cached_logits_of_a_batch_are_uncached_ones_of_each_alone(tokenizer: Tokenizer, family: str):
    model = random_model(tokenizer, family.partition(",")[0], **FAMILIES[family])
    rows = [[0, 5, 9, 30, 31, 7], [0], [0, 40, 41]]
    steps = CausalSteps(model, rows, 10)
    for turn in range(8):
        for row, ids in enumerate(rows):
            alone = CausalSteps(model, [ids], 0)
            torch.testing.assert_close(steps.logits[row], alone.logits[0], atol=1e-4, rtol=1e-5)
        if turn == 4:
            steps.select(torch.tensor([2, 0]))
            rows = [rows[2], rows[0]]
        rows = [[*ids, 3 + turn * 7 + i] for i, ids in enumerate(rows)]
        steps.advance(torch.tensor([ids[-1] for ids in rows]))


SETTINGS = [
    {"temperature": 0},
    {},
    {"temperature": 1.5, "top_k": 20, "repetition_penalty": 1.2, "seed": 5},
    {"top_p": 0.7},
    {"temperature": 0, "beams": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_batch_is_what_each_is_alone(model: Model, tokenizer: Tokenizer, settings: dict[str, Any]):
    found = same(PROMPTS, model, tokenizer, max_new_tokens=20, **settings)
    assert [text["prompt"] for text in found] == PROMPTS
    same(PROMPTS, random_model(tokenizer, seed=4), tokenizer, max_new_tokens=20, **settings)  # which ends some early
    chance = settings.get("temperature", 1) > 0
    assert (found[0]["text"] != found[4]["text"]) == chance  # the same prompt is drawn for anew


def test_the_seed_decides(model: Model, tokenizer: Tokenizer):
    first, again, other = (
        generate_texts(model, tokenizer, PROMPTS, max_new_tokens=20, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert sum(a["text"] != b["text"] for a, b in zip(first, other, strict=True)) >= 5


def test_groups_change_nothing(model: Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    whole = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=10)
    monkeypatch.setattr("pluri.inference.generate._CACHED_TOKENS", 40)
    assert generate_texts(model, tokenizer, PROMPTS, max_new_tokens=10) == whole


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    draws = torch.from_numpy((np.arange(20_000) + 0.5) / 20_000)

    def shares(**settings: Any) -> torch.Tensor:
        chosen = drawn(logits.expand(len(draws), -1), draws, Generation.parse(settings))
        return torch.bincount(chosen, minlength=4) / len(draws)

    torch.testing.assert_close(shares(), logits[0].softmax(-1), atol=1e-3, rtol=0)
    torch.testing.assert_close(shares(temperature=2.0), (logits[0] / 2).softmax(-1), atol=1e-3, rtol=0)
    kept = torch.tensor([2.0, -torch.inf, 1.0, -torch.inf]).softmax(-1)
    torch.testing.assert_close(shares(top_k=2), kept, atol=1e-3, rtol=0)
    torch.testing.assert_close(shares(top_p=0.7), kept, atol=1e-3, rtol=0)  # 0.64 alone is not enough
    assert shares(top_p=0.6).tolist() == [1, 0, 0, 0]
    assert shares(temperature=0).tolist() == shares(temperature=1e-310).tolist() == [1, 0, 0, 0]
    ends = drawn(
        logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), Generation.parse({"top_k": 2})
    )
    assert ends.tolist() == [0, 2]


def test_repeated_tokens_are_made_less_likely():
    logits = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    found = penalized(logits, [[0, 1, 1], [2]], Generation.parse({"repetition_penalty": 2.0}))
    assert found.tolist() == [[1.0, -4.0, 1.0], [2.0, -2.0, 0.5]]
    assert logits[0].tolist() == [2.0, -2.0, 1.0]


def test_a_stop_string_ends_the_text_before_it(model: Model, tokenizer: Tokenizer):
    (free,) = generate_texts(model, tokenizer, ["the cat"], max_new_tokens=30, temperature=0)
    middle = free["text"][4:7]
    for settings in ({}, {"beams": 2}):
        (free,) = generate_texts(model, tokenizer, ["the cat"], max_new_tokens=30, temperature=0, **settings)
        middle = free["text"][4:7]
        stops = {"stop": ["never comes", middle]}
        (cut,) = same(["the cat"], model, tokenizer, max_new_tokens=30, temperature=0, **settings, **stops)
        assert middle not in cut["text"]
        if not settings:
            assert cut["text"] == free["text"][: free["text"].index(middle)]
            assert cut["stopped"] == "stop"
            assert cut["tokens"] < free["tokens"]
        (never,) = generate_texts(
            model, tokenizer, ["the cat"], max_new_tokens=30, temperature=0, **settings, stop=("never comes",)
        )
        assert never == free


@pytest.mark.parametrize("stop", [(), ("t", "a b c d"), ("\n",)])
def test_the_pieces_of_a_stream_are_the_text(model: Model, tokenizer: Tokenizer, stop: tuple[str, ...]):
    for seed in range(3):
        settings = {"max_new_tokens": 30, "seed": seed, "stop": stop}
        found = [""] * len(PROMPTS)
        pieces = list(stream_texts(model, tokenizer, PROMPTS, **settings))
        for number, piece in pieces:
            assert piece
            found[number] += piece
        assert found == [text["text"] for text in generate_texts(model, tokenizer, PROMPTS, **settings)]
        assert len(pieces) > len(PROMPTS)


def test_a_stream_is_no_longer_than_needed(model: Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    advance, computed = CausalSteps.advance, []
    monkeypatch.setattr(CausalSteps, "advance", lambda steps, tokens: (computed.append(tokens), advance(steps, tokens)))
    pieces = stream_texts(model, tokenizer, ["the cat"], max_new_tokens=50)
    assert not computed
    next(pieces)
    assert len(computed) < 5  # a character may take some bytes
    assert len(list(pieces)) > 5


def test_the_context_ends_a_text(model: Model, tokenizer: Tokenizer):
    room = 64 - len(tokenizer.encode_batch(["the cat"])[0].ids) - 1
    found = [generate_texts(model, tokenizer, ["the cat"], max_new_tokens=100, seed=seed)[0] for seed in range(4)]
    assert all(text["stopped"] in ("context", "end") for text in found)
    assert {text["tokens"] for text in found if text["stopped"] == "context"} == {room}
    (beams,) = generate_texts(model, tokenizer, ["the cat"], max_new_tokens=100, temperature=0, beams=2, stop=())
    assert beams["tokens"] <= room


def test_prompts_that_cannot_be_gone_on_with(model: Model, tokenizer: Tokenizer):
    with pytest.raises(UsageError, match="prompt: 74 tokens leave no room for another: the model reads 64; shorten it"):
        generate_texts(model, tokenizer, ["q" * 73])
    with pytest.raises(UsageError, match="prompt 2: 64 tokens leave no room"):
        generate_texts(model, tokenizer, ["q", "q" * 63])
    assert generate_texts(model, tokenizer, ["q" * 62])[0]["tokens"] == 1
    with pytest.raises(UsageError, match="there is no prompt"):
        generate_texts(model, tokenizer, [])


def test_an_empty_prompt_needs_a_token_to_begin_with(tmp_path: Path):
    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator([TEXT], vocab_size=300)
    raw.save(str(tmp_path / "tokenizer.json"))
    bare = Tokenizer.load(tmp_path)
    model = random_model(bare)
    assert generate_texts(model, bare, ["the"], max_new_tokens=3)[0]["tokens"] == 3
    with pytest.raises(UsageError, match="prompt: is empty, and the tokenizer has no token to begin with"):
        generate_texts(model, bare, [""])


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"temperature": 0, "beams": 2}])
def test_logits_that_are_no_numbers_are_told(tokenizer: Tokenizer, settings: dict[str, Any]):
    broken = random_model(tokenizer)
    with torch.no_grad():
        broken.body.embeddings.tokens.weight[7, 3] = torch.nan
    with pytest.raises(CheckpointError, match="logits are not finite"):
        generate_texts(broken, tokenizer, ["the cat"], **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"repetition_penalty": math.inf}, "repetition_penalty"),
        ({"length_penalty": 5000}, "length_penalty"),
        ({"length_penalty": math.nan}, "length_penalty"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"beams": 2}, "without chance: set temperature = 0"),
        ({"stop": ("",)}, "a stop string is empty"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_impossible_settings(model: Model, tokenizer: Tokenizer, settings: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        generate_texts(model, tokenizer, ["the cat"], **settings)
    with pytest.raises(UsageError, match="beams"):
        stream_texts(model, tokenizer, ["the cat"], beams=2, temperature=0)


def test_a_model_that_reads_both_ways_does_not_write(tokenizer: Tokenizer, tmp_path: Path):
    config = preset("modern", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=32, num_heads=2)
    save_model(tmp_path, Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    for write in (generate, stream):
        with pytest.raises(UsageError, match="does not predict the next token"):
            write("the cat", tmp_path)


def test_a_wordpiece_goes_on_with_the_word_of_the_prompt(tmp_path: Path):
    (tmp_path / "text.txt").write_text("running runner runs walk walking " * 9, encoding="utf-8")
    pieces = train_tokenizer([tmp_path / "text.txt"], kind="wordpiece", vocab_size=40)
    model = random_model(pieces)
    for seed in range(5):
        (found,) = generate_texts(model, pieces, ["walk"], max_new_tokens=6, seed=seed)
        assert "##" not in found["text"]


def test_the_command_line(model: Model, tokenizer: Tokenizer, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    save_model(tmp_path, model, tokenizer)
    ask = ["generate", "--model", str(tmp_path), "--prompt", "the cat", "--max-new-tokens", "5", "--temperature", "0"]
    assert main([*ask, "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)
    assert [found] == generate_texts(model, tokenizer, ["the cat"], max_new_tokens=5, temperature=0)
    assert main([*ask, "--prompt", "", "--stop", "x", "--seed", "3"]) == 0
    assert capfd.readouterr().out.startswith(f"the cat{found['text']}\n\n")
    assert main([*ask, "--stream"]) == 0
    assert capfd.readouterr().out == found["text"] + "\n"
    for wrong in (["--stream", "--json"], ["--stream", "--prompt", "b"], ["--beams", "0"], ["--prompt", "q" * 99]):
        assert main([*ask, *wrong]) == 2
        assert capfd.readouterr().err.count("\n") == 1
