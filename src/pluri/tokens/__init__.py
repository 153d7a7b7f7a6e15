"""Tokens: tokenizers, and the store that holds a corpus as ids."""

from pluri.tokens.prepare import prepare
from pluri.tokens.ragged import Ragged
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer, kmers
from pluri.tokens.training import train_tokenizer

__all__ = ["Ragged", "TokenStore", "Tokenizer", "kmers", "prepare", "train_tokenizer"]
