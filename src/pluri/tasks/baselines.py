"""Baselines that every result is shown beside: frozen features, TF-IDF, letters at their places, character windows, the
most frequent class.

Each chooses its regularization on the validation data, as the fine-tuned model chooses its best moment.

Legend: U units, N sequences, T tokens, D width, P labelled positions.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.models.heads import Model
from pluri.runtime import pick_device
from pluri.tasks.encode import TaskExamples
from pluri.tasks.fit import Split
from pluri.tasks.long import mean_vote
from pluri.tasks.pair import compared
from pluri.tasks.predictions import labelled_positions, prediction_batches
from pluri.tasks.task import Labelled, Targets, Task
from pluri.tasks.windows import TokenWindows

_MAX_UNITS = 20_000  # training tokens that the logistic regression on frozen features sees: more takes minutes
_FEW_LETTERS = 20  # different ones, up to which stretches of 6 are few enough to be counted
_SPACED = 0.05  # blanks a character, above which a text is taken to be written in words


def majority(task: Task, train: Sequence[Labelled], test: Sequence[Labelled]) -> Targets:
    """The most frequent training class, or the mean training number, for every unit."""
    targets = task.targets(train)
    units = int(task.num_labels(test).sum())
    if task.regression:
        return np.full(units, targets.mean())
    return np.full(units, np.bincount(targets.astype(np.int64)).argmax())


def tfidf(task: Task, train: Sequence[Labelled], validation: Sequence[Labelled], test: Sequence[Labelled]) -> Targets:
    """TF-IDF of words and word pairs, or of 1 to 4 characters, and logistic (or ridge) regression.

    The choice between the two, and of the regularization, is made on the validation data. Texts without spaces have no
    words to try; those of few letters, as DNA, longer stretches (k-mers). Of pairs, see `_weighed`.
    """
    texts = [text for record in train for text in record.units]
    targets = task.targets(train)
    choices: list[dict[str, Any]] = [{"analyzer": "char", "ngram_range": (1, 4)}]
    joined = "".join(texts)
    if joined.count(" ") > _SPACED * len(joined):
        choices.append({"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b|[^\w\s]"})
    elif len(set(joined)) <= _FEW_LETTERS:
        choices.append({"analyzer": "char", "ngram_range": (1, 6)})
    fitted: list[tuple[float, Any, TfidfVectorizer]] = []
    for choice in choices:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **choice).fit(texts)
        known, seen = _weighed(vectorizer, train), _weighed(vectorizer, validation)
        for strength in (1.0, 10.0, 100.0):
            model = _fitted(_regression(task, strength), known, targets)
            fitted.append((_score(task, validation, model.predict(seen)), model, vectorizer))
    _, model, vectorizer = max(fitted, key=lambda choice: choice[0])
    return model.predict(_weighed(vectorizer, test))


def _weighed(vectorizer: TfidfVectorizer, records: Sequence[Labelled]) -> Any:
    """The TF-IDF vector of each text, sparse (N, features); of pairs both, a and b, and |a - b|, a * b and its sum.

    The vectors have length 1, so that the sum is their cosine: what alone tells how alike two texts are.
    """
    first, *others = (vectorizer.transform(side) for side in zip(*(record.units for record in records), strict=True))
    if not others:
        return first
    product = first.multiply(others[0])
    return hstack([first, *others, abs(first - others[0]), product, product.sum(1)], format="csr")


def places(task: Task, train: Sequence[Labelled], validation: Sequence[Labelled], test: Sequence[Labelled]) -> Targets:
    """Logistic (or ridge) regression on which letter stands at each place: of sequences of one length.

    What stretches of letters cannot tell: that a site is in the middle, and which letters stand beside it.
    """
    vectorizer = DictVectorizer().fit(map(_placed, train))
    known, seen, asked = (vectorizer.transform(map(_placed, part)) for part in (train, validation, test))
    models = [_fitted(_regression(task, strength), known, task.targets(train)) for strength in (0.01, 0.1, 1.0)]
    return max(models, key=lambda model: _score(task, validation, model.predict(seen))).predict(asked)


def of_one_length(records: Iterable[Labelled]) -> bool:
    """Whether these are sequences of letters, all of the same length."""
    texts = [record.units[0] for record in records]
    return len({len(text) for text in texts}) == 1 and not any(" " in text for text in texts)


def _placed(record: Labelled) -> dict[str, str]:
    return {str(place): letter for place, letter in enumerate(record.units[0].upper())}


def windows(task: Task, train: Sequence[Labelled], validation: Sequence[Labelled], test: Sequence[Labelled]) -> Targets:
    """A linear support-vector machine on each token's neighbourhood (`TokenWindows`).

    It was 4 to 5 points better than logistic regression on the same features, and ten times faster.
    """
    features = TokenWindows(train)
    known, targets, seen = features(train), task.targets(train), features(validation)

    def candidate(strength: float) -> tuple[float, Any]:
        model = _fitted(LinearSVC(C=strength, tol=0.1, random_state=0), known, targets)
        return _score(task, validation, model.predict(seen)), model

    _, model = max(map(candidate, (0.1, 0.3, 1.0)), key=lambda choice: choice[0])
    return model.predict(features(test))


def frozen(task: Task, model: Model, train: Split, validation: Split, test: Split) -> Targets:
    """The pretrained body as it is, and `regressed` on its last hidden states.

    A sequence is the mean over its tokens; for a pair see `_compared`.
    """
    return regressed(task, lambda split: _features(model, task, split), train, validation, test)


def regressed(
    task: Task, features: Callable[[Split], Iterable[NDArray[np.float32]]], train: Split, validation: Split, test: Split
) -> Targets:
    """Logistic (or ridge) regression on features of the units, which come in blocks.

    Of a training set beyond 20,000 tokens, evenly spaced ones are used.
    """
    targets = task.targets(train.records)
    known = np.concatenate(list(features(train)))  # (U, D)
    if len(known) > _MAX_UNITS:
        kept = np.linspace(0, len(known) - 1, _MAX_UNITS).astype(np.int64)
        known, targets = known[kept], targets[kept]
    candidates = [make_pipeline(StandardScaler(), _regression(task, strength)) for strength in (0.003, 0.03, 0.3)]
    models = [_fitted(candidate, known, targets) for candidate in candidates]
    tried = _predicted_by_all(models, features(validation))
    best = max(range(len(models)), key=lambda i: _score(task, validation.records, tried[i]))
    return _predicted_by_all([models[best]], features(test))[0]


def _predicted_by_all(models: Sequence[Any], features: Iterable[NDArray[np.float32]]) -> list[Targets]:
    """Each model's predictions, read off one pass over the features: only the predictions stay in memory."""
    parts = [[model.predict(block) for model in models] for block in features]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@torch.inference_mode()
