"""What denoising makes of the user's own lines: each way of breaking them, side by side."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np

from pluri.batches.example import IGNORE
from pluri.objectives.config import Corruption, Denoise
from pluri.objectives.denoise import Denoising
from pluri.runtime import sequence_keys
from pluri.sequences import read_records
from pluri.tokens.encoding import encode_documents
from pluri.tokens.ragged import Ragged
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer

_WHOLE: tuple[tuple[Corruption, ...], ...] = (*((kind,) for kind in get_args(Corruption)), ("infill", "permute"))
_SENTINELS = 20


@dataclass(frozen=True, slots=True)
class Corrupted:
    """One line, broken in one way. reads: what the encoder reads. writes: what the decoder is to write."""

    where: str
    kinds: tuple[Corruption, ...]
    text: str
    reads: str
    writes: str


def show_corruption(
    file: str | Path, tokenizer: str | Path | None = None, *, lines: int = 3, most: int = 60, language: str = "en"
) -> list[Corrupted]:
    """The first `lines` records of a file, each broken in every way, as in the first epoch of a run with seed 0.

    tokenizer: folder of a tokenizer, a store or a model; None = WordPiece, trained on the file itself.
    most: tokens of a record that are shown. language: ISO 639-1 code, for sentence boundaries.
    Sentinels are left out where the tokenizer has none. DataError: the file, or the tokenizer, cannot be read.
    """
    records = [record for record in islice(read_records(str(file)), lines) if record.text.strip()]
    reader = _tokenizer(file, tokenizer)
    found: list[Corrupted] = []
    for number, record in enumerate(records):
        ((_, encoded),) = encode_documents(reader, [record.text], language)
        ids, starts = encoded.ids[:most].astype(np.int32), encoded.sentences[encoded.sentences < most]
        tokens = Ragged(ids, np.array([0, len(ids)]))
        sentences = Ragged(starts.astype(np.int32), np.array([0, len(starts)]))
        for kinds in _WHOLE:
            if "sentinel" in kinds and len(reader.sentinel_ids) < 2:
                continue
            made = Denoising(Denoise(kinds=kinds), reader)(tokens, sentences, sequence_keys(0, 0, [number]))
            assert made.source is not None
            assert made.labels is not None
            written = np.where(made.labels == IGNORE, reader.unk_id or 0, made.labels)
            texts = [_text(reader, each) for each in (ids, made.source.input_ids[1:-1], written)]
            found.append(Corrupted(record.where, kinds, *texts))
    return found


def corruption_text(shown: list[Corrupted]) -> str:
    """For a reader at a terminal: what is read, and what is to be written where that is not the whole line."""
    lines: list[str] = []
    for each in shown:
        if not lines or each.kinds == _WHOLE[0]:
            lines.append(f"{each.where}\n  {'whole':16}{each.text}")
        lines.append(f"  {'+'.join(each.kinds):16}{each.reads}")
        if each.kinds in (("mass",), ("sentinel",)):
            lines.append(f"  {'  to write':16}{each.writes}")
    return "\n".join(lines)


def _tokenizer(file: str | Path, folder: str | Path | None) -> Tokenizer:
    if folder is None:
        return train_tokenizer(file, sentinels=_SENTINELS)
    inner = Path(folder) / "tokenizer"
    return Tokenizer.load(inner if inner.is_dir() else folder)


def _text(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """With its special tokens, which decoding leaves out elsewhere."""
    return " ".join(tokenizer.tokens(ids)) if tokenizer.kmer else tokenizer.raw.decode(ids.tolist(), False)
