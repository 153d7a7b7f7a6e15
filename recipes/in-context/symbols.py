"""Learning a new mapping from words to labels from examples in the row, with no gradient.

    python recipes/in-context/symbols.py OUTPUT [--minutes 5]

A causal model is trained from scratch on rows "word label word label ...": each row takes four of the words and gives
each a label of its own, both by chance. Then its weights are frozen, and it is asked for the label of one of the four
words after 0, 1, 2, 4 and 8 examples, in rows that it has never seen. The examples show the words in turn, so that what
can be known is known: a word that was not shown has any label alike. Writes OUTPUT/results.json: rows of method,
examples and accuracy with its 95% interval over rows, and the hash of the weights before and after.

Legend: B rows, n examples, L positions.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE
from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import digest
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.runtime import mix
from pluri.training.config import TrainingConfig
from pluri.training.trainer import train

UNSEEN = 2**62  # the step under which test rows are drawn: no training step has it
WORDS, LABELS, A_ROW = 200, 4, 4  # words in all, labels, words of one row
SHOTS = (0, 1, 2, 4, 8)
LONGEST = 12  # examples of a training row


class Mappings(Batches):
    """Batch k: `rows` new mappings. In training any of the four words may come next, whether it was shown or not."""

    def __init__(self, rows: int, *, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def __getitem__(self, step: int) -> Batch:
        generator = self._generator(step)
        words, labels = mappings(self.rows, generator)
        drawn = torch.randint(A_ROW, (self.rows, LONGEST), generator=generator)
        return laid(words.gather(1, drawn), labels.gather(1, drawn))

    def asked(self, count: int, shots: int) -> Batch:
        """`count` rows that no training step has: the words in turn, `shots` times, then any of them."""
        generator = self._generator(UNSEEN + shots)
        words, labels = mappings(count, generator)
        turns = torch.arange(shots).remainder(A_ROW).expand(count, shots)
        drawn = torch.cat([turns, torch.randint(A_ROW, (count, 1), generator=generator)], 1)
        return laid(words.gather(1, drawn), labels.gather(1, drawn))

    def _generator(self, step: int) -> torch.Generator:
        key = mix(mix(np.uint64(0), self.seed), step)[()]
        return torch.Generator().manual_seed(int(key >> np.uint64(1)))


def mappings(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The words of each row and their labels, as tokens: (B, A_ROW) each. Words follow the labels in the vocabulary."""
    words = torch.rand(rows, WORDS, generator=generator).argsort(1)[:, :A_ROW]
    return words + LABELS, torch.randint(LABELS, (rows, A_ROW), generator=generator)


def laid(words: Tensor, labels: Tensor) -> Batch:
    """Rows of words and labels in turn: (B, n) each, to L = 2n. Labels are predicted where their words stand."""
    rows, n = words.shape
    ids, targets = torch.stack([words, labels], 2).flatten(1), torch.full((rows, 2 * n), IGNORE)
    targets[:, ::2] = labels
    return Batch(
        input_ids=ids,
        sequence_ids=torch.ones_like(ids, dtype=torch.int32),
        position_ids=torch.arange(2 * n).expand(rows, 2 * n),
        token_type_ids=torch.zeros_like(ids),
        starts=torch.arange(rows) * 2 * n,
        lengths=torch.full((rows,), 2 * n),
        labels=targets,
    )


@torch.inference_mode()
def measured(model: Model, data: Mappings, count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The accuracy after so many examples on `count` new rows each, beside the best there can be."""
    model.eval().requires_grad_(False)
    before = digest(model.state_dict())
    rows: list[dict[str, Any]] = []
    for shots in SHOTS:
        batch = data.asked(count, shots)
        last = batch.starts + 2 * shots  # where the word that is asked for stands
        said = model.outputs("next", model.hidden(batch), batch, last).argmax(-1)
        right = (said == batch.input_ids.flatten()[last + 1]).double()
        value, half = right.mean().item(), 1.96 * right.std().item() / count**0.5
        shown = min(shots, A_ROW) / A_ROW
        best = shown + (1 - shown) / LABELS
        about = {"task": "symbols", "shots": shots, "seed": data.seed, "metric": "acc"}
        rows.append({**about, "method": "model", "value": value, "low": value - half, "high": value + half})
        rows.append({**about, "method": "all that can be known", "value": best, "low": best, "high": best})
    return rows, {"sha256_before": before, "sha256_after": digest(model.state_dict())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rows", type=int, default=128, help="mappings a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape: dict[str, Any] = {"num_layers": options.layers, "hidden_size": options.width, "num_heads": 4}
    shape |= {"dropout": 0.0, "attention_dropout": 0.0, "max_length": 2 * LONGEST}
    config = preset("gpt2", "tiny", vocab_size=LABELS + WORDS, **shape)
    model = Model(config, {"next": config.vocab_size}, seed=options.seed)
    data = Mappings(options.rows, seed=options.seed)
    budget = {"minutes": options.minutes, "learning_rate": options.learning_rate, "seed": options.seed}
    training = TrainingConfig.parse({**budget, "weight_decay": 0.0, "precision": "fp32"})
    trained = train(model, data, pretraining_loss, training, progress="training")
    rows, proof = measured(model, data, 2000)
    about = {"steps": trained.step, "minutes": trained.seconds / 60}
    options.output.mkdir(parents=True, exist_ok=True)
    results = {"rows": rows, "models": [{"method": "model", **about, **proof}]}
    (options.output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    table = Table("examples", "accuracy", "all that can be known")
    for ours, best in zip(rows[::2], rows[1::2], strict=True):
        span = f"{ours['value']:.1%} ({ours['low']:.1%} to {ours['high']:.1%})"
        table.add_row(str(ours["shots"]), span, f"{best['value']:.1%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
