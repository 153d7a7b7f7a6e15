"""Pluri: pretrain on sequences that nobody labelled, then do useful work with the few that somebody did.

What the command line does, in Python: each name is imported when it is first used, so that `import pluri` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pluri.checkpoints.exchange import convert_model as convert_model
    from pluri.checkpoints.huggingface import load_model as load_model
    from pluri.checkpoints.huggingface import save_model as save_model
    from pluri.demo import quickstart as quickstart
    from pluri.inference.embedding_files import embed as embed
    from pluri.inference.embedding_files import embed_words as embed_words
    from pluri.inference.fill import fill as fill
    from pluri.inference.generate import generate as generate
    from pluri.inference.generate import stream as stream
    from pluri.inference.word_vectors import word_vectors as word_vectors
    from pluri.report import write_report as write_report
    from pluri.run.align import align as align
    from pluri.run.contexts import compare as compare
    from pluri.run.corruption import show_corruption as show_corruption
    from pluri.run.doctor import diagnose as diagnose
    from pluri.run.finetune import FinetuneConfig as FinetuneConfig
    from pluri.run.finetune import finetune as finetune
    from pluri.run.layers import layers as layers
    from pluri.run.predict import evaluate as evaluate
    from pluri.run.predict import predict as predict
    from pluri.run.pretrain import PretrainConfig as PretrainConfig
    from pluri.run.pretrain import pretrain as pretrain
    from pluri.run.prompt import prompt as prompt
    from pluri.run.transfer import TransferConfig as TransferConfig
    from pluri.run.transfer import transfer as transfer
    from pluri.run.verify import verify_resume as verify_resume
    from pluri.tokens.prepare import merge_parts as merge_parts
    from pluri.tokens.prepare import prepare as prepare
    from pluri.tokens.prepare import prepare_part as prepare_part
    from pluri.tokens.store import TokenStore as TokenStore
    from pluri.tokens.tokenizer import Tokenizer as Tokenizer
    from pluri.tokens.training import train_tokenizer as train_tokenizer

_HOMES = {
    "FinetuneConfig": "run.finetune",
    "PretrainConfig": "run.pretrain",
    "TokenStore": "tokens.store",
    "Tokenizer": "tokens.tokenizer",
    "TransferConfig": "run.transfer",
    "align": "run.align",
    "compare": "run.contexts",
    "convert_model": "checkpoints.exchange",
    "diagnose": "run.doctor",
    "embed": "inference.embedding_files",
    "embed_words": "inference.embedding_files",
    "evaluate": "run.predict",
    "fill": "inference.fill",
    "finetune": "run.finetune",
    "generate": "inference.generate",
    "layers": "run.layers",
    "load_model": "checkpoints.huggingface",
    "merge_parts": "tokens.prepare",
    "predict": "run.predict",
    "prepare": "tokens.prepare",
    "prepare_part": "tokens.prepare",
    "pretrain": "run.pretrain",
    "prompt": "run.prompt",
    "quickstart": "demo",
    "save_model": "checkpoints.huggingface",
    "show_corruption": "run.corruption",
    "stream": "inference.generate",
    "train_tokenizer": "tokens.training",
    "transfer": "run.transfer",
    "verify_resume": "run.verify",
    "word_vectors": "inference.word_vectors",
    "write_report": "report",
}

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pluri' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pluri.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
