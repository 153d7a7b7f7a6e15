"""Tokenizer: a thin face on the `tokenizers` library, kept as the two files that Hugging Face reads."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
from numpy.typing import ArrayLike, NDArray

from pluri.errors import DataError
from pluri.sequences.alphabets import Alphabet, alphabet_of
from pluri.tokens.esm import from_letters
from pluri.tokens.words import continuing

_USUAL_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<|endoftext|>"),
    "sep": ("[SEP]", "</s>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
_STAND_INS = {"cls": "bos", "sep": "eos"}


class Tokenizer:
    """Text to ids and back.

    raw: the tokenizers.Tokenizer, with truncation and padding off.
    vocab_size: the highest id + 1.
    pad_id, unk_id, cls_id, sep_id, mask_id: None if the tokenizer has no such token; beginning and end of sequence
        stand in for cls and sep. In GPT-2's, <|endoftext|> is both.
    special_ids: int64, every special id, ascending.
    kmer: the k of overlapping k-mers (1: the letters of DNA or protein), or None. Such a tokenizer is not one pass of
        `tokenizers` alone: its library cannot make overlapping tokens, so the text is first spelled out as
        "ACG CGT GTA" (`kmers`). Ids are then those of transformers.AutoTokenizer on `kmers(text, k)`, the convention
        of DNABERT (Ji et al. 2021).
    hash: sha256 of what it does: the canonical tokenizer.json and k.
    """

    def __init__(self, definition: dict[str, Any], config: dict[str, Any]) -> None:
        """definition, config: the contents of tokenizer.json and tokenizer_config.json."""
        self._definition = definition | {"truncation": None, "padding": None}
        self._config = config
        self.kmer: int | None = config.get("kmer")
        canonical = json.dumps(self._definition, ensure_ascii=False, sort_keys=True)
        self.raw = tokenizers.Tokenizer.from_str(canonical)
        self.hash = hashlib.sha256(f"{canonical}\n{self.kmer}".encode()).hexdigest()
        vocabulary = self.raw.get_vocab()
        names = _names(config, vocabulary)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            vocabulary.get(names.get(role) or "") for role in _USUAL_NAMES
        )
        added = {token: index for index, token in self.raw.get_added_tokens_decoder().items()}
        special = {index for token, index in added.items() if token.special}
        special |= {vocabulary[name] for name in names.values() if name in vocabulary}
        self.special_ids: NDArray[np.int64] = np.array(sorted(special), np.int64)

    @cached_property
    def sentinel_ids(self) -> NDArray[np.int32]:
        """The ids of <extra_id_0>, <extra_id_1> ..., as T5 calls them; empty if there are none."""
        ids: list[int] = []
        while (index := self.raw.token_to_id(f"<extra_id_{len(ids)}>")) is not None:
            ids.append(index)
        return np.array(ids, np.int32)

    @cached_property
    def continues_word(self) -> NDArray[np.bool_]:
        """bool [vocab_size]: whether a piece goes on with the word of the piece before it (see tokens/words.py)."""
        return continuing(self._definition, self.raw.get_vocab(), self.vocab_size, self.special_ids)

    @cached_property
    def alphabet(self) -> Alphabet | None:
        """What the letters of the k-mers are: DNA or protein; None of other tokenizers."""
        if not self.kmer:
            return None
        special = set(self.special_ids.tolist())
        pieces = (piece for piece, index in self.raw.get_vocab().items() if index not in special)
        return alphabet_of(frozenset(letter for piece in pieces for letter in piece))

    def encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """One encoding a text: no special tokens added, nothing cut off. Offsets of k-mers are those of `kmers`."""
        spelled = [kmers(self._letters(text), self.kmer) for text in texts] if self.kmer else texts
        return self.raw.encode_batch(list(spelled), add_special_tokens=False)

    def encode_kmers(self, text: str) -> NDArray[np.int64]:
        """The ids of a k-mer tokenizer for one sequence of any length: those of encode_batch, but much faster."""
        assert self.kmer is not None
        assert self.unk_id is not None
        codes, ids, letters = self._kmer_table
        symbols = np.frombuffer(self._letters(text).encode("utf-32-le"), "<u4")
        if len(symbols) < self.kmer:
            return np.full(min(1, len(symbols)), self.unk_id, np.int64)
        ranks = np.minimum(np.searchsorted(letters, symbols), len(letters) - 1)
        known = letters[ranks] == symbols
        length = len(symbols) - self.kmer + 1
        numbers, whole = np.zeros(length, np.int64), np.ones(length, bool)
        for i in range(self.kmer):
            numbers = numbers * len(letters) + ranks[i : i + length]
            whole &= known[i : i + length]
        places = np.minimum(np.searchsorted(codes, numbers), len(codes) - 1)
        return np.where(whole & (codes[places] == numbers), ids[places], self.unk_id)

    @cached_property
    def rare_ids(self) -> NDArray[np.int64]:
        """The ids with an ambiguous or rare letter of the alphabet; empty without one."""
        rare = set(self.alphabet.rare) if self.alphabet else set()
        vocabulary, special = self.raw.get_vocab(), set(self.special_ids.tolist())
        found = [index for piece, index in vocabulary.items() if index not in special and rare.intersection(piece)]
        return np.array(sorted(found), np.int64)

    def _letters(self, text: str) -> str:
        return self.alphabet.spelled(text) if self.alphabet else "".join(text.split()).upper()

    @cached_property
    def _kmer_table(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
        """k-mers as numbers to the base of their letters, ascending; their ids; the letters' code points, ascending."""
        kmers = {piece: index for piece, index in self.raw.get_vocab().items() if index not in self.special_ids}
        letters = sorted({letter for piece in kmers for letter in piece})
        rank = {letter: index for index, letter in enumerate(letters)}
        numbers = [functools.reduce(lambda n, letter: n * len(letters) + rank[letter], piece, 0) for piece in kmers]
        order = np.argsort(numbers)
        codes, ids = np.array(numbers, np.int64)[order], np.array(list(kmers.values()), np.int64)[order]
        return codes, ids, np.array([ord(letter) for letter in letters], np.uint32)

    def tokens(self, ids: ArrayLike) -> list[str]:
        """The piece of each id, as the vocabulary spells it; "" for an id that it lacks."""
        return [self.raw.id_to_token(int(index)) or "" for index in np.asarray(ids).reshape(-1)]

    def decode(self, ids: ArrayLike) -> str:
        """The text of a sequence of ids, special tokens left out."""
        kept = [int(index) for index in np.asarray(ids).reshape(-1) if index not in self.special_ids]
        if self.kmer:
            pieces = self.tokens(kept)
            return "".join(pieces[:1] + [piece[-1:] for piece in pieces[1:]])
        return self.raw.decode(kept)

    def save(self, folder: str | Path, **config: Any) -> None:
        """Writes tokenizer.json and tokenizer_config.json; transformers.AutoTokenizer opens the folder as it is.

        config: more keys for tokenizer_config.json, such as model_max_length or model_input_names.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / "tokenizer.json", self._definition)
            _write(folder / "tokenizer_config.json", self._config | config)
        except OSError as error:
            do = "choose another folder"
            raise DataError(f"cannot write the tokenizer: {error.strerror}", where=str(folder), do=do) from None

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Opens a folder with tokenizer.json, Pluri's or Hugging Face's. DataError if it is missing or damaged."""
        folder = Path(folder)
        config = _read(folder / "special_tokens_map.json") | _read(folder / "tokenizer_config.json")
        if config.get("tokenizer_class") == "EsmTokenizer" and not (folder / "tokenizer.json").exists():
            definition, config = from_letters(folder / "vocab.txt", config)
        else:
            definition = _read(folder / "tokenizer.json", needed=True)
        try:
            return cls(definition, config)
        except Exception as error:  # the library raises bare Exception for a definition that it cannot use
            raise DataError(f"not a tokenizer: {error}", where=str(folder / "tokenizer.json")) from None


