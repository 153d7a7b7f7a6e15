"""What a fine-tuning learns from, is chosen by and is judged on, as one model reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pluri.models.heads import Model
from pluri.tasks.fit import Split, Tuning
from pluri.tasks.task import Labelled, Task
from pluri.tokens.tokenizer import Tokenizer


class Splits(NamedTuple):
    """What one fine-tuning learns from, is chosen by, and is judged on."""

    train: Split
    validation: Split
    test: Split

    @property
    def records(self) -> tuple[Sequence[Labelled], Sequence[Labelled], Sequence[Labelled]]:
        return self.train.records, self.validation.records, self.test.records


@dataclass(frozen=True, slots=True)
class Reader:
    """A model to fine-tune, its tokenizer, and the validation and test data as it reads them.

    make: how it reads: the arguments of `Split.of`.
    """

    model: Model
    tokenizer: Tokenizer
    validation: Split
    test: Split
    make: dict[str, Any]
    turned: bool

    @classmethod
    def of(
        cls,
        model: Model,
        tokenizer: Tokenizer,
        task: Task,
        tuning: Tuning,
        validation: Sequence[Labelled],
        test: Sequence[Labelled],
    ) -> Self:
        make: dict[str, Any] = {"task": task, "tokenizer": tokenizer, "length": model.config.max_length}
        make |= {"truncate": tuning.truncate, "overlap": tuning.window_overlap}
        make |= {"settings": tuning, "token_types": model.config.token_types}
        held_out, asked = Split.of(validation, **make), Split.of(test, **make)
        return cls(model, tokenizer, held_out, asked, make, tuning.reverse_complement)

    def splits(self, drawn: Sequence[Labelled], seed: int) -> Splits:
        """With the training data that were drawn. seed: of the strands that they are read from, if from either."""
        train = Split.of(drawn, learn=True, strands=seed if self.turned else None, **self.make)
        return Splits(train, self.validation, self.test)
