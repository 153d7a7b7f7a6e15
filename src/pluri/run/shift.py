"""What a language vector does to masked predictions: from which language the tokens are, before and after."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.inference.language_vectors import Masked, languages_of, masked, predictions, token_counts
from pluri.models.heads import Model
from pluri.tasks.intervals import mean_intervals
from pluri.tokens.tokenizer import Tokenizer

_TEXTS = 200  # of each language, the first ones
_EXAMPLES = 5

Means = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shift:
    """Sentences of one language with the vector to another added at each layer.

    direction: "en to zh". shares: a row a layer (None: nothing added) and kind of token ("en", "zh", "both"), with the
    share of the masked predictions, its 95% interval over the sentences. examples: of the layer that turns most: the
    masked text, and of each mask what stood there, what was said, and what with the vector.
    """

    direction: str
    layer: int
    texts: int
    masks: int
    shares: list[dict[str, Any]]
    examples: list[dict[str, Any]]


def measure_shift(
    model: Model,
    tokenizer: Tokenizer,
    names: tuple[str, str],
    means: tuple[Means, Means],
    texts: tuple[Iterable[str], Iterable[str]],
) -> list[Shift]:
    """Both directions. means: (L, D) of each language. texts: its sentences, which are gone through twice."""
    kinds = languages_of(*(token_counts(tokenizer, each) for each in texts))
    found = []
    for side in (0, 1):
        vectors = means[1 - side] - means[side]
        data = masked(tokenizer, _some(texts[side]), model.config.max_length)
        said: dict[int | None, NDArray[np.int64]] = {None: predictions(model, data)}
        said |= {layer: predictions(model, data, layer, vector) for layer, vector in enumerate(vectors)}
        turned = {layer: float(np.mean(kinds[ids] == 1 - side)) for layer, ids in said.items() if layer is not None}
        best = max(turned, key=lambda layer: turned[layer])
        labels = {0: names[0], 1: names[1], 2: "both"}
        shares = [row for layer, ids in said.items() for row in _shares(data, kinds[ids], labels, layer)]
        direction = f"{names[side]} to {names[1 - side]}"
        examples = _examples(tokenizer, data, said[None], said[best])
        found.append(Shift(direction, best, len(data.pieces), len(data.at), shares, examples))
    return found


def _some(texts: Iterable[str]) -> list[str]:
    """The first sentences of some words: of a single one nothing is left to predict it from."""
    some: list[str] = []
    for text in texts:
        if len(text) >= 8:
            some.append(text)
        if len(some) == _TEXTS:
            break
    return some


def _shares(data: Masked, kinds: NDArray[np.int64], labels: dict[int, str], layer: int | None) -> list[dict[str, Any]]:
    counts = np.bincount(data.text, minlength=len(data.pieces))
    each = np.stack([np.bincount(data.text[kinds == kind], minlength=len(data.pieces)) for kind in labels], axis=1)
    used = counts > 0
    shares = each[used] / counts[used, None]  # (texts, kinds)
    return [
        {"layer": layer, "tokens": label, "value": found.value, "low": found.low, "high": found.high}
        for label, found in zip(labels.values(), mean_intervals(shares), strict=True)
    ]


def _examples(
    tokenizer: Tokenizer, data: Masked, before: NDArray[np.int64], after: NDArray[np.int64]
) -> list[dict[str, Any]]:
    found = []
    for i in range(min(_EXAMPLES, len(data.pieces))):
        mine = data.text == i
        text = tokenizer.raw.decode(data.pieces[i].tolist(), skip_special_tokens=False)
        tokens = zip(*(tokenizer.tokens(ids[mine].tolist()) for ids in (data.truth, before, after)), strict=True)
        masks = [{"truth": truth, "before": said, "after": shifted} for truth, said, shifted in tokens]
        found.append({"text": text, "masks": masks})
    return found
