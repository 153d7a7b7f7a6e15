"""What a tokenizer puts before a text, and around and between the two sequences of a pair."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """A pair is `before`, the first sequence, `between`, the second sequence, `after`.

    before, between, after: int32, special tokens; `before` has at least one.
    types: uint8, the segment of each special token, in this order. first, second: the segments of the sequences.
    """

    before: NDArray[np.int32]
    between: NDArray[np.int32]
    after: NDArray[np.int32]
    types: NDArray[np.uint8]
    first: int
    second: int

    @property
    def num_special(self) -> int:
        return len(self.types)


def pair_template(tokenizer: Tokenizer) -> PairTemplate:
    """Read off a pair that the tokenizer made itself: BERT's [CLS] A [SEP] B [SEP], RoBERTa's <s> A </s></s> B </s>.

    A tokenizer that adds nothing, but has such tokens, gets BERT's. UsageError if no token comes before the first
    sequence.
    """
    piece = _piece(tokenizer)
    pair = tokenizer.raw.encode(piece, piece)
    belongs = [-1 if sequence is None else sequence for sequence in pair.sequence_ids]
    if -1 not in belongs and tokenizer.cls_id is not None and tokenizer.sep_id is not None:
        after = np.array([tokenizer.sep_id], np.int32)
        return PairTemplate(np.array([tokenizer.cls_id], np.int32), after, after, np.array([0, 0, 1], np.uint8), 0, 1)
    ids, types, whose = np.array(pair.ids, np.int32), np.array(pair.type_ids, np.uint8), np.array(belongs)
    first, second = np.flatnonzero(whose == 0), np.flatnonzero(whose == 1)
    if not first[0]:
        raise UsageError(
            "this tokenizer puts no token before a pair, to be read for its class, or for 'no answer'",
            where="tokenizer",
            do="take one with [CLS]",
        )
    return PairTemplate(
        before=ids[: first[0]],
        between=ids[first[-1] + 1 : second[0]],
        after=ids[second[-1] + 1 :],
        types=types[whose == -1],
        first=int(types[first[0]]),
        second=int(types[second[0]]),
    )


def before_text(tokenizer: Tokenizer) -> list[int]:
    """The special tokens that the tokenizer itself puts before a text: BERT's [CLS], Llama's <s>, none of GPT-2."""
    piece = _piece(tokenizer)
    framed, bare = (tokenizer.raw.encode(piece, add_special_tokens=special).ids for special in (True, False))
    return framed[: next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)]


def _piece(tokenizer: Tokenizer) -> str:
    """A text that has at least one token."""
    for text in ("a", *tokenizer.raw.get_vocab()):
        if tokenizer.raw.encode(text, add_special_tokens=False).ids:
            return text
    raise UsageError("this tokenizer has no tokens", where="tokenizer", do="train another")
