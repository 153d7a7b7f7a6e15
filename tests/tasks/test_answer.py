import json
import time
import unicodedata
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.batches.example import IGNORE
from pluri.errors import UsageError
from pluri.tasks.answer import AnswerExamples, Answering
from pluri.tasks.task import Question
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

SAMPLES = [
    "The cafe\u0301 in Zu\u0308rich isn't cheap, na\u00efve tourists say.",
    "שלום עולם \u200f(שלום)! السَّلَامُ عَلَيْكُمْ",
    "我們在天神地區。1998年，𠮷野家？",
    "👩\u200d💻 and 👍🏽 ok ❤\ufe0f",
    "कि खाता है  ไทย가\u1112\u1161\u11ab",
]
ALPHABET = sorted(set("".join(SAMPLES)) | set("\n\t\u200b\u0000\u00a0\u2028\ufffd\u0627\u030a"))
documents = st.one_of(
    st.text(st.sampled_from(ALPHABET), min_size=1, max_size=60), st.text(min_size=1, max_size=30)
).filter(str.strip)


@pytest.fixture(scope="module")
def every_tokenizer(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("scripts") / "corpus.txt"
    corpus.write_text("\n".join(SAMPLES * 3), encoding="utf-8")
    sizes: dict[Any, int] = {"wordpiece": 120, "bpe": 120, "unigram": 150, "char": 90, "byte_bpe": 300}
    made = {kind: train_tokenizer([str(corpus)], kind=kind, vocab_size=size) for kind, size in sizes.items()}
    made["lowercase"] = train_tokenizer([str(corpus)], kind="wordpiece", vocab_size=120, lowercase=True)
    made["without accents"] = _with_normalizer(made["lowercase"], tokenizers.normalizers.BertNormalizer())
    made["decomposed"] = _with_normalizer(made["char"], tokenizers.normalizers.NFKD())
    return made


def _with_normalizer(tokenizer, normalizer):
    raw = tokenizers.Tokenizer.from_str(tokenizer.raw.to_str())
    raw.normalizer = normalizer
    return Tokenizer(json.loads(raw.to_str()), {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"})


def question(document, *spans, name="1", text="which"):
    references = tuple(document[start:end] for start, end in spans)
    return Question((text, document), (), f"q.json, id {name}", name, references, spans)


def every(examples) -> Any:
    index = np.arange(len(examples))
    return examples.examples(index, np.zeros_like(index))


def pieces(examples, name):
    made = every(examples)
    return np.split(getattr(made, name), made.offsets[1:-1])


@settings(max_examples=60)
@given(documents, st.data())
def test_a_span_in_tokens_and_back_covers_its_characters(every_tokenizer, document, data):
    """Whatever the language, and whatever a tokenizer drops, joins or splits."""
    start = data.draw(st.integers(0, len(document) - 1))
    end = data.draw(st.integers(start + 1, len(document)))
    targets = np.array([[start, end]])
    for name, tokenizer in every_tokenizer.items():
        examples = AnswerExamples([question(document, (start, end))], tokenizer, length=2000, targets=targets)
        if not examples.size.sum():  # a document that this tokenizer has no token for
            assert (examples.sequence_labels == 0).all(), name
            continue
        first, last = (int(side[0]) for side in examples.tokens_of(targets))
        assert first <= last, name
        assert examples.begin[first] <= start, name
        assert end <= examples.end[last], name
        begin, until = examples.characters_of(0, first, last)
        wanted = [i for i in range(start, end) if not _trimmed(document[i])]
        assert not wanted or (begin <= wanted[0] and wanted[-1] < until), name
        assert 0 <= begin <= until <= len(document), name
        assert examples.sequence_labels.tolist() == [[first + 1, last + 1]], name


def _trimmed(character):
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def test_an_answer_keeps_its_accent_and_loses_its_blanks(every_tokenizer):
    document = "a cafe\u0301 here"
    for name, tokenizer in every_tokenizer.items():
        targets = np.array([[2, 7]])
        examples = AnswerExamples([question(document, (2, 7))], tokenizer, length=2000, targets=targets)
        first, last = examples.tokens_of(targets)
        start, end = examples.characters_of(0, int(first[0]), int(last[0]))
        assert document[start:end] == "cafe\u0301", name


def test_a_window_is_the_tokenizers_own_pair(every_tokenizer):
    document = SAMPLES[0]
    for name, tokenizer in every_tokenizer.items():
        raw = tokenizers.Tokenizer.from_str(tokenizer.raw.to_str())
        if name == "byte_bpe":  # RoBERTa's: two separators, one segment
            ids = ("[SEP]", tokenizer.sep_id), ("[CLS]", tokenizer.cls_id)
            raw.post_processor = tokenizers.processors.RobertaProcessing(*ids, trim_offsets=True)
            tokenizer = Tokenizer(json.loads(raw.to_str()), {"cls_token": "[CLS]", "sep_token": "[SEP]"})
        expected = raw.encode("which one", document)
        made = every(AnswerExamples([question(document, text="which one")], tokenizer, length=2000))
        assert made.input_ids.tolist() == expected.ids, name
        assert made.token_type_ids.tolist() == expected.type_ids, name
        inside = [i == 0 or sequence == 1 for i, sequence in enumerate(expected.sequence_ids)]
        assert ((made.labels != IGNORE) == inside).all(), name


def test_windows_overlap_by_doc_stride_and_miss_nothing(tokenizer):
    words = " ".join("abcdefgh"[i % 8] for i in range(50))
    record = question(words, (40, 41), text="a b")
    examples = AnswerExamples(
        [record], tokenizer, length=17, settings=Answering(doc_stride=4), targets=np.array([[40, 41]])
    )
    room = 17 - 3 - 2
    assert examples.size.tolist() == [room] * 5 + [50 - 5 * (room - 4)]
    assert examples.first.tolist() == [0, 8, 16, 24, 32, 40]
    ends = examples.first + examples.size
    assert (ends[:-1] - examples.first[1:] == 4).all()
    assert ends[-1] == 50
    assert examples.sequence_labels.tolist() == [[0, 0], [0, 0], [5, 5], [0, 0], [0, 0], [0, 0]]  # token 20
    assert all(len(ids) <= 17 for ids in pieces(examples, "input_ids"))


def test_an_answer_cut_by_a_window_is_no_answer_there(tokenizer):
    words = "a b c d e f g h a b c d"
    targets = np.array([[10, 17]])  # tokens 5 to 8
    examples = AnswerExamples(
        [question(words, (10, 17), text="a")], tokenizer, length=12, settings=Answering(doc_stride=2), targets=targets
    )
    assert examples.first.tolist() == [0, 6]
    assert examples.sequence_labels.tolist() == [[0, 0], [0, 0]]
    wider = AnswerExamples([question(words, (10, 17), text="a")], tokenizer, length=13, targets=targets)
    assert wider.sequence_labels.tolist() == [[6, 9], [1, 4]]  # by default half of a window's part overlaps


def test_a_training_window_may_stand_around_its_answer(tokenizer):
    words = " ".join("abcdefgh"[i % 8] for i in range(50))
    targets = np.array([[40, 43], [0, 1], [98, 99], [-1, -1]])  # tokens 20 and 21, the first, the last, none
    records = [question(words, tuple(span), name=str(i), text="a") for i, span in enumerate(targets.tolist())]
    how: Any = {"length": 15, "settings": Answering(training_windows="answer"), "targets": targets}
    around = AnswerExamples(records, tokenizer, learn=True, **how)
    assert around.owner.tolist() == [0, 1, 2, 3]
    assert around.size.tolist() == [11] * 4  # 15 less 3 special tokens and the question
    assert around.first.tolist() == [15, 0, 39, 0]
    assert around.sequence_labels.tolist() == [[6, 7], [1, 1], [11, 11], [0, 0]]
    asked = AnswerExamples(records, tokenizer, **how)  # what is not learnt from is cut as ever
    assert len(asked) > 4
    short = AnswerExamples(
        [question(words[:47], (40, 43), text="a")], tokenizer, learn=True, **(how | {"targets": targets[:1]})
    )
    assert (short.first.tolist(), short.size.tolist()) == ([13], [11])


def test_long_questions_are_cut_and_counted(tokenizer):
    long, short = question("a b c", text="a b c d e f"), question("a b c", name="2", text="a b")
    examples = AnswerExamples([long, short], tokenizer, length=40, settings=Answering(max_question_length=4))
    assert examples.truncated == 1
    assert [len(ids) for ids in pieces(examples, "input_ids")] == [3 + 4 + 3, 3 + 2 + 3]
    assert AnswerExamples([long, short], tokenizer, length=11).truncated == 1  # at most half a window
    with pytest.raises(UsageError, match="no question and document fit into a model of length 4"):
        AnswerExamples([long], tokenizer, length=4)


def test_unanswerable_and_unknown_questions_point_to_the_first_position(tokenizer):
    records = [question("a b c", (0, 1)), question("a b c", name="2")]
    examples = AnswerExamples(records, tokenizer, length=20, targets=np.array([[0, 1], [-1, -1]]))
    assert examples.sequence_labels.tolist() == [[1, 1], [0, 0]]
    assert AnswerExamples(records, tokenizer, length=20).sequence_labels.tolist() == [[0, 0], [0, 0]]


def test_models_without_segments_get_none(tokenizer):
    made = every(AnswerExamples([question("a b")], tokenizer, length=20, token_types=1))
    assert made.token_type_ids is None
    assert every(AnswerExamples([question("a b")], tokenizer, length=20)).token_type_ids.max() == 1


def test_examples_do_not_depend_on_their_group(tokenizer):
    records = [question("a b c d e f g h " * n, (2, 3), name=str(n)) for n in (1, 3, 2)]
    examples = AnswerExamples(records, tokenizer, length=20, targets=np.array([[2, 3]] * 3))
    whole = every(examples)
    for i in range(len(examples)):
        alone: Any = examples.examples(np.array([i]), np.array([4]))
        here = slice(whole.offsets[i], whole.offsets[i + 1])
        assert (alone.input_ids == whole.input_ids[here]).all()
        assert (alone.labels == whole.labels[here]).all()
        assert (alone.sequence_labels[0] == whole.sequence_labels[i]).all()


def test_a_very_long_document(tokenizer):
    document = ("abc de f " * 11112)[:100_000]
    start = 88_000
    began = time.monotonic()
    examples = AnswerExamples(
        [question(document, (start, start + 5))], tokenizer, length=48, targets=np.array([[start, start + 5]])
    )
    assert time.monotonic() - began < 20
    assert examples.size.max() <= 48
    assert (examples.sequence_labels > 0).any()
    first, last = examples.tokens_of(np.array([[start, start + 5]]))
    begin, end = examples.characters_of(0, int(first[0]), int(last[0]))
    assert begin <= start < start + 5 <= end


def test_overlapping_kmers_are_refused(tmp_path):
    corpus = tmp_path / "dna.txt"
    corpus.write_text("ACGTACGTTT\nACGGACGT\n")
    with pytest.raises(UsageError, match="k-mers"):
        AnswerExamples([question("ACGT")], train_tokenizer([str(corpus)], kind="kmer", k=3), length=20)