def _features(model: Model, task: Task, split: Split) -> Iterable[NDArray[np.float32]]:
    """Hidden states of the units, one batch at a time: (units of the batch, D)."""
    device = pick_device()
    model.to(device).eval()
    pick: Callable[[Tensor, Batch], Tensor] = _of_tokens if task.kind == "tag" else _means
    examples = split.encoded
    if task.kind == "pair":
        assert isinstance(examples, TaskExamples)
        examples = examples.alone()
    batches = prediction_batches(examples, model.config.max_length)
    states = (pick(model.hidden(b.to(device)).flatten(0, 1).float().cpu(), b).numpy() for b in batches)
    if isinstance(examples, TaskExamples) and examples.votes is not None:
        states = [mean_vote(states, examples.votes, int(examples.units.sum()))]
    yield from _compared(states) if task.kind == "pair" else states


def _compared(states: Iterable[NDArray[np.float32]]) -> Iterable[NDArray[np.float32]]:
    """`compared` of the means of a pair, each sequence read alone.

    states: blocks of such means, the sequences of a pair one after the other: (any number, D). Yields (pairs, 4D).
    Far better than the mean over both, read together: docs/log.md.
    """
    left = None
    for block in states:
        rows = block if left is None else np.concatenate([left, block])
        whole = len(rows) // 2 * 2
        left, u, v = rows[whole:], rows[0:whole:2], rows[1:whole:2]
        if whole:
            yield compared(u, v)


def _of_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """hidden: (B * L, D). Returns (P, D)."""
    return hidden[labelled_positions(batch)]


def _means(hidden: Tensor, batch: Batch) -> Tensor:
    """hidden: (B * L, D). Returns the mean over each sequence, (N, D)."""
    return torch.segment_reduce(hidden[batch.places], "mean", lengths=batch.lengths, axis=0)


def _regression(task: Task, strength: float) -> Any:
    """strength: how freely the weights may grow (scikit-learn's C; 1 / alpha)."""
    if task.regression:
        return Ridge(alpha=1 / strength)
    return LogisticRegression(C=strength, max_iter=200, tol=1e-3)


def _fitted(model: Any, features: Any, targets: Targets) -> Any:
    if len(np.unique(targets)) == 1 and targets.dtype == np.int64:  # a small draw may hold one class only
        return _Constant(int(targets[0]))
    with warnings.catch_warnings():
        # Stopped at its last iteration it is a little more regularized; the validation data judge that as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, targets)


class _Constant:
    """The model of a single class."""

    def __init__(self, value: int) -> None:
        self.value = value

    def predict(self, features: Any) -> NDArray[np.int64]:
        return np.full(features.shape[0], self.value)


def _score(task: Task, records: Sequence[Labelled], predicted: Targets) -> float:
    return task.outcome(records, predicted).value(task.metric)
