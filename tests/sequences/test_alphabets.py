import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.errors import DataError
from pluri.sequences.alphabets import DNA, PROTEIN, alphabet_of


@given(st.text(alphabet=DNA.letters, min_size=1))
def test_the_other_strand_of_the_other_strand_is_the_sequence(text):
    assert DNA.reverse_complement(DNA.reverse_complement(text)) == text


def test_complements_are_those_of_iupac():
    assert DNA.reverse_complement("acgu RYSWKM") == "KMWSRYACGT"
    assert DNA.reverse_complement("BDHVN-") == "-NBDHV"


def test_lower_case_and_rna_are_the_same_letters():
    assert DNA.spelled("acg u\nN.") == "ACGTN-"
    assert PROTEIN.spelled("mU.") == "MU-"
    DNA.check("acguRYSWKMBDHVN.-", "here")
    PROTEIN.check("ACDEFGHIKLMNPQRSTVWYbzuoxj*", "here")


@pytest.mark.parametrize(
    ("alphabet", "text", "said"),
    [
        (DNA, "MKVLAAGE", "'L' is no letter of DNA (25% of the letters are none); this looks like protein"),
        (PROTEIN, "MK1", "'1' is no letter of protein (33% of the letters are none); take a tokenizer"),
        (DNA, "ACGé", "'É' is no letter of DNA"),
    ],
)
def test_what_is_in_another_alphabet(alphabet, text, said):
    with pytest.raises(DataError) as error:
        alphabet.check(text, "g.fa:3")
    assert str(error.value).startswith(f"g.fa:3: {said}")


def test_letters_tell_the_alphabet():
    assert alphabet_of(frozenset("ACGTN")) is DNA
    assert alphabet_of(frozenset(PROTEIN.letters)) is PROTEIN
    assert alphabet_of(frozenset("ACGUN")) is None
    assert alphabet_of(frozenset("abc")) is None
