"""A start in closed form: what counting neighbours says, put into the embeddings before the first step.

A masked token is best guessed, at first, from the tokens beside it. For each distance d the pointwise mutual
information of a token and its neighbour at d is counted from the corpus; one truncated singular value decomposition
of all distances side by side factorizes it into token vectors and context vectors (Levy and Goldberg, "Neural word
embedding as implicit matrix factorization", 2014). With these in the tied token embedding and in the context
embedding, with log frequencies in the output bias, and with blocks that begin as the identity, the model *is* a naive
Bayes classifier of its blanks.

Legend: V vocabulary, D width, K distances.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluri.models.heads import Model
from pluri.runtime import permuted
from pluri.tokens.ragged import offsets_of, slices
from pluri.tokens.store import TokenStore

# Measured on a newspaper corpus, validation loss before the first step; see docs/log.md.
_DISCOUNT = 0.9  # subtracted from every count: seen once means little
_SMOOTHING = 0.75  # power of the neighbours' frequencies (Levy, Goldberg and Dagan 2015, section 3.2)
_FAR = 0.7  # weight of distances beyond 1 relative to the direct neighbours
_GAIN = 1.35  # factor on the logits, which the truncation has shrunk
_MAX_TOKENS = 8_000_000  # more text hardly moves the counts that matter, and would take long
_OVERSAMPLING, _POWER_ITERATIONS = 32, 3  # Halko, Martinsson and Tropp (2011), sections 4.2 and 4.5


def can_start(model: Model) -> bool:
    """Whether the model has what the closed form fills: context embeddings as wide as its blocks, and a masked head."""
    config = model.config
    return bool(config.context) and config.embedding_width == config.hidden_size and "masked" in model.heads


@torch.no_grad()
def spectral_start(model: Model, store: TokenStore, documents: NDArray[np.int64], seed: int = 0) -> None:
    """Fills the embeddings, the output bias and the last norm's gain from counts over `documents`, in place.

    Deterministic. Takes seconds: at most 8 million tokens are counted, of documents drawn by the seed.
    """
    config, tokenizer = model.config, store.tokenizer
    ids, sequence = _framed(store, _sample(store, documents, seed))
    vocab, width = config.vocab_size, config.hidden_size
    frequency = np.bincount(ids, minlength=vocab)
    context = model.body.embeddings.context
    assert context is not None
    parts = [_information(ids, sequence, d, vocab) * (1.0 if abs(d) == 1 else _FAR) for d in context.distances]
    stacked = torch.cat(parts, dim=1).coalesce()  # (V, K V)
    tokens, contexts = _factors(stacked, width, seed)  # (V, D), (K V, D)
    missing = [i for i in (tokenizer.mask_id, tokenizer.pad_id) if i is not None]
    tables = contexts.view(-1, vocab, width)
    tables[:, missing] = 0
    tokens[missing] = 0
    weights = torch.from_numpy(frequency / frequency.sum()).float()
    # The root mean square of a sum of independent neighbours' vectors: the norm divides by it, the gain restores it.
    size = (tables.square().mean(dim=2) @ weights).sum().sqrt()
    model.body.embeddings.tokens.weight.copy_(tokens)
    context.table[:-1].copy_(contexts)
    model.heads["masked"].get_parameter("bias").copy_(((weights + 1e-7) / (1 + vocab * 1e-7)).log())
    model.heads["masked"].get_parameter("gain").fill_(float(size) * _GAIN)


def _sample(store: TokenStore, documents: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    order = documents[permuted(np.arange(len(documents)), len(documents), seed)]
    return order[: 1 + np.searchsorted(np.cumsum(store.document_lengths[order]), _MAX_TOKENS)]


def _framed(store: TokenStore, documents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each document between [CLS] and [SEP], as the model will see it: ids and number of the document, both (T,)."""
    lengths = store.document_lengths[documents]
    ragged = store.gather(documents, np.zeros_like(documents), lengths)
    starts = offsets_of(lengths + 2)
    cls_id, sep_id = store.tokenizer.cls_id, store.tokenizer.sep_id
    assert cls_id is not None  # the objective has refused a store without them
    assert sep_id is not None
    ids = np.full(starts[-1], sep_id, np.int64)
    ids[starts[:-1]] = cls_id
    ids[slices(starts[:-1] + 1, lengths)] = ragged.ids
    return ids, np.repeat(np.arange(len(documents)), lengths + 2)


def _information(ids: NDArray[np.int64], sequence: NDArray[np.int64], distance: int, vocab: int) -> Tensor:
    """Positive pointwise mutual information of a token and its neighbour: sparse (V, V).

    distance: where the neighbour stands, negative before the token.
    """
    if distance < 0:
        ids, sequence, distance = ids[::-1], sequence[::-1], -distance
    inside = sequence[:-distance] == sequence[distance:]
    pairs, counts = np.unique(ids[:-distance][inside] * vocab + ids[distance:][inside], return_counts=True)
    first, second = np.divmod(pairs, vocab)
    smoothed = np.bincount(second, counts, vocab) ** _SMOOTHING
    expected = np.bincount(first, counts, vocab)[first] * (smoothed / smoothed.sum())[second]
    information = np.log((counts - _DISCOUNT) / expected)
    keep = information > 0
    index = torch.from_numpy(np.stack((first[keep], second[keep])))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(information[keep]).float(), (vocab, vocab), check_invariants=False
    ).coalesce()


def _factors(matrix: Tensor, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """`matrix` (R, C), sparse, as left @ right.T of that width, singular values shared: (R, width), (C, width).

    Randomized range finder with power iterations (Halko et al. 2011, algorithms 4.4 and 5.1).
    """
    rank = min(width + _OVERSAMPLING, *matrix.shape)
    transposed = matrix.t().coalesce()
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.sparse.mm(matrix, torch.randn(matrix.shape[1], rank, generator=generator)))[0]
    for _ in range(_POWER_ITERATIONS):
        other = torch.linalg.qr(torch.sparse.mm(transposed, basis))[0]
        basis = torch.linalg.qr(torch.sparse.mm(matrix, other))[0]
    left, values, right = torch.linalg.svd(torch.sparse.mm(transposed, basis).t(), full_matrices=False)
    root = values[:width].sqrt()
    factors = torch.zeros(matrix.shape[0], width), torch.zeros(matrix.shape[1], width)
    factors[0][:, : len(root)] = (basis @ left)[:, :width] * root
    factors[1][:, : len(root)] = right[:width].t() * root
    return factors
