import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pluri.errors import DataError, UsageError
from pluri.sequences.alphabets import DNA, PROTEIN
from pluri.tokens import training
from pluri.tokens.prepare import prepare
from pluri.tokens.tokenizer import Tokenizer, kmers
from pluri.tokens.training import train_tokenizer

ALPHABET = "abcdefg ,.é中文字ابتกข"


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join((ALPHABET + " " + ALPHABET[::-1]) * 2 + " the cat sat" * i for i in range(9)))
    return path


@pytest.fixture(scope="module")
def trained(text_file):
    return {
        kind: train_tokenizer(text_file, kind=kind, vocab_size=300) for kind in ("bpe", "unigram", "char", "byte_bpe")
    }


@pytest.mark.parametrize("kind", ["char", "byte_bpe"])
@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from(ALPHABET), max_size=40))
def test_decoding_gives_the_text_back(trained, kind, text):
    text = unicodedata.normalize("NFC", text)
    assert trained[kind].decode(trained[kind].encode_batch([text])[0].ids) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from(ALPHABET), max_size=40))
def test_decoding_gives_the_text_back_with_single_spaces(trained, kind, text):
    decoded = trained[kind].decode(trained[kind].encode_batch([text])[0].ids)
    assert decoded.split() == unicodedata.normalize("NFC", text).split()


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_bytes_have_no_unknown_token(trained, text):
    tokenizer = trained["byte_bpe"]
    ids = tokenizer.encode_batch([text])[0].ids
    assert tokenizer.unk_id not in ids or "[UNK]" in text
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_gpt2_has_one_special_token_and_transformers_puts_it_before_a_text(text_file, tmp_path):
    ours = train_tokenizer(text_file, kind="gpt2", vocab_size=300)
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (ours.cls_id, ours.sep_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 0, 0, 0)
    assert ours.special_ids.tolist() == [0]
    assert (ours.pad_id, ours.mask_id) == (None, None)
    assert theirs.encode("the cat") == [0, *ours.encode_batch(["the cat"])[0].ids]


def test_char_keeps_the_most_frequent_characters(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("aaabbc c")
    tokenizer = train_tokenizer(path, kind="char", vocab_size=8)
    assert tokenizer.tokens(range(5, 8)) == ["a", "b", "c"]
    assert tokenizer.encode_batch(["cab "])[0].ids == [7, 5, 6, tokenizer.unk_id]


def test_unigram_learns_frequent_whole_words(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("wonderful ordinary\n" * 50 + "".join(f"x{i} y{i}\n" for i in range(50)))
    tokenizer = train_tokenizer(path, kind="unigram", vocab_size=100)
    assert tokenizer.tokens(tokenizer.encode_batch(["wonderful ordinary"])[0].ids) == ["▁wonderful", "▁ordinary"]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "char", "byte_bpe"])
def test_lowercase(text_file, kind):
    tokenizer = train_tokenizer(text_file, kind=kind, vocab_size=400, lowercase=True)
    upper, lower = tokenizer.encode_batch(["THE CAT É", "the cat é"])
    assert upper.ids == lower.ids
    assert tokenizer.encode_batch(["e"])[0].ids != tokenizer.encode_batch(["é"])[0].ids  # accents are kept


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "char", "byte_bpe", "kmer"])
def test_training_is_repeatable(text_file, kind):
    assert len({train_tokenizer(text_file, kind=kind, vocab_size=300, k=2).hash for _ in range(3)}) == 1


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_many_different_characters_are_kept(tmp_path, kind):
    path = tmp_path / "t.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(2000)))
    tokenizer = train_tokenizer(path, kind=kind, vocab_size=4000)
    assert tokenizer.unk_id not in tokenizer.encode_batch([path.read_text()])[0].ids


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("dna") / "g.fa"
    letters = np.array(list("ACGT"))[np.arange(3000) * 7919 % 97 % 4]
    path.write_text(">g\n" + "".join(letters) + "N\n>h\n" + "".join(letters[::-1]).lower())
    return path


def test_dna_kmers_are_all_there(genome):
    tokenizer = train_tokenizer(genome, kind="kmer", k=4)
    assert tokenizer.vocab_size == 4**4 + 5
    assert tokenizer.tokens(tokenizer.encode_batch(["acgtnA"])[0].ids) == ["ACGT", "[UNK]", "[UNK]"]
    assert tokenizer.decode(tokenizer.encode_kmers("GATTACA")) == "GATTACA"
    assert not tokenizer.continues_word.any()


