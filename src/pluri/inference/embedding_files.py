"""Vectors of the records of files, written as .npy, .parquet or word2vec text."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pluri.checkpoints.checkpoint import atomic_file
from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.inference.embeddings import Embedded, Pooling, embed_texts
from pluri.inference.word_vectors import word_vectors
from pluri.runtime import rank
from pluri.sequences import expand, read_records
from pluri.tokens.tokenizer import Tokenizer

Named = tuple[list[str | None], Embedded]
"""A chunk of vectors, and the ids of its records."""

_NPY_HEADER = 128
"""Bytes before the data of a .npy file: room for any shape, filled in when the number of rows is known."""


def embed(
    sources: Iterable[str | Path] | str | Path,
    folder: str | Path,
    output: str | Path,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    max_length: int | None = None,
    text_column: str = "text",
) -> dict[str, int]:
    """Writes the vector of each record of some files; see `embed_texts` for the options.

    output: by its suffix. .npy: float32 (N, D), in the order of the records. .parquet: a row a record, `id` (null where
        the input gives none), `text` and `vector`; with pooling "token" also `tokens`, and `vector` has one vector for
        each. .txt: word2vec text, "N D", then a record's id, or its text without one, and its vector a line, blanks
        written as "_".
    The file appears when it is whole; what stood there stays until then.
    Returns {"records", "width", "truncated"}: truncated records were longer than `max_length`.
    UsageError: another suffix, or pooling "token" to anything but .parquet. DataError: see
        read_records, or the file cannot be written.
    """
    output = Path(output)
    if output.suffix not in _WRITERS:
        do = f"end it in one of {', '.join(_WRITERS)}"
        raise UsageError(f"unknown format {output.suffix!r}", where=str(output), do=do)
    if pooling == "token" and output.suffix != ".parquet":
        raise UsageError("vectors of tokens need a table", where=str(output), do="end it in .parquet")
    files = expand(sources)
    model, tokenizer = load_model(folder)
    ids: deque[str | None] = deque()  # of the records that were read and not yet written

    def texts() -> Iterator[str]:
        for record in (record for file in files for record in read_records(file, text_column=text_column)):
            ids.append(record.id)
            yield record.text

    chunks = embed_texts(model, tokenizer, texts(), pooling=pooling, normalize=normalize, max_length=max_length)
    done = {"records": 0, "width": model.config.hidden_size, "truncated": 0}

    def counted() -> Iterator[Named]:
        for chunk in chunks:
            yield [ids.popleft() for _ in chunk.texts], chunk
            done["records"] += len(chunk.texts)
            done["truncated"] += chunk.truncated

    if rank() > 0:  # it does its share of the work, and process 0 writes
        deque(counted(), 0)
        return done
    with atomic_file(output) as file:
        _WRITERS[output.suffix](file, counted(), tokenizer, pooling, done)
    return done


def embed_words(
    sources: Iterable[str | Path] | str | Path,
    folder: str | Path,
    output: str | Path,
    *,
    layers: Sequence[int] | None = None,
    max_length: int | None = None,
    text_column: str = "text",
) -> dict[str, int]:
    """Writes the vector of each word of some files; see `word_vectors`, which tells what a word is.

    output: .parquet, a row a word: `text`, which record it is of, counted from 0; `place`, which word of it; `word`;
        and its vector in each layer, `layer_0`, `layer_1` ...
    layers: by default the last alone.
    Returns {"records", "words", "width", "truncated"}: truncated words stood beyond `max_length`.
    UsageError: another suffix, and see `word_vectors`. DataError: see read_records, or the file cannot be written.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise UsageError("vectors of words need a table", where=str(output), do="end it in .parquet")
    files = expand(sources)
    model, tokenizer = load_model(folder)
    wanted = [model.config.num_layers] if layers is None else list(layers)
    done = {"records": 0, "words": 0, "width": model.config.hidden_size, "truncated": 0}
    if rank() > 0:  # words are not shared out
        return done

    def texts() -> Iterator[str]:
        for record in (record for file in files for record in read_records(file, text_column=text_column)):
            done["records"] += 1
            yield record.text

    columns = [("text", pa.int64()), ("place", pa.int32()), ("word", pa.string())]
    columns += [(f"layer_{layer}", pa.list_(pa.float32(), done["width"])) for layer in wanted]
    chunks = word_vectors(model, tokenizer, texts(), layers=wanted, max_length=max_length)
    with atomic_file(output) as file, pq.ParquetWriter(file, pa.schema(columns), compression="zstd") as writer:
        for chunk in chunks:
            flat = [
                pa.FixedSizeListArray.from_arrays(pa.array(each.reshape(-1)), done["width"]) for each in chunk.vectors
            ]
            writer.write_table(
                pa.table([chunk.text, chunk.place.astype(np.int32), chunk.words, *flat], schema=pa.schema(columns))
            )
            done["words"] += len(chunk.words)
            done["truncated"] += chunk.cut
    return done


def _npy(file: BinaryIO, chunks: Iterator[Named], _: Tokenizer, __: str, done: dict[str, int]) -> None:
    file.write(bytes(_NPY_HEADER))
    for _ids, chunk in chunks:
        file.write(np.ascontiguousarray(chunk.vectors, "<f4").data)
    # Format version 1.0: magic, version, length of the rest, a literal padded with blanks to the full length.
    shape = f"({done['records']}, {done['width']})"
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(_NPY_HEADER - 11) + "\n"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + (_NPY_HEADER - 10).to_bytes(2, "little") + text.encode("latin-1"))


def _parquet(file: BinaryIO, chunks: Iterator[Named], tokenizer: Tokenizer, pooling: str, done: dict) -> None:
    vector: pa.DataType = pa.list_(pa.float32(), done["width"])
    fields = [pa.field("id", pa.string()), pa.field("text", pa.string())]
    if pooling == "token":
        fields.append(pa.field("tokens", pa.list_(pa.string())))
        vector = pa.list_(vector)
    schema = pa.schema([*fields, pa.field("vector", vector)])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for ids, chunk in chunks:
            flat = pa.FixedSizeListArray.from_arrays(pa.array(chunk.vectors.reshape(-1)), done["width"])
            columns: list[pa.Array] = [pa.array(ids, pa.string()), pa.array(chunk.texts)]
            if pooling == "token":
                offsets = pa.array(chunk.offsets.astype(np.int32))
                columns.append(pa.ListArray.from_arrays(offsets, pa.array(tokenizer.tokens(chunk.ids))))
                flat = pa.ListArray.from_arrays(offsets, flat)
            writer.write_table(pa.table([*columns, flat], schema=schema))


def _word2vec(file: BinaryIO, chunks: Iterator[Named], _: Tokenizer, __: str, done: dict[str, int]) -> None:
    width = f" {done['width']}\n"
    room = 20
    file.write(b" " * room + width.encode())
    for ids, chunk in chunks:
        for known, text, vector in zip(ids, chunk.texts, chunk.vectors, strict=True):
            name = "_".join((known or text).split()) or "_"
            file.write(f"{name} {' '.join(f'{value:.6g}' for value in vector)}\n".encode())
    file.seek(0)
    file.write(str(done["records"]).encode())


_WRITERS: dict[str, Callable[[BinaryIO, Iterator[Named], Tokenizer, str, dict[str, int]], None]] = {
    ".npy": _npy,
    ".parquet": _parquet,
    ".txt": _word2vec,
}
