import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluri.sequences import split_sentences


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Dr. Smith came in. ", "He sat down.  ", "Why?"]),
        ("zh", ["你好。", "他说：“走吧！”", "她没走。"]),
        ("ar", ["مرحبا بك. ", "كيف حالك؟ ", "بخير."]),
        ("xx", ["One. ", "Two."]),
    ],
)
def test_sentences(language, sentences):
    assert split_sentences("".join(sentences), language) == sentences


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("ab. \n?！。“”\t"), max_size=80) | st.text(max_size=40))
def test_the_sentences_cover_the_text(text):
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert all(sentence.strip() for sentence in sentences) or len(sentences) == 1


def test_long_texts_are_cut_at_the_same_places_as_short_ones():
    text = "It rained all day in town. Was it cold? " * 3000
    assert split_sentences(text) == ["It rained all day in town. ", "Was it cold? "] * 3000


@pytest.mark.parametrize("unit", ["ACGT", "“ab.", "“", "a.", " \n"])
def test_time_grows_with_the_length(unit):
    start = time.process_time()
    assert "".join(split_sentences(unit * (400_000 // len(unit)))) == unit * (400_000 // len(unit))
    assert time.process_time() - start < 8
