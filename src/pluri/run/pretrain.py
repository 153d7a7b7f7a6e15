"""Pretraining: a token store in, a model folder out."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from pluri.batches.loader import Batches, Source
from pluri.batches.mixture import Mixture
from pluri.batches.order import BLOCK, of_few_shards
from pluri.checkpoints.config_json import read_config
from pluri.checkpoints.hub import local_folder
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.config import Config, Folder, Place, hint
from pluri.errors import TrainingError, UsageError
from pluri.losses import pretraining_loss
from pluri.models.config import ModelConfig, preset
from pluri.models.heads import Model
from pluri.objectives.causal import NextTokens
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.lock import only_writer
from pluri.run.symptoms_data import diagnose_kmers
from pluri.run.validation import validation
from pluri.runtime import local_rank, rank, sequence_keys, uniform, world_size
from pluri.tokens.joined import JoinedStore, open_stores
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.training.config import ParallelConfig, TrainingConfig
from pluri.training.journal import machine, read_journal
from pluri.training.parallel import joined, restarted
from pluri.training.spectral import can_start, spectral_start
from pluri.training.trainer import train

_MAX_VALIDATION_DOCUMENTS = 2000
_MOST_UNKNOWN = 0.5  # a model of such a store would learn to say "unknown"
_VALIDATION_STREAM = 2**62  # the counter under which documents are dealt out: no training sequence has it
# What may differ between a run and its resumption: none of it changes which data a step learns from.
_FREE = {"output", "store", *(f"parallel.{name}" for name in ParallelConfig.model_fields)} | {
    f"training.{name}"
    for name in (
        "steps", "tokens", "minutes", "learning_rate", "workers", "compile",
        "eval_steps", "patience", "checkpoint_minutes", "checkpoint_steps",
    )
}  # fmt: skip
_Documents = dict[str, NDArray[np.int64]]  # of each store by its name; of a single one, which has none, by ""
NOT_TO_BE_SET = ("family", "pad_id", "vocab_size")  # the preset and the tokenizer say what these are


class PretrainConfig(Config):
    """A pretraining run.

    store: the folder that `prepare` made, or the URL of a copy, such as s3://bucket/store; of several languages or
        domains {name = folder, ...}, all with one tokenizer.
    sampling: of several stores, sequences come from each in proportion to how many it has to the power of this: 1 as
        they are, 0 of each as many; below 1 a small language is seen more often (mBERT 0.7, XLM-R 0.3).
    output: gets journal.jsonl, checkpoints/ and model/.
    model: `preset` (a family: modern, bert, bart ...), `size` (tiny ... base), and any field of ModelConfig; or
        `init`, the folder of a model to go on from, or its name on the Hugging Face hub.
    validation: the share of documents held out to measure the loss on, at most 2,000 of them; the first million tokens
        of these are used. Of several stores each has its own, and eval_loss_NAME beside the mean, in which each weighs
        as it is sampled.
    spectral_start: begin from counted neighbours instead of chance, where the model has a context embedding.
    """

    verbatim: ClassVar[tuple[str, ...]] = ("store",)

    store: Place | dict[str, Place]
    sampling: float = Field(1.0, ge=0, le=1)
    output: Folder
    model: dict[str, Any] = Field(default_factory=dict)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    training: TrainingConfig
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    validation: float = Field(0.01, ge=0, lt=1)
    spectral_start: bool = True


@joined()
def pretrain(
    config: PretrainConfig, *, resume: bool = False, stop_after: int | None = None, progress: bool = True
) -> Path:
    """Runs it and returns the model folder, OUTPUT/model. The store is compared with its hashes: a small one before, of
    others each shard when it is first read.

    Started by torchrun it is the same run, on all processes: they need the same OUTPUT, and the store under one name.
    resume: go on from the newest whole checkpoint in OUTPUT (from the start if there is none yet). Of itself, where
        torchrun has started all processes again since one had died.
    stop_after: stop after this many steps, as if interrupted there.
    Ctrl-C and SIGTERM are obeyed between two steps, with a checkpoint: TrainingError says so.
    UsageError: OUTPUT holds a run, and this is not its resumption. Other kinds of PluriError: as the parts say.
    """
    resume = resume or restarted()
    store = open_stores(config.store)
    for each in _stores(store) if local_rank() == 0 else ():  # one process looks for all of its host
        if not each.remote and len(each.manifest.shards) <= BLOCK:
            each.verify()
    with only_writer(config.output) if rank() == 0 else nullcontext():
        saved = _saved(config, store, resume)
        model = _model(config, store)
        train_on, hold_out = _dealt(config, store)
        _check_enough(config, store, train_on)
        _check_fits(config.objective, model.config)
        leak = diagnose_kmers(store.tokenizer.kmer, config.objective)
        if leak and leak.severity != "ok":
            _say(f"{leak.what}; {leak.do}")
        if config.spectral_start and "init" not in config.model and can_start(model) and not saved:
            few = [of_few_shards(each, store.document_borders, config.training.seed) for each in train_on.values()]
            spectral_start(model, store, np.concatenate(few))
        source = _source(config, store, train_on, model.config.max_length)
        weights = dict(zip(train_on, source.draws.tolist(), strict=True)) if isinstance(source, Mixture) else {"": 1}
        held_out = {
            name: _batches(config, _source(config, store, {name: documents}, model.config.max_length), model)
            for name, documents in hold_out.items()
            if len(documents)
        }
        trained = train(
            model,
            _batches(config, source, model),
            pretraining_loss,
            config.training,
            output=config.output,
            validate=validation(held_out, weights, config.training.batch_tokens) if held_out else None,
            parallel=config.parallel,
            resume=resume,
            stop_after=stop_after,
            header={
                "config": config.model_dump(mode="json"),
                "store_hash": store.hash,
                "machine": machine() | ({"processes": world_size()} if world_size() > 1 else {}),
                "unigram_entropy": unigram_entropy(store.unigram_counts),
                "parameters": sum(p.numel() for p in model.parameters()),
                **({"sampled": {name: n / len(source) for name, n in weights.items()}} if len(weights) > 1 else {}),
            },
            progress="training" if progress else None,
        )
        for note in trained.notes:
            _say(note)
        folder = config.output / "model"
        return save_model(folder, model, store.tokenizer) if rank() == 0 else folder


def _stores(store: TokenStore) -> Sequence[TokenStore]:
    return store.stores if isinstance(store, JoinedStore) else [store]


def _say(note: str) -> None:
    Console(stderr=True, quiet=rank() > 0).print(note, style="yellow", highlight=False, markup=False)


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


def _dealt(config: PretrainConfig, store: TokenStore) -> tuple[_Documents, _Documents]:
    """(training, validation): of each store by itself, so that none is held out for another's sake."""
    names = list(config.store) if isinstance(config.store, dict) else [""]
    parts: tuple[_Documents, _Documents] = {}, {}
    first = 0
    for name, each in zip(names, _stores(store), strict=True):
        dealt = split_documents(each.num_documents, config.validation, config.training.seed, each.document_borders)
        for part, documents in zip(parts, dealt, strict=True):
            part[name] = documents + first
        first += each.num_documents
    return parts


