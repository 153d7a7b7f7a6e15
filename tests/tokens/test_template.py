import json

import pytest
import tokenizers
from tokenizers import processors

from pluri.errors import UsageError
from pluri.tokens.template import pair_template
from pluri.tokens.tokenizer import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", "a", "b"]
ID = {word: i for i, word in enumerate(WORDS)}


def made(processor, words=WORDS):
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if processor is not None:
        raw.post_processor = processor
    return Tokenizer(json.loads(raw.to_str()), {})


def parts(template):
    return [part.tolist() for part in (template.before, template.between, template.after)]


def test_bert():
    template = pair_template(made(processors.BertProcessing(("[SEP]", ID["[SEP]"]), ("[CLS]", ID["[CLS]"]))))
    assert parts(template) == [[ID["[CLS]"]], [ID["[SEP]"]], [ID["[SEP]"]]]
    assert (template.types.tolist(), template.first, template.second) == ([0, 0, 1], 0, 1)


def test_roberta_has_two_separators_and_one_segment():
    template = pair_template(made(processors.RobertaProcessing(("</s>", ID["</s>"]), ("<s>", ID["<s>"]))))
    assert parts(template) == [[ID["<s>"]], [ID["</s>"], ID["</s>"]], [ID["</s>"]]]
    assert (template.types.tolist(), template.first, template.second) == ([0, 0, 0, 0], 0, 0)


def test_a_template_of_ones_own():
    own = processors.TemplateProcessing(
        single="<s> $A",
        pair="<s> [CLS] $A:1 [SEP]:1 $B:0",
        special_tokens=[(name, ID[name]) for name in ("<s>", "[CLS]", "[SEP]")],
    )
    template = pair_template(made(own))
    assert parts(template) == [[ID["<s>"], ID["[CLS]"]], [ID["[SEP]"]], []]
    assert (template.types.tolist(), template.first, template.second) == ([0, 0, 1], 1, 0)


def test_a_tokenizer_that_adds_nothing_gets_berts():
    template = pair_template(made(None))
    assert parts(template) == [[ID["[CLS]"]], [ID["[SEP]"]], [ID["[SEP]"]]]
    assert (template.types.tolist(), template.first, template.second) == ([0, 0, 1], 0, 1)


def test_a_pair_that_begins_with_no_special_token_is_refused():
    with pytest.raises(UsageError, match="puts no token before a pair"):
        pair_template(made(None, ["[UNK]", "a"]))
