"""QANet in the table: its words, and its training; windows, decoding and scores are those of the other models.

What is different from the paper's training (Yu et al. 2018, section 4.1.1):

- The budget is that of the other models in the table, and so is the share of it over which the learning rate rises,
  linearly; the paper's rises over 1,000 steps, along an inverse exponential. Then it is constant in both.
- The weights that validate best are kept; the paper takes a moving average, 0.9999.
- Weight decay is decoupled (for L2), and Adam's epsilon 1e-8 (for 1e-7).
- Long documents come in windows; the paper leaves those beyond 400 words out of training.
- No further questions are made by translating to and fro.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Raw

from pluri.batches.loader import Batches
from pluri.models.config import ModelConfig
from pluri.models.qanet import QANet
from pluri.tasks.fit import Split, Tuning, fit
from pluri.tasks.metrics import Measured
from pluri.tasks.predictions import predict, settled
from pluri.tasks.task import Labelled, Task
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import SPECIAL_TOKENS
from pluri.tokens.words import UNSPACED
from pluri.training.config import TrainingConfig

_CHARACTERS = 16  # of a word; the rest is cut (section 2.2)
_UNKNOWN = 1  # the vector, and the character, of what was not seen often enough to have its own
_OFTEN = 2


class Lexicon(NamedTuple):
    """Words of all texts of a comparison, with what was learnt of them in its training texts alone.

    tokenizer: cuts texts into words, and numbers them.
    vectors: int64 (V,), the vector of each word. Words in training texts at least twice, whatever their case, have
        their own; the others share one, which is learnt from the rare ones.
    characters: int64 (V, 16), each word as it is written; 0 after its end, 1 for a character that rare in training.
    """

    tokenizer: Tokenizer
    vectors: NDArray[np.int64]
    characters: NDArray[np.int64]

    @classmethod
    def of(cls, train: Iterable[str], others: Iterable[str]) -> "Lexicon":
        """train: the texts to be learnt from. others: those whose words are to be spelt only."""
        splitter = _splitter()

        def words(texts: Iterable[str]) -> Counter[str]:
            return Counter(word for text in set(texts) for word, _ in splitter.pre_tokenize_str(text))

        seen, further = words(train), words(others)
        folded, letters = Counter[str](), Counter[str]()
        for word, count in seen.items():
            folded[word.lower()] += count
            letters.update(word)
        vector_of = _ranked([*map(str.lower, SPECIAL_TOKENS.values()), *_often(folded)])
        letter_of = _ranked(_often(letters))
        vocabulary = [*SPECIAL_TOKENS.values(), *sorted({*seen, *further})]
        characters = np.zeros((len(vocabulary), _CHARACTERS), np.int64)
        for row, word in zip(characters, vocabulary, strict=True):
            spelt = [letter_of.get(letter, _UNKNOWN) for letter in word[:_CHARACTERS]]
            row[: len(spelt)] = spelt
        vectors = np.array([vector_of.get(word.lower(), _UNKNOWN) for word in vocabulary], np.int64)
        raw = Raw(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=SPECIAL_TOKENS["unk"]))
        raw.pre_tokenizer = splitter
        return cls(Tokenizer(json.loads(raw.to_str()), {}), vectors, characters)


def answered_by_qanet(
    task: Task,
    train: Sequence[Labelled],
    validation: Sequence[Labelled],
    test: Sequence[Labelled],
    tuning: Tuning,
    *,
    blocks: int,
    length: int,
    seed: int,
    progress: str | None = None,
) -> tuple[Measured, float]:
    """How well QANet answers `test`, and what it reached on `validation`, by the task's metric.

    tuning: the budget, and the settings of answers. blocks: of the model encoder. length: the longest window, in words.
    progress: see `train`.
    """
    lexicon = Lexicon.of(*([text for r in records for text in r.units] for records in (train, [*validation, *test])))
    learnt, held_out, asked = (
        Split.of(records, task, lexicon.tokenizer, length, False, settings=tuning, learn=records is train)
        for records in (train, validation, test)
    )
    model = QANet(lexicon.vectors, lexicon.characters, blocks=blocks, max_length=length, seed=seed)
    budget = tuning.of_random_start().model_dump(include=set(Tuning.model_fields))
    trained = fit(model, task, learnt, held_out, _Published.model_validate(budget), seed=seed, progress=progress)
    said = predict(model, settled(task, trained.best), asked.encoded)
    return task.outcome(test, said.values), trained.best[task.metric]


class _Published(Tuning):
    """The paper's optimizer (section 4.1.1), whatever was set for the pretrained model."""

    def training(self, batches: Batches, model: ModelConfig, metric: str, seed: int) -> TrainingConfig:
        published = {"optimizer": "adamw", "learning_rate": 1e-3, "schedule": "constant", "betas": (0.8, 0.999)}
        published |= {"weight_decay": 3e-7, "max_grad_norm": 5.0}
        return super().training(batches, model, metric, seed).model_copy(update=published)


def _splitter() -> pre_tokenizers.PreTokenizer:
    """Words: what stands between blanks, save that signs, and characters of scripts without spaces, stand alone."""
    alone = Regex(rf"{UNSPACED.pattern}|[^\w\s]")
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(alone, "isolated")])


def _often(counts: Counter[str]) -> list[str]:
    return sorted(item for item, count in counts.items() if count >= _OFTEN)


def _ranked(items: Iterable[str]) -> dict[str, int]:
    return {item: row for row, item in enumerate(items, _UNKNOWN + 1)}
