"""Several token stores read as one: of several languages, or of several domains."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pluri.errors import StoreError, UsageError
from pluri.tokens.ragged import offsets_of
from pluri.tokens.shards import JoinedShards
from pluri.tokens.store import Ledger, TokenStore
from pluri.tokens.tokenizer import Tokenizer


class JoinedStore(TokenStore):
    """The documents of one store after those of the other. Nothing is copied but the indices of documents.

    stores: they. bounds: int64 (stores + 1), where each one's documents begin among all. manifest: the first one's,
    with the sums of documents, tokens and ledgers.
    StoreError: they were made with different tokenizers.
    """

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        first = stores[0]
        for store in stores[1:]:
            if store.manifest.tokenizer_hash != first.manifest.tokenizer_hash:
                what = f"was made with another tokenizer than {first.where}"
                raise StoreError(what, where=store.where, do="prepare all of them with one tokenizer")
        self.stores, self.path, self.where = stores, first.path, first.where
        self.remote = any(store.remote for store in stores)
        self.bounds = offsets_of(np.array([store.num_documents for store in stores], np.int64))
        self._shards = JoinedShards([store._shards for store in stores])
        sizes = np.concatenate([np.diff(store._shard_starts) for store in stores])
        self._shard_starts = offsets_of(sizes)
        before = offsets_of(np.array([store._shard_starts[-1] for store in stores], np.int64))[:-1]
        starts = [store._document_starts + base for store, base in zip(stores, before, strict=True)]
        self._document_starts = np.concatenate(starts)
        self.document_lengths: NDArray[np.int64] = np.concatenate([store.document_lengths for store in stores])
        self.unigram_counts: NDArray[np.int64] = np.sum([store.unigram_counts for store in stores], axis=0)
        self.num_documents, self.num_tokens = int(self.bounds[-1]), sum(store.num_tokens for store in stores)
        ledgers = [store.manifest.ledger.model_dump() for store in stores]
        ledger = Ledger(**{name: sum(each[name] for each in ledgers) for name in ledgers[0]})
        sums = {"documents": self.num_documents, "tokens": self.num_tokens, "ledger": ledger}
        self.manifest = first.manifest.model_copy(update=sums)

    @cached_property
    def hash(self) -> str:
        """sha256 over theirs, in order."""
        return hashlib.sha256(json.dumps([store.hash for store in self.stores]).encode()).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.stores[0].tokenizer

    def verify(self) -> None:
        for store in self.stores:
            store.verify()


def open_stores(places: str | Path | Mapping[str, str | Path]) -> TokenStore:
    """One store, or several by their names, joined. UsageError: none is named. StoreError: as `TokenStore.open`."""
    if not isinstance(places, Mapping):
        return TokenStore.open(places)
    if not places:
        raise UsageError("no store is named", where="store", do='give such as store = {en = "en/store"}')
    return JoinedStore([TokenStore.open(place) for place in places.values()])
