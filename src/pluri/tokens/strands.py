"""The other strand of DNA, in tokens: what pairs with each letter, read backwards.

Legend: n sequences of T tokens in all, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.runtime import Keys, uniform
from pluri.sequences.alphabets import DNA
from pluri.tokens.tokenizer import Tokenizer

_STRAND = 2**59  # the counter under which a strand is drawn


def complement_ids(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """Of each id that of the token's reverse complement (V,); special tokens are their own.

    UsageError if the tokens are no letters, or overlapping k-mers, of DNA.
    """
    unknown = tokenizer.unk_id
    if tokenizer.alphabet is not DNA or unknown is None:
        do = "leave it out, or take a tokenizer of the kind dna or kmer"
        raise UsageError("only DNA has another strand", where="reverse_complement", do=do)
    ids = np.arange(tokenizer.vocab_size, dtype=np.int32)
    vocabulary, special = tokenizer.raw.get_vocab(), set(tokenizer.special_ids.tolist())
    for piece, index in vocabulary.items():
        if index not in special:
            ids[index] = vocabulary.get(DNA.reverse_complement(piece), unknown)
    return ids


def strands_of(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    keys: Keys,
    complement: NDArray[np.int32],
    *,
    before: int = 0,
    after: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Sequences of which each is, by its own key and with probability 1/2, the other strand.

    ids: (T,). offsets: (n + 1,). keys: (n,). before, after: special tokens of each, which stay where they are.
    Returns the ids (T,), and the place that each came from (T,).
    """
    lengths, places = np.diff(offsets), np.arange(len(ids))
    turned = np.repeat(uniform(keys, _STRAND) < 0.5, lengths)
    begins, ends = np.repeat(offsets[:-1] + before, lengths), np.repeat(offsets[1:] - after, lengths)
    turned &= (begins <= places) & (places < ends)
    source = np.where(turned, begins + ends - 1 - places, places)
    return np.where(turned, complement[ids[source]], ids), source
