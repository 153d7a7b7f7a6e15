"""QANet's words, and that it learns to answer."""

import re
import unicodedata
from collections import Counter

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pluri.tasks.answer import AnswerExamples
from pluri.tasks.fit import Tuning
from pluri.tasks.qanet import Lexicon, answered_by_qanet
from pluri.tasks.task import Question, define_task

ALPHABET = "aZé ß\n\t\u00a0\u3000.,'’-$€_9²αя한我ๆกा\u0301\u200b\u200d👩💻\U00020000[]\u0000\x1cアい。"
texts = st.one_of(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=60), st.text(min_size=1, max_size=30))
texts = texts.filter(str.strip)


def question(name, asked, document, answer=None):
    """The answer stands once in the document."""
    spans = () if answer is None else ((document.index(answer), document.index(answer) + len(answer)),)
    return Question((asked, document), (), f"q.json, id {name}", name, () if answer is None else (answer,), spans)


@settings(max_examples=60)
@example("[CLS] a[SEP]b")
@given(texts)
def test_words_stand_where_they_say_and_leave_out_blanks_alone(text):
    lexicon = Lexicon.of([text], [])
    (encoding,) = lexicon.tokenizer.encode_batch([text])
    covered, last = "", 0
    for word, token, (start, end) in zip(encoding.tokens, encoding.ids, encoding.offsets, strict=True):
        assert last <= start < end
        assert text[start:end] == word
        assert token not in range(5), "a special token"
        covered, last = covered + word, end
    assert covered == re.sub(r"[^\S\x1c-\x1f]", "", text), "separators of data are no blanks to Unicode"


@settings(max_examples=60)
@given(texts, st.data())
def test_an_answer_of_whole_words_maps_back_to_its_characters(text, data):
    tokenizer = Lexicon.of([text], []).tokenizer
    places = tokenizer.encode_batch([text])[0].offsets
    first = data.draw(st.integers(0, len(places) - 1))
    last = data.draw(st.integers(first, len(places) - 1))
    span = (places[first][0], places[last][1])
    record = Question(("which", text), (), "q.json, id 1", "1", (text[slice(*span)],), (span,))
    examples = AnswerExamples([record], tokenizer, length=500, targets=np.array([span]))
    assert examples.sequence_labels.tolist() == [[first + 1, last + 1]]
    start, end = examples.characters_of(0, first, last)
    faint = "".join(c for c in text if c.isspace() or unicodedata.category(c) in ("Cc", "Cf"))
    assert text[start:end] == text[slice(*span)].strip(faint)


def test_signs_and_characters_of_scripts_without_spaces_stand_alone():
    def words(text):
        return Lexicon.of([text], []).tokenizer.encode_batch([text])[0].tokens

    assert words("It isn't (yet) 3.5€.") == ["It", "isn", "'", "t", "(", "yet", ")", "3", ".", "5", "€", "."]
    assert words("我們在\u3000Café。") == ["我", "們", "在", "Café", "。"]
    assert words("한국어 단어") == ["한국어", "단어"]
    assert words("ไทย") == ["ไ", "ท", "ย"]


def test_rare_words_share_a_vector_and_keep_their_spelling():
    learnt, further = ["The cat sat", "the dog sat", "a bird"], ["A cat of birdsongbirdsongbirdsong"]
    lexicon = Lexicon.of(learnt * 2, further)  # a text that stands twice counts once
    words = sorted({word for text in learnt + further for word in text.split()})
    ids = {word: lexicon.tokenizer.raw.token_to_id(word) for word in words}
    vector = {word: int(lexicon.vectors[i]) for word, i in ids.items()}
    assert vector["The"] == vector["the"] not in (vector["sat"], vector["cat"])
    assert {vector[word] for word in words if word not in ("The", "the", "sat")} == {vector["cat"]}
    counts = Counter(letter for word in {word for text in learnt for word in text.split()} for letter in word)
    known = {}
    for word, i in ids.items():
        row = lexicon.characters[i].tolist()
        assert len(row) == 16
        assert row[len(word) :] == [0] * (16 - len(word))
        for letter, code in zip(word, row, strict=False):
            assert known.setdefault(letter, code) == code
            assert (code == 1) == (counts[letter] < 2)
    assert len({code for code in known.values() if code > 1}) == sum(count > 1 for count in counts.values())
    assert len(lexicon.vectors) == len(lexicon.characters) == lexicon.tokenizer.vocab_size


COLOURS, ANIMALS, PLAIN = ("red", "blue", "green"), ("cat", "dog", "owl"), ("on", "mat", "hat", "ran", "sat")


def asked(count, seed):
    """Each document has a colour and an animal, or neither; the question says which of them is wanted."""
    chance = np.random.default_rng(seed)
    found = []
    for i in range(count):
        words = chance.choice(PLAIN, chance.integers(4, 12)).tolist()
        kind, wanted, other = ("colour", COLOURS, ANIMALS) if i % 2 else ("animal", ANIMALS, COLOURS)
        answer = None
        if i % 5:
            answer = str(chance.choice(wanted))
            for word in (answer, str(chance.choice(other))):
                words.insert(int(chance.integers(0, len(words) + 1)), word)
        found.append(question(f"{seed}-{i}", f"which {kind}", " ".join(words), answer))
    return found


def test_it_learns_to_answer():
    records = asked(30, 0)
    task = define_task("answer", records, metric="exact_match")
    tuning = Tuning(epochs=1, min_steps=25, batch_tokens=300, validations=2, learning_rate=1e-9)
    outcome, validation = answered_by_qanet(task, records, records, records, tuning, blocks=1, length=24, seed=0)
    assert validation == outcome.value("exact_match") > 0.9
    assert outcome.value("NoAns_exact") > 0.9