def kmers(text: str, k: int) -> str:
    """The overlapping k-mers of a sequence, with spaces between: kmers("acgta", 3) = "ACG CGT GTA".

    Upper case, blanks taken out; a sequence shorter than k is one piece. This is the text that AutoTokenizer wants.
    """
    letters = "".join(text.split()).upper()
    return " ".join(letters[i : i + k] for i in range(max(1, len(letters) - k + 1)))


def _names(config: dict[str, Any], vocabulary: dict[str, int]) -> dict[str, str | None]:
    """Which token plays each role: what the configuration says, else the usual name, if the vocabulary has it."""
    names: dict[str, str | None] = {}
    for role, usual in _USUAL_NAMES.items():
        said = [config.get(f"{key}_token") for key in (role, _STAND_INS.get(role))]
        spelled = [token.get("content") if isinstance(token, dict) else token for token in said]
        names[role] = next((name for name in [*spelled, *usual] if name in vocabulary), None)
    return names


def _read(path: Path, *, needed: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            do = "name a folder made by `pluri tokenizer`, or saved by Hugging Face with its tokenizer.json"
            raise DataError("no such file", where=str(path), do=do) from None
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), do="restore the file") from None
    if not isinstance(value, dict):
        raise DataError("not a JSON object", where=str(path), do="restore the file")
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    """Through a temporary name, so that a crash leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=False, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
