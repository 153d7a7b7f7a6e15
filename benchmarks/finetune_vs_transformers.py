"""Fine-tuning beside transformers' Trainer: inputs a second over an epoch, and the quality that came of it.

    python benchmarks/finetune_vs_transformers.py [--quick] [--json FILE] [--data FOLDER]

Built-in shopping reviews with a random BERT (4 layers, 256 wide), and, with the published MiniLM-L6: SST-2 sentences,
SICK pairs (entailment) and SQuAD windows of at most 384 tokens. All of natural length, one epoch, from the same folder
with a new head, at the same learning rate. Batches hold about the same number of tokens on both sides (Trainer: 32
inputs, of SQuAD 8, grouped by length; bf16 where that is faster on this machine). Encoding, validation and start-up are
not timed. Alternating A B A B, medians of the ratios round by round; quality is the mean over the rounds, each with a
seed of its own.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelled import DOC_STRIDE, Case, best_characters, encoded, measured, peer_class
from measuring import Row, alternate, median_ratio
from pluri.batches.loader import Batches
from pluri.checkpoints.huggingface import load_model
from pluri.losses import answer_loss, classification_loss
from pluri.runtime import fast_bf16
from pluri.tasks.answer import Answering
from pluri.tasks.fit import Split, with_new_head
from pluri.tasks.predictions import predict, row_length
from pluri.training.trainer import TrainingConfig, train

RATE = 1e-4
SETTINGS = Answering(doc_stride=DOC_STRIDE)
SIZES = {"reviews": (2048, 500), "SST-2": (2048, 1000), "SICK": (1024, 1000), "SQuAD": (320, 200)}
QUICK = {"reviews": (256, 200), "SST-2": (512, 200), "SICK": (256, 200), "SQuAD": (64, 50)}


class Pluri:
    """Trains on every input once a call; returns inputs a second."""

    def __init__(self, case: Case, at_once: int) -> None:
        self.case, self.at_once = case, at_once
        self.model, tokenizer = load_model(case.checkpoint, heads={case.task.head: case.task.num_outputs})
        make: dict[str, Any] = {"task": case.task, "tokenizer": tokenizer, "length": case.length, "truncate": True}
        self.training = Split.of(case.training, **make, settings=SETTINGS)
        self.test = Split.of(case.test, **make, settings=SETTINGS)
        self.quality: list[float] = []

    def __call__(self, turn: int) -> float:
        task, examples = self.case.task, self.training.encoded
        model = with_new_head(self.model, task, seed=turn)
        tokens = round(self.at_once * examples.mean_length)
        length = row_length(examples, self.case.length)
        batches = Batches(examples, batch_tokens=tokens, length=length, seed=turn)
        steps = round(len(examples) / batches.sequences_per_batch)
        config = TrainingConfig.parse(
            {"steps": steps, "learning_rate": RATE, "optimizer": "adamw", "schedule": "linear", "warmup": 0.1}
        )
        start = time.perf_counter()
        train(model, batches, answer_loss if task.kind == "answer" else classification_loss(), config)
        seconds = time.perf_counter() - start
        said = predict(model, task, self.test.encoded).values
        self.quality.append(task.outcome(self.case.test, said).value(task.metric))
        return steps * batches.sequences_per_batch / seconds


class Transformers:
    """The same with transformers' Trainer."""

    def __init__(self, case: Case, at_once: int, work: Path) -> None:
        from transformers import AutoTokenizer

        self.case, self.at_once, self.work = case, at_once, work
        self.tokenizer = AutoTokenizer.from_pretrained(case.checkpoint)
        self.training = encoded(self.tokenizer, case, case.training, labels=True).features
        self.test = encoded(self.tokenizer, case, case.test, labels=True)
        self.quality: list[float] = []

    def __call__(self, turn: int) -> float:
        from transformers import Trainer, TrainingArguments

        torch.manual_seed(turn)
        classes = {} if self.case.task.kind == "answer" else {"num_labels": self.case.task.num_outputs}
        model = peer_class(self.case).from_pretrained(self.case.checkpoint, **classes)
        settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" not in TrainingArguments.__dataclass_fields__:
            settings = {"group_by_length": True}
        arguments = TrainingArguments(
            str(self.work),
            num_train_epochs=1,
            per_device_train_batch_size=self.at_once,
            per_device_eval_batch_size=2 * self.at_once,
            learning_rate=RATE,
            warmup_steps=len(self.training) // self.at_once // 10,
            bf16=fast_bf16(),
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=turn,
            **settings,
        )
        trainer = Trainer(model, arguments, train_dataset=self.training, processing_class=self.tokenizer)  # type: ignore
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        said: Any = trainer.predict(self.test.features).predictions  # type: ignore[arg-type]
        task = self.case.task
        if task.kind == "answer":
            logits = [np.stack(pair) for pair in zip(said[0], said[1], strict=True)]
            values = best_characters(self.test, logits, SETTINGS.max_answer_length)
        else:
            values = np.asarray(said).argmax(-1)
        self.quality.append(task.outcome(self.case.test, values).value(task.metric))
        return len(self.training) / seconds


def row(case: Case, work: Path, quick: bool) -> Row:
    at_once = 8 if case.task.kind == "answer" else 32
    ours, theirs = Pluri(case, at_once), Transformers(case, at_once, work / "trainer")
    rates = alternate({"pluri": ours, "transformers": theirs}, 2 if quick else 3)
    return {
        "case": f"{case.name}, {len(theirs.training):,} inputs",
        "peer": f"transformers Trainer, {'bf16' if fast_bf16() else 'fp32'}, group by length",
        "inputs_per_second": float(np.median(rates["pluri"])),
        "peer_inputs_per_second": float(np.median(rates["transformers"])),
        "ratio": median_ratio(rates["pluri"], rates["transformers"]),
        "metric": case.task.metric,
        "quality": float(np.mean(ours.quality)),
        "peer_quality": float(np.mean(theirs.quality)),
    }


if __name__ == "__main__":
    measured(__doc__ or "", "Fine-tuning, one epoch", SIZES, QUICK, row)
