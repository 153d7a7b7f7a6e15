import numpy as np
import pytest

from pluri.sequences import split_sentences
from pluri.tokens import encoding
from pluri.tokens.encoding import encode_documents
from pluri.tokens.training import Kind, train_tokenizer

SENTENCES = [
    "It rained in Oslo, again. ",
    "Was Dr. Ash cold? ",
    "She wasn't!\n",
    "他们都很高兴。",
    "我们走吧！",
    "Ende gut. ",
]
KINDS: list[Kind] = ["wordpiece", "bpe", "unigram", "char", "byte_bpe", "gpt2"]


def text_of(length: int) -> str:
    order = np.arange(length // 8) * 7919 % 101 % len(SENTENCES)
    return "".join(SENTENCES[i] for i in order)[:length]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.txt"
    path.write_text(text_of(5000))
    return {kind: train_tokenizer(path, kind=kind, vocab_size=320) for kind in KINDS}


def encoded(tokenizer, text: str):
    [(texts, result)] = encode_documents(tokenizer, [text])
    assert texts == [text]
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spaces", [True, False])
def test_windows_do_not_change_a_long_document(tokenizers, kind, spaces, monkeypatch):
    text = text_of(20_000) if spaces else "".join(text_of(20_000).split())
    monkeypatch.setattr(encoding, "_WINDOW", 1 << 30)
    whole = encoded(tokenizers[kind], text)
    monkeypatch.setattr(encoding, "_WINDOW", 1000)
    monkeypatch.setattr(encoding, "_CONTEXT", 60)
    windowed = encoded(tokenizers[kind], text)
    assert np.array_equal(windowed.ids, whole.ids)
    assert np.array_equal(windowed.sentences, whole.sentences)


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_begin_at_their_tokens(tokenizers, kind):
    tokenizer, text = tokenizers[kind], text_of(3000)
    result = encoded(tokenizer, text)
    pieces = np.split(result.ids, result.sentences)
    sentences = split_sentences(text)
    assert len(pieces) == len(sentences) > 100
    for piece, sentence in zip(pieces, sentences, strict=True):
        assert "".join(tokenizer.decode(piece).split()) == "".join(sentence.split())


def test_groups_keep_the_order_and_the_empty_documents(tokenizers, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH", 100)
    monkeypatch.setattr(encoding, "_WINDOW", 200)
    monkeypatch.setattr(encoding, "_CONTEXT", 20)
    tokenizer = tokenizers["char"]
    texts = ["", "abc", text_of(150), text_of(500), " ", "", text_of(90), text_of(201), "e"]
    groups = list(encode_documents(tokenizer, texts))
    assert [text for group, _ in groups for text in group] == texts
    lengths = np.concatenate([result.lengths for _, result in groups])
    assert lengths.tolist() == [len(e.ids) for e in tokenizer.encode_batch(texts)]
    assert all(result.lengths.sum() == len(result.ids) for _, result in groups)
    assert max(len(group) for group, _ in groups) > 1


def test_one_giant_word(tokenizers):
    text = "a" * 80_000
    assert encoded(tokenizers["wordpiece"], text).ids.tolist() == [tokenizers["wordpiece"].unk_id]
    assert tokenizers["byte_bpe"].decode(encoded(tokenizers["byte_bpe"], text).ids) == text


def test_a_sentence_that_begins_with_a_dropped_character(tokenizers):
    result = encoded(tokenizers["wordpiece"], "It rained. \u0001She wasn't!")
    assert tokenizers["wordpiece"].decode(result.ids[result.sentences[0] :]).startswith("She")


def test_kmers_of_a_long_sequence(tmp_path):
    path = tmp_path / "g.fa"
    letters = "".join("ACGT"[i] for i in np.arange(70_000) * 7919 % 97 % 4)
    path.write_text(f">g\n{letters}\n")
    tokenizer = train_tokenizer(path, kind="kmer", k=5)
    result = encoded(tokenizer, letters)
    assert len(result.ids) == 70_000 - 4
    assert tokenizer.decode(result.ids) == letters
    assert len(result.sentences) == 0