def test_kmers_through_transformers(genome, tmp_path):
    tokenizer = train_tokenizer(genome, kind="kmer", k=3)
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).hash == tokenizer.hash
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer.encode_batch(["GATTACAN"])[0].ids
    assert theirs(kmers("GATTACAN", 3))["input_ids"] == [tokenizer.cls_id, *ours, tokenizer.sep_id]


@pytest.mark.parametrize(("k", "vocab_size"), [(6, 8000), (4, 50), (1, 8), (12, 1000)])
def test_fast_kmers_are_those_of_the_library(genome, k, vocab_size):
    tokenizer = train_tokenizer(genome, kind="kmer", k=k, vocab_size=vocab_size)

    @settings(max_examples=30, deadline=None)
    @given(st.text(st.sampled_from("ACGTacgtN \nß中"), max_size=30))
    def check(text):
        assert tokenizer.encode_kmers(text).tolist() == tokenizer.encode_batch([text])[0].ids

    check()


def test_a_sample_is_spread_over_the_whole_text(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAMPLE", 1000)
    seen = []
    monkeypatch.setattr(training, "_BUILDERS", {"char": lambda texts, *_: seen.extend(texts) or 1 / 0})
    path = tmp_path / "t.txt"
    path.write_text("\n".join(f"{i:09d}" for i in range(1600)))
    with pytest.raises(ZeroDivisionError):
        train_tokenizer(path, kind="char")
    numbers = [int(text) for text in seen]
    assert 500 <= 9 * len(numbers) <= 1000
    assert len(set(np.diff(numbers))) == 1
    assert numbers[0] == 0
    assert numbers[-1] > 1500


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"kind": "words"}, "'words'.*wordpiece"),
        ({"kind": "byte_bpe", "vocab_size": 200}, "at least 261"),
        ({"kind": "gpt2", "vocab_size": 200}, "at least 257"),
        ({"vocab_size": 5}, "at least 6"),
        ({"kind": "kmer", "k": 0}, "k from 1 to 12"),
    ],
)
def test_impossible_options(text_file, options, what):
    with pytest.raises(UsageError, match=what):
        train_tokenizer(text_file, **options)


def test_no_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": " "}\n')
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(path)


def test_the_letters_of_dna_and_protein_are_all_there(tmp_path):
    (tmp_path / "g.fa").write_text(">g\nAC\n")
    tokenizer = train_tokenizer(tmp_path / "g.fa", kind="dna")
    tokenizer.save(tmp_path / "dna")
    tokenizer = Tokenizer.load(tmp_path / "dna")
    text = "acgu NRYSWKMBDHV.-"
    assert tokenizer.alphabet is DNA
    assert tokenizer.decode(tokenizer.encode_kmers(text)) == "ACGTNRYSWKMBDHV--"
    assert tokenizer.encode_kmers(text).tolist() == tokenizer.encode_batch([text])[0].ids
    assert tokenizer.tokens(tokenizer.rare_ids) == list(DNA.rare)
    (tmp_path / "p.faa").write_text(">p\nMKBZUOXJ*\n")
    protein = train_tokenizer(tmp_path / "p.faa", kind="protein")
    assert protein.unk_id not in protein.encode_kmers("mkbzuoxj*")
    assert (protein.alphabet, train_tokenizer(tmp_path / "g.fa", kind="kmer", k=2).alphabet) == (PROTEIN, None)


def test_protein_is_no_dna(tmp_path):
    (tmp_path / "g.fa").write_text(">g\nACGTNN\n>h\nacgu\n")
    (tmp_path / "p.faa").write_text(">g\nACGT\n>p\nMKVL\n")
    with pytest.raises(DataError, match=r"p\.faa:3: 'L' is no letter of DNA .* looks like protein"):
        train_tokenizer(tmp_path / "p.faa", kind="dna")
    tokenizer = train_tokenizer(tmp_path / "g.fa", kind="dna")
    with pytest.raises(DataError, match=r"p\.faa:3: .* looks like protein"):
        prepare(tmp_path / "p.faa", tokenizer, tmp_path / "store", workers=1)
    ledger = prepare(tmp_path / "g.fa", tokenizer, tmp_path / "store", workers=1).manifest.ledger
    assert (ledger.kept, ledger.unk, ledger.rare_letters) == (10, 0, 2)


def test_words_are_what_stands_between_blanks(tmp_path):
    (tmp_path / "t.txt").write_text("n60 d12 ! n60\n\nn61  d12")
    tokenizer = train_tokenizer(tmp_path / "t.txt", kind="word")
    assert tokenizer.tokens(tokenizer.encode_batch(["n61 d12 n62 !"])[0].ids) == ["n61", "d12", "[UNK]", "!"]
