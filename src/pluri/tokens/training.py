"""Making tokenizers of ten kinds for the user's own sequences."""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Raw

from pluri.errors import DataError, UsageError
from pluri.sequences import expand
from pluri.sequences.alphabets import DNA, PROTEIN, Alphabet
from pluri.tokens.sampling import balanced, sample
from pluri.tokens.tokenizer import Tokenizer, kmers

Kind = Literal["wordpiece", "bpe", "unigram", "char", "word", "byte_bpe", "gpt2", "kmer", "dna", "protein"]

SAMPLE = 20_000_000
"""Characters of text that a tokenizer is trained on at most; of a larger text, documents spread evenly over it."""

UNIGRAM_SAMPLE = 4_000_000
"""The same for unigram, whose training time grows with the square of text without spaces (1 million: a minute)."""

_PIECE = 10_000
"""Characters handed to a trainer at once: it never sees a longer stretch than this."""

_MOST_LETTERS = 38
"""Different letters in k-mers: 38 ** 12 is the largest such number that 64 bits hold (Tokenizer.encode_kmers)."""

_MARK = "\ue000"
_PRIVATE = 0xF0000
"""Private-use characters, which no text should have."""

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
"""The special tokens of every trained tokenizer but GPT-2's, at ids 0 to 4."""

_SPECIALS = list(SPECIAL_TOKENS.values())

_ALPHABETS = {"dna": DNA, "protein": PROTEIN}

_END = "<|endoftext|>"
"""GPT-2's only special token, here at id 0: it stands before and after every document."""


def train_tokenizer(
    sources: Iterable[str | Path] | str | Path,
    *,
    kind: Kind = "wordpiece",
    vocab_size: int = 8000,
    lowercase: bool = False,
    k: int = 6,
    sentinels: int = 0,
    sampling: float = 1.0,
    text_column: str = "text",
) -> Tokenizer:
    """Trains a tokenizer on files, folders, globs or URLs (see sequences.expand).

    kind: "wordpiece" as BERT; "bpe" and "unigram" on characters, as SentencePiece; "byte_bpe" on bytes, as RoBERTa: no
        unknown tokens; "gpt2": the same with <|endoftext|> as its only special token, for causal models; "char": each
        character, the space too, is a token; "word": whatever stands between blanks; "kmer": overlapping stretches of
        k letters; "dna", "protein": the letters of IUPAC's alphabet, whatever the text has of them.
    vocab_size: the most tokens, special ones included. The vocabulary may be smaller if the text has no more to give.
    lowercase: fold case (k-mers and letters of DNA and protein are always upper case). Accents are kept.
    k: letters of a k-mer, 1 to 12.
    sentinels: tokens <extra_id_0>, <extra_id_1> ... for spans that a decoder explains (T5 has 100), among vocab_size.
    sampling: each of the `sources`, say a file or folder of one language, counts in proportion to its characters to the
        power of this: 1 as they are, 0 all alike; what is smaller than its share is read several times (Conneau and
        Lample 2019, section 3.1).
    The same text gives the same tokenizer; only unigram's scores depend on the order in which its threads add up.
    Text is composed to Unicode NFC. bpe, unigram and wordpiece read any run of blanks as one space.
    UsageError: a vocabulary too small for the kind. DataError: a file cannot be read, there is no text, or it is none
    of DNA or protein where it should be.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"unknown kind of tokenizer {kind!r}", do=f"one of {', '.join(get_args(Kind))}")
    smallest = {kind: len(_SPECIALS) + len(alphabet.letters) for kind, alphabet in _ALPHABETS.items()}
    smallest |= {"byte_bpe": len(_SPECIALS) + 256, "gpt2": 1 + 256}
    smallest = sentinels + smallest.get(kind, len(_SPECIALS) + 1)
    if vocab_size < smallest:
        raise UsageError(f"vocab_size {vocab_size} is too small for {kind}", do=f"at least {smallest}")
    if kind == "kmer" and not 1 <= k <= 12:
        raise UsageError(f"k-mers of {k} letters", do="k from 1 to 12")
    if not 0 <= sampling <= 1:
        raise UsageError(f"sampling is {sampling}", where="sampling", do="give a number from 0 to 1")
    vocab_size -= sentinels
    limit = UNIGRAM_SAMPLE if kind == "unigram" else SAMPLE
    files = expand(sources)
    alphabet = _ALPHABETS.get(kind)
    if sampling == 1:
        texts = sample(files, text_column, limit, alphabet)[0]
    else:
        named = [sources] if isinstance(sources, str | Path) else list(dict.fromkeys(sources))
        texts = balanced([expand(source) for source in named], text_column, limit, sampling, alphabet)
    if not any(text.strip() for text in texts):
        raise DataError("there is no text to train on", where=files[0])
    raw = _kmer(texts, vocab_size, k) if kind == "kmer" else _BUILDERS[kind](texts, vocab_size, lowercase)
    raw.add_special_tokens([f"<extra_id_{i}>" for i in range(sentinels)])
    if kind == "gpt2":
        raw.post_processor = processors.TemplateProcessing(single=f"{_END} $A", special_tokens=[(_END, 0)])
        return Tokenizer(json.loads(raw.to_str()), _CAUSAL_CONFIG)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    kmer = k if kind == "kmer" else 1 if kind in _ALPHABETS else None
    return Tokenizer(json.loads(raw.to_str()), _config(kmer))


_CAUSAL_CONFIG: dict[str, Any] = {
    "bos_token": _END,
    "eos_token": _END,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
}


def _config(kmer: int | None) -> dict[str, Any]:
    """The tokenizer_config.json of every trained tokenizer but GPT-2's."""
    config: dict[str, Any] = {f"{role}_token": name for role, name in SPECIAL_TOKENS.items()}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["clean_up_tokenization_spaces"] = False
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return config if kmer is None else config | {"kmer": kmer}


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, len(text), _PIECE):
            yield text[start : start + _PIECE]


