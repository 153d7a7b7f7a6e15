"""Fine-tuning a BERT beside transformers' Trainer: seconds for the same epochs, and the accuracy that came of them.

    python benchmarks/finetune_vs_transformers.py [--quick] [--json FILE]

Shopping reviews, positive or negative, of natural length, cut at 128 tokens. Both sides start from the same random
BERT (4 layers, 256 wide) in the same folder, and see every review once, in batches of about the same number of tokens
(Trainer: 32 reviews, grouped by length; bf16 where that is faster on this machine). Validation and start-up are not
timed. Alternating A B A B, medians of the ratios round by round.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring import Row, alternate, arguments, finish, median_ratio
from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.losses import classification_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.builtin import reviews
from pluri.runtime import fast_bf16, permuted
from pluri.tasks.fit import Split, predict, with_new_head
from pluri.tasks.task import Labelled, define_task
from pluri.tokens.training import train_tokenizer
from pluri.training.trainer import TrainingConfig, train

LENGTH, SEQUENCES, RATE = 128, 32, 3e-4


class Pluri:
    """Trains on every review once a call; returns reviews a second."""

    def __init__(self, folder: Path, training: list[Labelled], test: list[Labelled]) -> None:
        self.task = define_task("classify", training)
        self.model, tokenizer = load_model(folder)
        make: dict[str, Any] = {"task": self.task, "tokenizer": tokenizer, "length": LENGTH, "truncate": True}
        self.training, self.test = Split.of(training, **make), Split.of(test, **make)
        self.accuracy: list[float] = []

    def __call__(self, turn: int) -> float:
        model = with_new_head(self.model, self.task, seed=turn)
        tokens = round(SEQUENCES * self.training.encoded.mean_length)
        batches = Batches(self.training.encoded, batch_tokens=tokens, length=LENGTH, seed=turn)
        steps = len(self.training.records) // batches.sequences_per_batch
        config = TrainingConfig.parse(
            {"steps": steps, "learning_rate": RATE, "optimizer": "adamw", "schedule": "linear", "warmup": 0.1}
        )
        start = time.perf_counter()
        train(model, batches, classification_loss(), config)
        seconds = time.perf_counter() - start
        outcome = self.task.outcome(self.test.records, predict(model, self.task, self.test.encoded).values)
        self.accuracy.append(outcome.value("accuracy"))
        return len(self.training.records) / seconds


class Transformers:
    """The same with transformers' Trainer."""

    def __init__(self, folder: Path, training: list[Labelled], test: list[Labelled], work: Path) -> None:
        from transformers import AutoTokenizer

        self.folder, self.work = folder, work
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.training, self.test = self._encoded(training), self._encoded(test)
        self.accuracy: list[float] = []

    def _encoded(self, records: list[Labelled]) -> list[dict[str, Any]]:
        texts = self.tokenizer([r.units[0] for r in records], truncation=True, max_length=LENGTH)
        labels = [int(r.labels[0] == "positive") for r in records]
        return [{"input_ids": i, "label": y} for i, y in zip(texts["input_ids"], labels, strict=True)]

    def __call__(self, turn: int) -> float:
        from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

        torch.manual_seed(turn)
        model = AutoModelForSequenceClassification.from_pretrained(self.folder, num_labels=2)
        settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" not in TrainingArguments.__dataclass_fields__:
            settings = {"group_by_length": True}
        arguments = TrainingArguments(
            str(self.work),
            num_train_epochs=1,
            per_device_train_batch_size=SEQUENCES,
            per_device_eval_batch_size=64,
            learning_rate=RATE,
            warmup_steps=len(self.training) // SEQUENCES // 10,
            bf16=fast_bf16(),
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **settings,
        )
        trainer = Trainer(model, arguments, train_dataset=self.training, processing_class=self.tokenizer)  # type: ignore
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        said = trainer.predict(self.test).predictions.argmax(-1)  # type: ignore[arg-type]
        self.accuracy.append(float(np.mean(said == [r["label"] for r in self.test])))
        return len(self.training) / seconds


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    count, rounds = (512, 2) if options.quick else (2048, 5)
    everything = reviews()
    order = permuted(np.arange(count + 500), len(everything), 0)
    records = [Labelled((everything[i][0],), (everything[i][1],), f"review {i}") for i in order]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        text = Path(place) / "reviews.txt"
        text.write_text("\n".join(text for text, _ in everything), encoding="utf-8")
        tokenizer = train_tokenizer([str(text)], kind="char", vocab_size=8000)
        config = preset("bert", "mini", vocab_size=tokenizer.vocab_size, max_length=LENGTH)
        save_model(folder, Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
        ours = Pluri(folder, records[:count], records[count:])
        theirs = Transformers(folder, records[:count], records[count:], Path(place) / "trainer")
        rates = alternate({"pluri": ours, "transformers": theirs}, rounds)
    rows: list[Row] = [
        {
            "case": f"classify {count} reviews, bert 4/256",
            "peer": f"transformers Trainer, {'bf16' if fast_bf16() else 'fp32'}, group by length",
            "reviews_per_second": float(np.median(rates["pluri"])),
            "peer_reviews_per_second": float(np.median(rates["transformers"])),
            "ratio": median_ratio(rates["pluri"], rates["transformers"]),
            "accuracy": float(np.mean(ours.accuracy)),
            "peer_accuracy": float(np.mean(theirs.accuracy)),
        }
    ]
    finish(rows, options.json, "Fine-tuning, one epoch")


if __name__ == "__main__":
    main()
