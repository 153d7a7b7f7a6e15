"""Pairs as they reach the model: the same ids, segments and logits as in transformers, cut in the same place."""

import json
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import processors

from pluri.checkpoints.huggingface import load_model
from pluri.errors import DataError, UsageError
from pluri.tasks.encode import TaskExamples
from pluri.tasks.pair import fitting
from pluri.tasks.predictions import prediction_batches
from pluri.tasks.task import Labelled, define_task, leaked
from pluri.tokens.tokenizer import Tokenizer

NAMES = {"Bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "Roberta": ("<pad>", "<unk>", "<s>", "</s>")}


def words_of(family):
    """A word-level tokenizer with the template of a family."""
    special = NAMES[family]
    ids = {word: i for i, word in enumerate((*special, *"abcdefgh"))}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=special[1]))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cls, sep = ((token, ids[token]) for token in special[2:])
    raw.post_processor = getattr(processors, f"{family}Processing")(sep, cls)
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    return Tokenizer(json.loads(raw.to_str()), {"tokenizer_class": "PreTrainedTokenizerFast", **roles})


def pairs(count, longest, seed=0):
    chance = np.random.default_rng(seed)

    def text():
        return " ".join(chance.choice(list("abcdefgh"), chance.integers(1, longest)))

    return [Labelled((text(), text()), (str(i % 3),), f"p.csv:{i}") for i in range(2, count + 2)]


@pytest.mark.parametrize(("family", "token_types"), [("Bert", 2), ("Roberta", 1)])
def test_the_logits_of_a_pair_are_those_of_transformers(family, token_types, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer, records = words_of(family), pairs(40, 20)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    settings: dict[str, Any] = {"vocab_size": 12, "max_position_embeddings": 25, "type_vocab_size": token_types}
    settings |= {"pad_token_id": 0, "num_labels": 3, "initializer_range": 0.2}
    config = getattr(transformers, f"{family}Config")(**sizes, **settings)
    theirs = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    theirs.save_pretrained(tmp_path)
    types = ["token_type_ids"] if token_types > 1 else []
    tokenizer.save(tmp_path, model_input_names=["input_ids", *types, "attention_mask"])
    model, tokenizer = load_model(tmp_path)

    length = model.config.max_length
    task = define_task("pair", records)
    encoded = TaskExamples(records, task, tokenizer, length=length, truncate=True, token_types=token_types)
    with torch.inference_mode():
        ours = torch.cat([model.eval()(batch, task.head) for batch in prediction_batches(encoded, length)])
    texts = [list(side) for side in zip(*(record.units for record in records), strict=True)]
    given = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        *texts, truncation="longest_first", max_length=length, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(**given).logits
    assert ("token_type_ids" in given) == (token_types > 1)
    assert expected.std() > 0.1
    assert (ours - expected).abs().max() < 1e-5
    tokens = [sum(len(text.split()) for text in record.units) for record in records]
    specials = tokenizer.raw.num_special_tokens_to_add(is_pair=True)
    assert encoded.truncated == sum(count + specials > length for count in tokens) > 3


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        ((3, 4), 7, (3, 4)),
        ((3, 9), 7, (3, 4)),
        ((9, 3), 7, (4, 3)),
        ((9, 1), 7, (6, 1)),
        ((9, 8), 7, (4, 3)),
        ((8, 9), 6, (3, 3)),
        ((9, 9), 7, (3, 4)),
        ((0, 9), 7, (0, 7)),
    ],
)
def test_the_longer_sequence_is_cut_first(lengths, room, kept):
    assert fitting(np.array([lengths]), room).tolist() == [list(kept)]


def test_a_pair_that_is_too_long_is_told_by_its_line():
    tokenizer, task = words_of("Bert"), define_task("pair", pairs(3, 5))
    long = [Labelled(("a b", "c"), ("0",), "p.csv:2"), Labelled(("a b c", "d e f g"), ("1",), "p.csv:3")]
    with pytest.raises(
        DataError, match=r"^p\.csv:3: a pair of 3 and 4 tokens, the model reads 5; .*--set truncate=true"
    ):
        TaskExamples(long, task, tokenizer, length=8)
    encoded = TaskExamples(long, task, tokenizer, length=8, truncate=True)
    assert encoded.truncated == 1
    assert tokenizer.tokens(encoded.input_ids)[6:] == ["[CLS]", "a", "b", "[SEP]", "d", "e", "f", "[SEP]"]
    with pytest.raises(UsageError, match="no pair fits into a model of length 4"):
        TaskExamples(long, task, tokenizer, length=4, truncate=True)


def test_a_pair_leaks_when_both_sequences_are_the_same():
    train = [Labelled(("a", "b"), ("0",), "t:1"), Labelled(("c", "d"), ("0",), "t:2")]
    test = [Labelled(units, ("1",), "s:1") for units in (("a", "b"), ("b", "a"), ("a", "d"), ("c", "d"))]
    assert leaked(train, test) == 2


def test_a_pair_has_one_label():
    task = define_task("pair", pairs(6, 4))
    records = pairs(6, 4)
    outcome: Any = task.outcome(records, task.targets(records))
    assert outcome.num_sequences == len(outcome.gold) == 6
    assert define_task("pair", records, regression=True).regression
    assert task.head == "classify"