def _check_enough(config: PretrainConfig, store: TokenStore, documents: _Documents) -> None:
    for each in _stores(store):
        unknown = each.manifest.ledger.unk / each.num_tokens
        if unknown > _MOST_UNKNOWN:
            do = "train a tokenizer on this text (--kind dna, protein, or char), and prepare again"
            raise UsageError(f"{unknown:.0%} of the tokens are unknown to the tokenizer", where=each.where, do=do)
    fewest = min(documents, key=lambda name: len(documents[name]))
    if not len(documents[fewest]):
        what = "no document" + f" of {fewest}" * bool(fewest) + " is left to train on"
        raise UsageError(what, where="validation", do="hold out less, or give more text")
    if config.objective.pair == "nsp" and len(documents[fewest]) < 2:
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


def _source(config: PretrainConfig, store: TokenStore, documents: _Documents, length: int) -> Source:
    """What is learnt from these documents: of several stores a mixture, each with chance of its own."""
    seed = config.training.seed
    sources: list[Source] = []
    for i, each in enumerate(documents.values()):
        if config.objective.next:
            sources.append(NextTokens(store, length=length, documents=each))
        else:
            sources.append(StoreExamples(store, config.objective, length=length, seed=seed + i, documents=each))
    return sources[0] if len(sources) == 1 else Mixture(sources, alpha=config.sampling, seed=seed)


def _batches(config: PretrainConfig, source: Source, model: Model) -> Batches:
    training, length = config.training, model.config.max_length
    return Batches(
        source, batch_tokens=training.batch_tokens, length=length, seed=training.seed, packed=training.packed
    )


def split_documents(
    count: int, share: float, seed: int, borders: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, validation): each document is dealt out by its own number, whatever else is in the store.

    borders: where the documents of each shard begin; of very many shards only a few are held out of, so that no
    validation has to open them all.
    """
    documents = np.arange(count)
    few = documents if borders is None else of_few_shards(documents, borders, seed)
    chance = uniform(sequence_keys(seed, 0, few), _VALIDATION_STREAM)
    share = min(share, _MAX_VALIDATION_DOCUMENTS / max(count, 1)) * (count / max(len(few), 1))
    held_out = few[chance < share]
    return np.delete(documents, held_out), held_out


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
                where=store.where,
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
    free = _FREE if isinstance(config.store, dict) else _FREE | {"sampling"}
    for name in sorted((now.keys() | before.keys()) - free):
        if not name.startswith("store.") and now.get(name) != before.get(name):
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
