"""Tokens: tokenizers, and the store that holds a corpus as ids."""
