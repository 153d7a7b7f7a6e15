"""Pretraining: a token store in, a model folder out."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from pluri.batches.loader import Batches
from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Config
from pluri.errors import UsageError
from pluri.losses import pretraining_loss
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.runtime import sequence_keys, uniform
from pluri.tokens.store import TokenStore
from pluri.training.journal import machine, read_journal
from pluri.training.spectral import can_start, spectral_start
from pluri.training.trainer import TrainingConfig, mean_loss, train

_MAX_VALIDATION_DOCUMENTS = 2000
_VALIDATION_STREAM = 2**62  # the counter under which documents are dealt out: no training sequence has it
# What may differ between a run and its resumption: none of it changes what a step learns from.
_FREE = {"steps", "tokens", "minutes", "workers", "eval_steps", "patience", "checkpoint_minutes", "checkpoint_steps"}


class PretrainConfig(Config):
    """A pretraining run.

    store: the folder that `prepare` made. output: gets journal.jsonl, checkpoints/ and model/.
    model: `preset` (a family: modern, bert, roberta ...), `size` (tiny ... base), and any field of ModelConfig; or
        `init`, the folder of a model to go on from, or its name on the Hugging Face hub.
    validation: the share of documents held out to measure the loss on, at most 2,000 of them.
    spectral_start: begin from counted neighbours instead of chance, where the model has a context embedding.
    """

    store: Path
    output: Path
    model: dict[str, Any] = Field(default_factory=dict)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    training: TrainingConfig
    validation: float = Field(0.01, ge=0, lt=1)
    spectral_start: bool = True


def pretrain(
    config: PretrainConfig, *, resume: bool = False, stop_after: int | None = None, progress: bool = True
) -> Path:
    """Runs it and returns the model folder, OUTPUT/model.

    resume: go on from the newest whole checkpoint in OUTPUT (from the start if there is none yet).
    stop_after: stop after this many steps, as if interrupted there.
    """
    journal = read_journal(config.output / "journal.jsonl")
    if journal and not resume:
        raise UsageError(
            "holds a run already", where=str(config.output), do="go on with --resume, or choose another output"
        )
    if journal:
        _check_same(config, journal[0].get("config", {}))
    store = TokenStore.open(config.store)
    model = _model(config, store)
    length = model.config.max_length
    train_on, hold_out = split_documents(store.num_documents, config.validation, config.training.seed)
    if config.spectral_start and "init" not in config.model and can_start(model) and not journal:
        spectral_start(model, store, train_on)
    make = {"length": length, "seed": config.training.seed}
    source = StoreExamples(store, config.objective, documents=train_on, **make)
    settings = {
        "batch_tokens": config.training.batch_tokens,
        "length": length,
        "seed": config.training.seed,
        "packed": config.training.packed,
    }
    held_out = (
        Batches(StoreExamples(store, config.objective, documents=hold_out, **make), **settings)
        if len(hold_out)
        else None
    )

    def validate(model: Model) -> dict[str, float]:
        return {} if held_out is None else mean_loss(model, held_out.once(), pretraining_loss)

    trained = train(
        model,
        Batches(source, **settings),
        pretraining_loss,
        config.training,
        output=config.output,
        validate=validate if len(hold_out) else None,
        resume=resume,
        stop_after=stop_after,
        header={
            "config": config.model_dump(mode="json"),
            "machine": machine(),
            "unigram_entropy": unigram_entropy(store.unigram_counts),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        progress=progress,
    )
    for note in trained.notes:
        Console(stderr=True).print(note, style="yellow", highlight=False)
    folder = config.output / "model"
    save_model(folder, model, store.tokenizer)
    return folder


def split_documents(count: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, validation): each document is dealt out by its own number, whatever else is in the store."""
    chance = uniform(sequence_keys(seed, 0, np.arange(count)), _VALIDATION_STREAM)
    held_out = np.flatnonzero(chance < min(share, _MAX_VALIDATION_DOCUMENTS / max(count, 1)))
    return np.setdiff1d(np.arange(count), held_out, assume_unique=True), held_out


def unigram_entropy(counts: NDArray[np.int64]) -> float:
    """Nats a token: the loss of a model that knows the frequencies and nothing of the context."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _model(config: PretrainConfig, store: TokenStore) -> Model:
    values = dict(config.model)
    init = values.pop("init", None)
    vocab_size = store.tokenizer.vocab_size if init is None else read_config(init).config.vocab_size
    heads = {"masked": vocab_size} if config.objective.masked else {}
    if config.objective.pair:
        heads["pair"] = 2
    if init is not None:
        model, tokenizer = load_model(init, heads=heads)
        if tokenizer.hash != store.tokenizer.hash:
            raise UsageError(
                "was made with another tokenizer than the model",
                where=str(config.store),
                do="prepare it with the model's",
            )
        if values:
            raise UsageError(f"model.{next(iter(values))} cannot be given with model.init", where="model")
        return model
    chosen = preset(
        values.pop("preset", "modern"),
        values.pop("size", "mini"),
        vocab_size=vocab_size,
        max_length=values.pop("max_length", 128),
        pad_id=store.tokenizer.pad_id or 0,
        **values,
    )
    return Model(chosen, heads, seed=config.training.seed)


def _check_same(config: PretrainConfig, before: dict[str, Any]) -> None:
    """A resumed run must be the same run: UsageError names the first setting that is not."""
    now = config.model_dump(mode="json")
    for values in (now, before := {**before, "training": dict(before.get("training", {}))}):
        values.pop("output", None)
        for key in _FREE:
            values["training"].pop(key, None)
    for name in now:
        if now[name] != before.get(name):
            raise UsageError(
                f"{name} is now {now[name]!r} but the run began with {before.get(name)!r}",
                where=str(config.output),
                do="put it back, or start a new run with another output",
            )
