"""Pretraining: a token store in, a model folder out."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from pluri.batches.loader import Batches
from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.hub import local_folder
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Config, Folder, hint
from pluri.errors import TrainingError, UsageError
from pluri.losses import pretraining_loss
from pluri.models.config import ModelConfig, preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.lock import only_writer
from pluri.run.symptoms_data import diagnose_kmers
from pluri.runtime import sequence_keys, uniform
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.training.config import TrainingConfig
from pluri.training.journal import machine, read_journal
from pluri.training.spectral import can_start, spectral_start
from pluri.training.trainer import Validate, mean_loss, train

_MAX_VALIDATION_DOCUMENTS, _MAX_VALIDATION_TOKENS = 2000, 1_000_000
_MOST_UNKNOWN = 0.5  # a model of such a store would learn to say "unknown"
_VALIDATION_STREAM = 2**62  # the counter under which documents are dealt out: no training sequence has it
# What may differ between a run and its resumption: none of it changes which data a step learns from.
_FREE = {"output", "store"} | {
    f"training.{name}"
    for name in (
        "steps", "tokens", "minutes", "learning_rate", "workers",
        "eval_steps", "patience", "checkpoint_minutes", "checkpoint_steps",
    )
}  # fmt: skip
NOT_TO_BE_SET = ("family", "pad_id", "vocab_size")  # the preset and the tokenizer say what these are


class PretrainConfig(Config):
    """A pretraining run.

    store: the folder that `prepare` made. output: gets journal.jsonl, checkpoints/ and model/.
    model: `preset` (a family: modern, bert, bart ...), `size` (tiny ... base), and any field of ModelConfig; or
        `init`, the folder of a model to go on from, or its name on the Hugging Face hub.
    validation: the share of documents held out to measure the loss on, at most 2,000 of them; the first million tokens
        of these are used.
    spectral_start: begin from counted neighbours instead of chance, where the model has a context embedding.
    """

    store: Folder
    output: Folder
    model: dict[str, Any] = Field(default_factory=dict)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    training: TrainingConfig
    validation: float = Field(0.01, ge=0, lt=1)
    spectral_start: bool = True


def pretrain(
    config: PretrainConfig, *, resume: bool = False, stop_after: int | None = None, progress: bool = True
) -> Path:
    """Runs it and returns the model folder, OUTPUT/model. The store is compared with its hashes before.

    resume: go on from the newest whole checkpoint in OUTPUT (from the start if there is none yet).
    stop_after: stop after this many steps, as if interrupted there.
    Ctrl-C and SIGTERM are obeyed between two steps, with a checkpoint: TrainingError says so.
    UsageError: OUTPUT holds a run, and this is not its resumption. Other kinds of PluriError: as the parts say.
    """
    store = TokenStore.open(config.store)
    store.verify()
    with only_writer(config.output):
        saved = _saved(config, store, resume)
        model = _model(config, store)
        train_on, hold_out = split_documents(store.num_documents, config.validation, config.training.seed)
        _check_enough(config, store, len(train_on))
        _check_fits(config.objective, model.config)
        leak = diagnose_kmers(store.tokenizer.kmer, config.objective)
        if leak and leak.severity != "ok":
            _say(f"{leak.what}; {leak.do}")
        if config.spectral_start and "init" not in config.model and can_start(model) and not saved:
            spectral_start(model, store, train_on)
        held_out = _batches(config, store, hold_out, model.config.max_length) if len(hold_out) else None
        trained = train(
            model,
            _batches(config, store, train_on, model.config.max_length),
            pretraining_loss,
            config.training,
            output=config.output,
            validate=None if held_out is None else _validation(held_out, config.training.batch_tokens),
            resume=resume,
            stop_after=stop_after,
            header={
                "config": config.model_dump(mode="json"),
                "store_hash": store.hash,
                "machine": machine(),
                "unigram_entropy": unigram_entropy(store.unigram_counts),
                "parameters": sum(p.numel() for p in model.parameters()),
            },
            progress="training" if progress else None,
        )
        for note in trained.notes:
            _say(note)
        return save_model(config.output / "model", model, store.tokenizer)


def _say(note: str) -> None:
    Console(stderr=True).print(note, style="yellow", highlight=False, markup=False)


def _saved(config: PretrainConfig, store: TokenStore, resume: bool) -> bool:
    """Whether there is a checkpoint to go on from. UsageError, TrainingError: there is a run, but not one to resume."""
    path = config.output / "journal.jsonl"
    journal = read_journal(path)
    saved = any((config.output / "checkpoints").glob("step-*"))
    if not resume and (saved or (path.exists() and path.stat().st_size)):
        raise UsageError(
            "holds a run already", where=str(config.output), do="go on with --resume, or choose another output"
        )
    if saved and not journal:
        do = "restore it, or start a new run with another output"
        raise TrainingError("the first line is damaged, so how the run began is unknown", where=str(path), do=do)
    if journal:
        _check_same(config, store, journal[0])
    return saved


def _check_enough(config: PretrainConfig, store: TokenStore, documents: int) -> None:
    unknown = store.manifest.ledger.unk / store.num_tokens
    if unknown > _MOST_UNKNOWN:
        do = "train a tokenizer on this text (--kind dna, protein, or char), and prepare again"
        raise UsageError(f"{unknown:.0%} of the tokens are unknown to the tokenizer", where=str(config.store), do=do)
    if not documents:
        raise UsageError("no document is left to train on", where="validation", do="hold out less, or give more text")
    if config.objective.pair == "nsp" and documents < 2:
        raise UsageError("next-sentence prediction needs two documents or more", do="set objective.pair to 'sop'")


def _check_fits(objective: ObjectiveConfig, model: ModelConfig) -> None:
    if objective.denoise and not model.decoder_layers:
        do = "take preset = 'bart', or modern with decoder_layers"
        raise UsageError(
            f"{model.family} has no decoder beside an encoder to rebuild what was broken", where="model", do=do
        )
    if objective.next and model.decoder_layers:
        do = "take preset = 'gpt2', or modern with causal = true"
        raise UsageError(f"{model.family} has an encoder, which sees the next tokens", where="model", do=do)


def _batches(config: PretrainConfig, store: TokenStore, documents: NDArray[np.int64], length: int) -> Batches:
    training = config.training
    if config.objective.next:
        source = NextTokens(store, length=length, documents=documents)
    else:
        source = StoreExamples(store, config.objective, length=length, seed=training.seed, documents=documents)
    return Batches(
        source, batch_tokens=training.batch_tokens, length=length, seed=training.seed, packed=training.packed
    )


def _validation(held_out: Batches, batch_tokens: int) -> Validate:
    """The losses over the first million tokens; of next tokens also the perplexity and bits per byte of their text."""
    most = max(1, _MAX_VALIDATION_TOKENS // batch_tokens)
    per_byte = None
    if isinstance(held_out.source, NextTokens):
        per_byte = held_out.source.tokens_per_byte(most * held_out.sequences_per_batch) / math.log(2)

    def validate(model: Model) -> dict[str, float]:
        measured = mean_loss(model, islice(held_out.once(), most), pretraining_loss)
        if per_byte is None:
            return measured
        loss = measured["eval_loss"]
        return measured | {"eval_perplexity": math.exp(min(loss, 700)), "eval_bits_per_byte": loss * per_byte}

    return validate


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
    known = ["preset", "size", "init", *(name for name in ModelConfig.model_fields if name not in NOT_TO_BE_SET)]
    for key in values:
        if key in NOT_TO_BE_SET:
            raise UsageError(f"{key} is not to be set", where="model", do="the preset and the tokenizer decide it")
        if key not in known:
            raise UsageError(f"unknown key {key!r}; {hint(key, known)}", where="model")
    if "init" in values:
        folder = local_folder(str(values.pop("init")))
        if values:
            raise UsageError(f"model.{next(iter(values))} cannot be given with model.init", where="model")
        vocab_size = read_config(folder).config.vocab_size  # what is no model is told as such, not as no tokenizer
        if Tokenizer.load(folder).hash != store.tokenizer.hash:
            raise UsageError(
                "was made with another tokenizer than the model",
                where=str(config.store),
                do="prepare it with the model's",
            )
        return load_model(folder, heads=_heads(config, vocab_size))[0]
    vocab_size = store.tokenizer.vocab_size
    chosen = preset(
        values.pop("preset", "modern"),
        values.pop("size", "mini"),
        vocab_size=vocab_size,
        max_length=values.pop("max_length", 128),
        pad_id=store.tokenizer.pad_id or 0,
        **values,
    )
    return Model(chosen, _heads(config, vocab_size), seed=config.training.seed)


def _heads(config: PretrainConfig, vocab_size: int) -> dict[str, int]:
    objective = config.objective
    wanted = {"next": objective.next or objective.denoise, "masked": objective.masked, "pair": objective.pair}
    return {head: 2 if head == "pair" else vocab_size for head, learned in wanted.items() if learned}


def _check_same(config: PretrainConfig, store: TokenStore, start: dict[str, Any]) -> None:
    """A resumed run must be the same run: UsageError names the first setting that is not."""
    if start.get("store_hash") != store.hash:
        raise UsageError(
            "the store is not the one that the run began with",
            where=str(config.store),
            do="put that one back, or start a new run with another output",
        )
    now, before = _flat(config.model_dump(mode="json")), _flat(start.get("config") or {})
    for name in sorted((now.keys() | before.keys()) - _FREE):
        if now.get(name) != before.get(name):
            raise UsageError(
                f"{name} is now {now.get(name)!r} but the run began with {before.get(name)!r}",
                where=str(config.output),
                do="put it back, or start a new run with another output",
            )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in _flat(value).items()} if isinstance(value, dict) else {key: value}
    return flat
