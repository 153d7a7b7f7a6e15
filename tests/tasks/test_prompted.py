"""What is made of the scores of choices, and of written answers."""

from types import SimpleNamespace

import pytest
import torch

from pluri.checkpoints.huggingface import save_model
from pluri.errors import DataError, UsageError
from pluri.inference.prompting import Prompter
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tasks.prompted import judge
from pluri.tasks.prompts import PromptTask, read_prompts
from pluri.tokens.training import train_tokenizer


class Bag(torch.nn.Module):
    """A causal stand-in: the next token's logits are a bias and a weight for each token before it and the last one."""

    def __init__(self, tokenizer, *, bias=(), bag=(), last=()) -> None:
        super().__init__()
        self.config = SimpleNamespace(causal=True, max_length=64, vocab_size=tokenizer.vocab_size)
        self.heads = {"next": None}
        size, ids = tokenizer.vocab_size, tokenizer.raw.token_to_id
        self.bias, self.bag, self.last = (torch.zeros(*shape) for shape in ((size,), (size, size), (size, size)))
        for token, value in bias:
            self.bias[ids(token)] = value
        for table, entries in ((self.bag, bag), (self.last, last)):
            for before, token, value in entries:
                table[ids(before), ids(token)] = value

    def hidden(self, batch):
        ids, hidden = batch.input_ids.flatten(), torch.zeros(batch.input_ids.numel(), len(self.bias))
        for start, length in zip(batch.starts, batch.lengths, strict=True):
            own = ids[start : start + length]
            hidden[start : start + length] = self.bag[own].cumsum(0) + self.last[own] + self.bias
        return hidden

    def outputs(self, head, hidden, batch, at):
        return hidden[at]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompted")
    words = "warm cold room it was good bad enough no surely ; "
    (root / "corpus.txt").write_text(words * 20, encoding="utf-8")
    return train_tokenizer([str(root / "corpus.txt")], vocab_size=100)


@pytest.fixture
def asked(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def asked(rows: str, choices: dict[str, str] | None, **changes):
        (tmp_path / "test.csv").write_text("text,label\n" + rows, encoding="utf-8")
        settings = {"test": "test.csv", "template": "{text} it was {answer}", "separator": " ; ", "choices": choices}
        return read_prompts(PromptTask.parse({**settings, **changes}))

    return asked


def accuracies(model, tokenizer, prompts) -> dict[str, float]:
    found, _ = judge(Prompter(model, tokenizer), prompts, [])
    return {name: outcome.value("accuracy") for name, outcome in found.items()}


def test_calibration_takes_away_what_a_model_says_of_everything(tokenizer, asked):
    prompts = asked("warm room,+\ncold room,-\n", {"+": "good", "-": "bad"})
    biased = Bag(tokenizer, bias=[("bad", 5.0)], bag=[("warm", "good", 1.0), ("cold", "bad", 1.0)])
    found = accuracies(biased, tokenizer, prompts)
    assert found["acc"] == 0.5
    assert found["acc_calibrated"] == 1.0


def test_norm_divides_by_characters(tokenizer, asked):
    prompts = asked("room,yes\n", {"no": "no", "yes": "surely"})
    model = Bag(tokenizer, bias=[("no", 2.0), ("surely", 1.0)])
    found = accuracies(model, tokenizer, prompts)
    assert found["acc"] == 0.0
    assert found["acc_norm"] == 1.0


def test_a_choice_that_begins_another_wins_only_if_it_is_meant(tokenizer, asked):
    choices = {"fair": "good", "better": "good enough"}
    prompts = asked("warm room,better\ncold room,fair\n", choices)
    says = [("warm", "enough", 9.0), ("cold", ";", 9.0)]
    model = Bag(tokenizer, bag=says, last=[("enough", "enough", -20.0), ("enough", ";", 20.0)])
    assert accuracies(model, tokenizer, prompts)["acc"] == 1.0
    with pytest.raises(DataError, match=r"test.csv:2: the choice 'good' begins another one, and nothing ends it"):
        accuracies(model, tokenizer, asked("warm room,better\n", choices, separator=""))


def test_free_answers_are_what_transformers_writes(tmp_path, asked):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat and the dog ran to the red house . " * 20)
    tokenizer = train_tokenizer([str(tmp_path / "corpus.txt")], kind="gpt2", vocab_size=300)
    config = preset("gpt2", "tiny", vocab_size=tokenizer.vocab_size, max_length=40, hidden_size=32, num_heads=2)
    model = Model(config.model_copy(update={"initializer_range": 0.3}), {"next": tokenizer.vocab_size}, seed=1)
    save_model(tmp_path / "model", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([tokenizer.raw.encode("the cat it was").ids])
    written = theirs.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    answer = tokenizer.decode(written).strip()
    assert answer
    rows = f'the cat,"{answer}"\nthe cat,"{answer} more"\nthe cat,neither\n'
    settings = {"max_new_tokens": 6, "stop": ["\n\n\n"]}
    prompter = Prompter(model, tokenizer)
    found, dropped = judge(prompter, asked(rows, None, **settings), [])
    assert dropped == 0
    assert found["exact_match"].value("exact_match") == pytest.approx(1 / 3)
    assert 1 / 3 < found["f1"].value("f1") < 1
    with pytest.raises(DataError, match="and 6 to be written, the model reads 40; shorten the text"):
        judge(prompter, asked("the cat " * 20 + ",a\n", None, **settings), [])
    with pytest.raises(DataError, match=r"and 50 to be written, the model reads 40; .*, or lower max_new_tokens$"):
        judge(prompter, asked("the cat,a\n", None, max_new_tokens=50), [])


def test_a_masked_model_writes_nothing(tokenizer, asked):
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=32, num_heads=2)
    prompter = Prompter(Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    with pytest.raises(UsageError, match="a masked model fills blanks"):
        judge(prompter, asked("room,good\n", None), [])
