"""Learning a linear function from examples in the row, with no gradient (Garg et al. 2022, sections 2 and 3).

    python recipes/in-context/linear.py OUTPUT [--minutes 20] [--dimension 5]

A causal model is trained from scratch on rows x1, f(x1), x2, f(x2), ... of a new random linear function each; then
its weights are frozen, and it predicts f(x) after 0, 1, 2, ... examples of functions that it has never seen. Beside it
stand what knows that functions are linear (least squares), and what does not (nearest neighbours, averaging). Writes
OUTPUT/results.json: rows of method, examples, error (squared, divided by the variance of f(x)) with its 95% interval
over functions, and the hash of the weights before and after.

Legend: B rows (functions), n points, L = 2n positions, d dimensions, D width.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pluri.batches.batch import Batch
from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import digest
from pluri.models.config import ModelConfig, preset
from pluri.models.heads import Model
from pluri.runtime import mix
from pluri.training.config import TrainingConfig
from pluri.training.trainer import train

UNSEEN = 2**62  # the step under which test functions are drawn: no training step has it
NEIGHBOURS = 3  # as in section 3.1
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points(Batch):
    """vectors: (B, L, d), x at even positions, at odd ones y in the first place. targets: (B, n), every y."""

    vectors: Tensor
    targets: Tensor


class Functions(Batches):
    """Batch k: `rows` new functions y = w x, with w and n points x from the standard normal distribution.

    grow: steps after which one more dimension and two more points come in, from 5 and 11 on (section 2.2, "Training").
    """

    def __init__(self, dimension: int, rows: int, *, seed: int, grow: int = 2000) -> None:
        self.dimension, self.rows, self.seed, self.grow = dimension, rows, seed, grow

    def __getitem__(self, step: int) -> Batch:
        stage = step // self.grow
        points = min(2 * self.dimension + 1, 11 + 2 * stage)
        return self.draw(step, self.rows, points, min(self.dimension, 5 + stage))

    def draw(self, step: int, rows: int, points: int, inner: int) -> Points:
        """Functions of the first `inner` dimensions; the others are 0."""
        generator = torch.Generator().manual_seed(int(mix(mix(np.uint64(0), self.seed), step)[()] >> np.uint64(1)))
        weights = torch.randn(rows, self.dimension, generator=generator)
        x = torch.randn(rows, points, self.dimension, generator=generator)
        x[:, :, inner:] = 0
        y = torch.einsum("bnd,bd->bn", x, weights)
        vectors = torch.zeros(rows, 2 * points, self.dimension)
        vectors[:, ::2], vectors[:, 1::2, 0] = x, y
        shape = (rows, 2 * points)
        return Points(
            input_ids=torch.zeros(shape, dtype=torch.int64),
            sequence_ids=torch.ones(shape, dtype=torch.int32),
            position_ids=torch.arange(2 * points).expand(shape),
            token_type_ids=torch.zeros(shape, dtype=torch.int64),
            starts=torch.arange(rows) * 2 * points,
            lengths=torch.full((rows,), 2 * points),
            vectors=vectors,
            targets=y,
        )


class ReadIn(nn.Module):
    """Vectors instead of token embeddings: a linear map and learned positions, (B, L, d) to (B, L, D)."""

    def __init__(self, config: ModelConfig, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        self.map = nn.Linear(dimension, config.hidden_size)
        self.positions = nn.Embedding(config.max_length, config.hidden_size)
        nn.init.normal_(self.map.weight, std=dimension**-0.5, generator=generator)
        nn.init.normal_(self.positions.weight, std=config.initializer_range, generator=generator)
        nn.init.zeros_(self.map.bias)

    def forward(self, batch: Points) -> Tensor:
        return self.map(batch.vectors) + self.positions(batch.position_ids)


class InContext(Model):
    """GPT-2's body between a read-in and a read-out map (section 2.2, "Model structure")."""

    def __init__(self, dimension: int, *, layers: int, width: int, heads: int, seed: int) -> None:
        size: dict[str, Any] = {"num_layers": layers, "hidden_size": width, "num_heads": heads}
        size |= {"dropout": 0.0, "attention_dropout": 0.0, "max_length": 2 * (2 * dimension + 1)}
        super().__init__(preset("gpt2", "tiny", vocab_size=1, **size), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        read_in: Any = ReadIn(self.config, dimension, generator)
        self.body.embeddings = read_in
        self.read_out = nn.Linear(width, 1)
        nn.init.normal_(self.read_out.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.read_out.bias)

    def predictions(self, batch: Points) -> Tensor:
        """(B, n): of every y, in view of the points before it and its own x."""
        return self.read_out(self.hidden(batch)[:, ::2]).squeeze(-1)


def squared_error(model: Model, batch: Batch, *_: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over all points (section 2.2, equation 2)."""
    assert isinstance(model, InContext)
    assert isinstance(batch, Points)
    loss = (model.predictions(batch) - batch.targets).square().mean()
    return loss, {"squared_error": loss.detach()}


def rivals(x: Floats, y: Floats) -> dict[str, Floats]:
    """What other methods predict of y, after the points before it: (B, n) each. x: (B, n, d). y: (B, n)."""
    found = {name: np.zeros_like(y) for name in ("least squares", "nearest neighbours", "averaging")}
    for k in range(1, x.shape[1]):
        before, known, asked = x[:, :k], y[:, :k, None], x[:, k]
        # of as many or fewer points than dimensions, the solution of the smallest norm
        found["least squares"][:, k] = np.einsum("bd,bdo->b", asked, np.linalg.pinv(before) @ known)
        found["averaging"][:, k] = np.einsum("bd,bdo->b", asked, before.transpose(0, 2, 1) @ known) / k
        distances = np.linalg.norm(before - asked[:, None], axis=-1)  # (B, k)
        nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
        found["nearest neighbours"][:, k] = np.take_along_axis(y[:, :k], nearest, 1).mean(1)
    return found


@torch.inference_mode()
def measured(model: InContext, functions: Functions, count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The error of every method after 0, 1, ... examples on `count` new functions, and the weights' hashes."""
    model.eval().requires_grad_(False)
    before = digest(model.state_dict())
    d = functions.dimension
    batch = functions.draw(UNSEEN, count, 2 * d + 1, d)
    x, y = batch.vectors[:, ::2].double().numpy(), batch.targets.double().numpy()
    said = {"model": model.predictions(batch).double().numpy(), **rivals(x, y)}
    rows = []
    for method, values in said.items():
        errors = (values - y) ** 2 / d  # (B, n); the variance of y is d
        half = 1.96 * errors.std(0, ddof=1) / count**0.5
        for k, (error, span) in enumerate(zip(errors.mean(0).tolist(), half.tolist(), strict=True)):
            low, high = error - span, error + span
            rows.append({"task": f"linear-{d}", "method": method, "shots": k, "seed": functions.seed})
            rows[-1] |= {"metric": "error", "value": error, "low": low, "high": high}
    return rows, {"sha256_before": before, "sha256_after": digest(model.state_dict())}


def show(rows: list[dict[str, Any]]) -> None:
    methods = dict.fromkeys(row["method"] for row in rows)
    cells = {(row["method"], row["shots"]): row for row in rows}
    table = Table("examples", *methods)
    for k in dict.fromkeys(row["shots"] for row in rows):
        found = [cells[method, k] for method in methods]
        table.add_row(str(k), *(f"{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})" for row in found))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--dimension", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rows", type=int, default=64, help="functions a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = {"layers": options.layers, "width": options.width, "heads": options.heads}
    model = InContext(options.dimension, **shape, seed=options.seed)
    functions = Functions(options.dimension, options.rows, seed=options.seed)
    budget = {"minutes": options.minutes, "learning_rate": options.learning_rate, "seed": options.seed}
    config = TrainingConfig.parse({**budget, "weight_decay": 0.0, "precision": "fp32"})
    trained = train(model, functions, squared_error, config, progress="training")
    rows, proof = measured(model, functions, 1280)
    about = {**shape, "steps": trained.step, "minutes": trained.seconds / 60}
    options.output.mkdir(parents=True, exist_ok=True)
    results = {"rows": rows, "models": [{"method": "model", **about, **proof}]}
    (options.output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
