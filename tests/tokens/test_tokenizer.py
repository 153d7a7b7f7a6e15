import json

import numpy as np
import pytest
import tokenizers
from transformers import AutoTokenizer

from pluri.errors import DataError
from pluri.tokens.tokenizer import Tokenizer, kmers
from pluri.tokens.training import train_tokenizer

TEXTS = [
    "The quick brown fox didn't jump over 12 lazy dogs.",
    "Größe und Übermut tun selten gut, sagte sie.",
    "我们在北京看见了很多人。他们都很高兴！",
    "مرحبا بكم في المدينة القديمة، كيف حالكم؟",
    "def f(x): return x  # twice  spaced",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(TEXTS * 3), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["wordpiece", "bpe", "unigram", "char", "byte_bpe"])
def tokenizer(request, corpus):
    return train_tokenizer(corpus, kind=request.param, vocab_size=500)


def test_transformers_opens_it_and_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "", "Ünseen wörds ☃ 雪", "a\nb\tc"]:
        ours = tokenizer.encode_batch([text])[0].ids
        assert theirs(text)["input_ids"] == [tokenizer.cls_id, *ours, tokenizer.sep_id]
        assert theirs.decode(ours, skip_special_tokens=True) == tokenizer.decode(ours)
    theirs.save_pretrained(tmp_path / "theirs")
    assert Tokenizer.load(tmp_path / "theirs").hash == tokenizer.hash
    pair = theirs("The fox", "jump")
    assert pair["input_ids"].count(tokenizer.sep_id) == 2
    assert max(pair["token_type_ids"]) == 1
    named = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id)
    assert named == (0, 1, 2, 3, 4)
    assert theirs.decode(theirs(TEXTS[0])["input_ids"], skip_special_tokens=True) == tokenizer.decode(
        tokenizer.encode_batch(TEXTS[:1])[0].ids
    )


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert tokenizer.special_ids.tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.vocab_size == max(tokenizer.raw.get_vocab().values()) + 1 <= 500


def test_mask_in_text_is_the_mask_token(tokenizer):
    assert tokenizer.mask_id in tokenizer.encode_batch(["The quick [MASK] fox"])[0].ids


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.hash == tokenizer.hash
    assert [e.ids for e in loaded.encode_batch(TEXTS)] == [e.ids for e in tokenizer.encode_batch(TEXTS)]
    assert np.array_equal(loaded.continues_word, tokenizer.continues_word)
    assert loaded.special_ids.tolist() == tokenizer.special_ids.tolist()


def test_another_vocabulary_has_another_hash(corpus):
    assert train_tokenizer(corpus, vocab_size=100).hash != train_tokenizer(corpus, vocab_size=101).hash


def words(tokenizer, text: str) -> list[str]:
    """Pieces grouped into words by continues_word."""
    ids = tokenizer.encode_batch([text])[0].ids
    groups: list[list[int]] = []
    for index in ids:
        if tokenizer.continues_word[index] and groups:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [tokenizer.decode(group).strip() for group in groups]


def test_pieces_group_into_words(tokenizer):
    assert words(tokenizer, "The quick brown fox, sagte Größe")[-6:] == ["quick", "brown", "fox", ",", "sagte", "Größe"]


def test_scripts_without_spaces_are_not_one_word(corpus):
    assert words(train_tokenizer(corpus, kind="char", vocab_size=500), "我们在 the") == ["我", "们", "在", "the"]


def test_wordpiece_words(corpus):
    tokenizer = train_tokenizer(corpus, kind="wordpiece", vocab_size=120)
    pieces = tokenizer.tokens(range(tokenizer.vocab_size))
    assert [piece for piece, on in zip(pieces, tokenizer.continues_word, strict=True) if on] == [
        piece for piece in pieces if piece.startswith("##") and piece[2].isalnum()
    ]


def published(folder, names: dict) -> None:
    """A folder as Hugging Face publishes RoBERTa: other names, other ids, truncation left on."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "Ġa", "<mask>"]
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    raw.enable_truncation(2)
    raw.enable_padding()
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "mask_token": "<mask>"},
    ],
)
def test_published_folders(tmp_path, names):
    published(tmp_path, names)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.mask_id) == (
        0,
        1,
        2,
        3,
        7,
    )
    assert tokenizer.special_ids.tolist() == [0, 1, 2, 3, 7]
    assert len(tokenizer.encode_batch(["abababab"])[0].ids) == 8
    tokenizer.save(tmp_path / "copy", model_max_length=9)
    copied = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text())
    assert copied == names | {"model_max_length": 9}
    assert Tokenizer.load(tmp_path / "copy").hash == tokenizer.hash


def test_a_tokenizer_without_special_tokens(tmp_path):
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.mask_id is None
    assert len(tokenizer.special_ids) == 0
    assert tokenizer.decode([0, 1, 0]) == "a b a"


@pytest.mark.parametrize(
    ("content", "what"), [(None, "no such file"), ("{", "cannot be read"), ("{}", "not a tokenizer")]
)
def test_bad_folders(tmp_path, content, what):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=what) as caught:
        Tokenizer.load(tmp_path)
    assert "tokenizer.json" in str(caught.value)


def test_kmers():
    assert kmers("acgta", 3) == "ACG CGT GTA"
    assert kmers("AC GT\nA", 3) == "ACG CGT GTA"
    assert kmers("AC", 3) == "AC"
    assert kmers("", 3) == ""
