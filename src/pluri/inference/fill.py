"""Filling in blanks: what a masked-token model thinks should stand there.

Legend: P blanks, V vocabulary, k guesses.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer

_BLANK = "[MASK]"


def fill(text: str, folder: str | Path, *, top_k: int = 5) -> list[dict[str, Any]]:
    """As `fill_blanks`, with the model of a folder. UsageError if it has no head that predicts tokens."""
    model, tokenizer = load_model(folder)
    if model.config.causal:
        do = "let it go on from where the blank is: pluri generate"
        raise UsageError("this model reads from left to right and fills no blanks", where=str(folder), do=do)
    if "masked" not in model.heads:
        do = "give a model as pretraining left it"
        raise UsageError("this model does not predict tokens", where=str(folder), do=do)
    return fill_blanks(model, tokenizer, text, top_k)


@torch.inference_mode()
def fill_blanks(model: Model, tokenizer: Tokenizer, text: str, top_k: int = 5) -> list[dict[str, Any]]:
    """The `top_k` likeliest tokens for each [MASK] of a text, with the keys of Hugging Face's fill-mask pipeline.

    text: its blanks are written [MASK], or as the tokenizer spells its mask token. With overlapping k-mers a blank
        stands for one k-mer.
    Returns, blank after blank and the likeliest first: {"blank": 0 for the first, "score": probability in the model's
    whole vocabulary, "token": id, "token_str", "sequence": the text with this blank filled}.
    UsageError: no blank, no mask token, more tokens than the model reads, or `top_k` below 1.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}", where="top_k", do="ask for at least 1 guess")
    ids = _encoded(tokenizer, text)
    blanks = np.flatnonzero(ids == tokenizer.mask_id)  # (P,)
    if not len(blanks):
        do = f"write {_BLANK} where a token is to be guessed"
        if tokenizer.kmer:
            do += f", which is {tokenizer.kmer} letters long, and at least as many letters beside it"
        raise UsageError(f"no {_BLANK} in {text!r}", where="text", do=do)
    before = [] if tokenizer.cls_id is None else [tokenizer.cls_id]
    after = [] if tokenizer.sep_id is None else [tokenizer.sep_id]
    whole = np.concatenate([before, ids, after]).astype(np.int32)
    if len(whole) > model.config.max_length:
        do = "shorten the text"
        raise UsageError(f"{len(whole)} tokens, the model reads {model.config.max_length}", where="text", do=do)
    batch = pack(Examples(whole, np.array([0, len(whole)])), model.config.max_length)
    model.eval()
    at = torch.from_numpy(blanks + len(before))
    logits = model.outputs("masked", model.hidden(batch), batch, at)  # (P, V)
    top = logits.float().softmax(-1).topk(min(top_k, logits.shape[1]))  # (P, k)
    found = []
    for i, (scores, tokens) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        for score, token in zip(scores, tokens, strict=True):
            filled = ids.copy()
            filled[blanks[i]] = token
            token_str = tokenizer.raw.decode([token], skip_special_tokens=False)
            guess = {"blank": i, "score": score, "token": token, "token_str": token_str}
            found.append({**guess, "sequence": _text(tokenizer, filled, keep_blanks=len(blanks) > 1)})
    return found


def _encoded(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """The ids of a text with its blanks, no special tokens around it."""
    if tokenizer.mask_id is None:
        raise UsageError("this tokenizer has no mask token", where="tokenizer", do="use one made for masked tokens")
    mask = tokenizer.tokens([tokenizer.mask_id])[0]
    text = text.replace(_BLANK, mask)
    if not tokenizer.kmer:
        return np.array(tokenizer.encode_batch([text])[0].ids, np.int64)
    # The letters beside a blank must not be joined across it to a k-mer.
    parts = [e.ids for e in tokenizer.encode_batch(text.split(mask))]
    ids = parts[0]
    for part in parts[1:]:
        ids = [*ids, tokenizer.mask_id, *part]
    return np.array(ids, np.int64)


def _text(tokenizer: Tokenizer, ids: NDArray[np.int64], *, keep_blanks: bool) -> str:
    return tokenizer.raw.decode(ids.tolist(), skip_special_tokens=False) if keep_blanks else tokenizer.decode(ids)