def _normalizer(lowercase: bool, *extra: normalizers.Normalizer) -> normalizers.Normalizer:
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else []), *extra]
    return normalizers.Sequence(steps)


def _words(raw: Raw, texts: list[str]) -> Counter[str]:
    """The words that the normalizer and pre-tokenizer make of the texts, with their counts, in the texts' order."""
    words: Counter[str] = Counter()
    for text in _pieces(texts):
        words.update(word for word, _ in raw.pre_tokenizer.pre_tokenize_str(raw.normalizer.normalize_str(text)))
    return words


def _learned(model: models.Model, trainer: trainers.Trainer, lists: Iterable[list[str]]) -> Raw:
    """The model trained on words that are ready, in lists."""
    raw = Raw(model)
    raw.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    raw.train_from_iterator(map("\n".join, lists), trainer)
    return raw


def _wordpiece(texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    """WordPiece as `tokenizers` trains it (pairs merged by frequency), but the same in every run.

    Its trainer numbers the pieces "##x" in the order of a randomly seeded hash map and breaks ties by these numbers.
    Here the first character of a word is replaced by a private-use one, so that plain BPE, which is repeatable, keeps
    beginnings and continuations apart; then the names are restored.
    """
    raw = Raw(models.WordPiece({}, unk_token="[UNK]"))
    bert = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    raw.normalizer = normalizers.Sequence([normalizers.NFC(), bert])
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece(cleanup=False)
    words = _words(raw, texts)
    firsts = sorted({word[0] for word in words})
    private = {first: chr(_PRIVATE + rank) for rank, first in enumerate(firsts)}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIALS, limit_alphabet=_alphabet(vocab_size), show_progress=False
    )
    lists = ([private[word[0]] + word[1:]] * count for word, count in words.items())
    learned = _learned(models.BPE(), trainer, lists).get_vocab()
    pieces = sorted(learned, key=lambda piece: learned[piece])
    names = [
        firsts[ord(p[0]) - _PRIVATE] + p[1:] if ord(p[0]) >= _PRIVATE else f"##{p}" for p in pieces[len(_SPECIALS) :]
    ]
    vocabulary = {name: index for index, name in enumerate([*_SPECIALS, *names])}
    raw.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    raw.add_special_tokens(_SPECIALS)
    return raw


