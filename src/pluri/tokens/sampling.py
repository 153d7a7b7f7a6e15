"""Drawing the text that a tokenizer is trained on."""

import itertools

from pluri.sequences import read_records
from pluri.sequences.alphabets import Alphabet


def sample(files: list[str], text_column: str, limit: int, alphabet: Alphabet | None = None) -> tuple[list[str], int]:
    """At most `limit` characters in whole documents, evenly over all of them: when full, every second one goes.

    Also how many characters there are in all. DataError if a document is not in the alphabet.
    """
    texts: list[str] = []
    size, stride, whole = 0, 1, 0
    records = itertools.chain.from_iterable(read_records(file, text_column=text_column) for file in files)
    for index, record in enumerate(records):
        whole += len(record.text)
        if alphabet:
            alphabet.check(record.text, record.where)
        if index % stride:
            continue
        texts.append(record.text)
        size += len(record.text)
        while size > limit and len(texts) > 1:
            texts, stride = texts[::2], stride * 2
            size = sum(map(len, texts))
    return texts, whole


def balanced(
    groups: list[list[str]], text_column: str, limit: int, alpha: float, alphabet: Alphabet | None
) -> list[str]:
    """At most about `limit` characters, of each group of files in proportion to its characters ** alpha."""
    samples = [sample(files, text_column, limit, alphabet) for files in groups]
    weights = [whole**alpha if whole else 0.0 for _, whole in samples]
    total = min(limit, sum(whole for _, whole in samples))
    texts: list[str] = []
    for (drawn, _), weight in zip(samples, weights, strict=True):
        wanted = total * weight / (sum(weights) or 1) / max(sum(map(len, drawn)), 1)
        count = round(len(drawn) * wanted)
        texts += [drawn[i * len(drawn) // count] for i in range(count)]  # evenly; above 1, each several times
    return texts