def _alphabet(vocab_size: int) -> int:
    """Characters kept at most: Chinese has thousands, and each left out is an unknown token."""
    return max(1, vocab_size * 3 // 4)


def _spaced(raw: Raw, lowercase: bool) -> None:
    """Words carry their space as "▁", punctuation stands alone: decoding gives the text back, blanks made single."""
    raw.normalizer = _normalizer(lowercase, normalizers.Replace(Regex(r"\s+"), " "))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")])
    raw.decoder = decoders.Metaspace()


def _bpe(texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    raw = Raw(models.BPE(unk_token="[UNK]"))
    _spaced(raw, lowercase)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIALS,
        limit_alphabet=_alphabet(vocab_size),
        max_token_length=16,
        show_progress=False,
    )
    raw.train_from_iterator(_pieces(texts), trainer)
    return raw


def _unigram(texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    """Unigram (Kudo 2018), with whole words among the first candidates.

    The trainer of `tokenizers` looks for repeated stretches in the list of *distinct* words, so a frequent word that is
    part of no other is never a candidate, and text comes out in a fifth to a quarter more pieces. Here each word seen
    twice or more is listed a second time with a mark behind it; the mark is taken out of the model afterwards.
    """
    raw = Raw(models.Unigram())
    _spaced(raw, lowercase)
    words = _words(raw, texts)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size + 1, special_tokens=_SPECIALS, unk_token="[UNK]", show_progress=False
    )
    lists = ([word] * count + [word + _MARK] * (count > 1) for word, count in words.items())
    lister = _learned(models.Unigram(), trainer, lists)
    pieces = json.loads(lister.to_str())["model"]["vocab"]
    # Six digits: the same hash when other software reads and writes the file.
    kept = [(piece, round(score, 6)) for piece, score in pieces if _MARK not in piece]
    raw.model = models.Unigram(kept[:vocab_size], _SPECIALS.index("[UNK]"), False)
    raw.add_special_tokens(_SPECIALS)
    return raw


def _byte_bpe(texts: list[str], vocab_size: int, lowercase: bool, specials: Sequence[str] = _SPECIALS) -> Raw:
    raw = Raw(models.BPE())
    raw.normalizer = _normalizer(lowercase)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=16,
        show_progress=False,
    )
    raw.train_from_iterator(_pieces(texts), trainer)
    return raw


def _char(texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    """BPE with no merges: the model itself takes words apart into characters, faster than any pre-tokenizer."""
    normalizer = _normalizer(lowercase)
    counts: Counter[str] = Counter()
    for text in _pieces(texts):
        counts.update(normalizer.normalize_str(text))
    vocabulary = _numbered(counts, vocab_size)
    raw = Raw(models.BPE(vocabulary, [], unk_token="[UNK]"))
    raw.normalizer = normalizer
    raw.decoder = decoders.Fuse()
    raw.add_special_tokens(_SPECIALS)
    return raw


def _kmer(texts: list[str], vocab_size: int, k: int) -> Raw:
    """All k-mers of the letters in use (those above 1%), if they fit; otherwise the most frequent that were seen."""
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update("".join(text.split()).upper())
    common = sorted(letter for letter, count in letters.items() if count > 0.01 * letters.total())
    if len(common) ** k + len(_SPECIALS) <= vocab_size:
        counts = Counter("".join(letters) for letters in itertools.product(common, repeat=k))
    else:
        counts = Counter()
        usual = {letter for letter, _ in letters.most_common(_MOST_LETTERS)}
        for text in _pieces(texts):
            counts.update(kmer for kmer in kmers(text, k).split() if len(kmer) == k and usual.issuperset(kmer))
    return _word_level(_numbered(counts, vocab_size))


def _word(texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    normalizer = _normalizer(lowercase)
    counts = Counter(word for text in texts for word in normalizer.normalize_str(text).split())
    raw = _word_level(_numbered(counts, vocab_size))
    raw.normalizer = normalizer
    return raw


def _letters(alphabet: Alphabet, texts: list[str], vocab_size: int, lowercase: bool) -> Raw:
    del texts, vocab_size, lowercase  # nothing is learnt
    return _word_level({token: index for index, token in enumerate([*_SPECIALS, *alphabet.letters])})


def _word_level(vocabulary: dict[str, int]) -> Raw:
    raw = Raw(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(_SPECIALS)
    return raw


def _numbered(counts: Counter[str], vocab_size: int) -> dict[str, int]:
    """Special tokens, then the most frequent; ties in the order of the alphabet, so that training is repeatable."""
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return {token: index for index, token in enumerate([*_SPECIALS, *ranked][:vocab_size])}


_BUILDERS = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram, "byte_bpe": _byte_bpe, "char": _char}
_BUILDERS |= {"gpt2": functools.partial(_byte_bpe, specials=[_END]), "word": _word}
_BUILDERS |= {kind: functools.partial(_letters, alphabet) for kind, alphabet in _ALPHABETS.items()}
