"""Verbs that make a model from unlabelled sequences."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import pluri
from pluri.cli.base import Answer, Files, Flag, Folder, Json, Override, TextColumn, app, nothing_at


@app.command
def quickstart(output: Folder = Path("quickstart"), *, minutes: float = 6.0, as_json: Json = False) -> Answer:
    """The main job on real data, end to end, with a report.

    Example: pluri quickstart --output quickstart

    Args:
        minutes: time to spend; less is faster and worse.
    """
    report = pluri.quickstart(output, minutes=minutes)
    return Answer(json.loads((output / "results.json").read_text(encoding="utf-8")), f"open {report}", as_json)


@app.command
def tokenizer(
    files: Files,
    /,
    *,
    output: Folder,
    kind: Literal[
        "wordpiece", "bpe", "unigram", "char", "word", "byte_bpe", "gpt2", "kmer", "dna", "protein"
    ] = "wordpiece",
    vocab_size: int = 8000,
    lowercase: Annotated[bool, Flag] = False,
    k: int = 6,
    sentinels: int = 0,
    sampling: float = 1.0,
    text_column: TextColumn = "text",
    as_json: Json = False,
) -> Answer:
    """Train a tokenizer; dna and protein have the letters of IUPAC, kmer has stretches of k letters.

    Example: pluri tokenizer corpus.txt --kind wordpiece --vocab-size 8000 -o tokenizer

    Args:
        sentinels: tokens <extra_id_0> ... for denoising as T5 does it, which has 100.
        sampling: of several languages, a file or folder each: below 1 the smaller ones weigh more, with 0 all the same.
    """
    nothing_at(output)
    made = pluri.train_tokenizer(
        files,
        kind=kind,
        vocab_size=vocab_size,
        lowercase=lowercase,
        k=k,
        sentinels=sentinels,
        sampling=sampling,
        text_column=text_column,
    )
    made.save(output)
    about = {"output": output, "vocab_size": made.vocab_size, "hash": made.hash}
    return Answer(about, f"{made.vocab_size:,} tokens: {output}", as_json)


@app.command
def prepare(
    files: Files,
    /,
    *,
    tokenizer: Annotated[Path, Parameter(help="Tokenizer folder.")],
    output: Folder,
    text_column: TextColumn = "text",
    language: str = "en",
    drop_duplicates: Annotated[bool, Flag] = False,
    workers: int | None = None,
    part: str | None = None,
    as_json: Json = False,
) -> Answer:
    """Turn files into a token store, on all cores. A killed run goes on where it was.

    Example: pluri prepare corpus.txt --tokenizer tokenizer -o store

    Args:
        language: ISO 639-1 code, for sentence boundaries.
        drop_duplicates: leave out documents seen before.
        workers: processes; all cores by default.
        part: do only a part of the work, 3/8 the third of eight, on any machine that has the files and the output;
            `pluri merge` then makes one store of all parts.
    """
    with _counting() as progress:
        make = pluri.prepare if part is None else partial(pluri.prepare_part, part)
        store = make(
            files,
            tokenizer,
            output,
            workers=workers,
            text_column=text_column,
            language=language,
            drop_duplicates=drop_duplicates,
            progress=progress,
        )
    if store is None:
        return Answer({"output": output, "part": part}, f"part {part} is done: {output}", as_json)
    return answer_of(store, output, as_json)


def answer_of(store: "pluri.TokenStore", output: Path, as_json: bool) -> Answer:
    """What is in a store; on stderr what is doubtful about it."""
    from pluri.run.symptoms_data import diagnose_ledger

    ledger = store.manifest.ledger.model_dump(mode="json")
    for finding in diagnose_ledger(ledger):
        if finding.severity != "ok":
            print(f"warning: {finding.what}; {finding.do}", file=sys.stderr)
    unknown = f", {ledger['unk'] / ledger['kept']:.2%} of them unknown"
    return Answer({"output": output, "ledger": ledger}, f"{store.num_tokens:,} tokens{unknown}: {output}", as_json)


@app.command
def pretrain(
    config: Path, /, *, override: Override = None, resume: Annotated[bool, Flag] = False, as_json: Json = False
) -> Answer:
    """Pretrain a model as CONFIG.toml says; the model folder is OUTPUT/model. Every setting is listed below.

    Example: pluri pretrain pretrain.toml --set training.minutes=30

    Args:
        resume: go on from the newest checkpoint.
    """
    folder = pluri.pretrain(pluri.PretrainConfig.load(config, override), resume=resume)
    return Answer({"model": folder}, f"model: {folder}", as_json)


@app.command
def verify_resume(config: Path, /, *, steps: int = 20, override: Override = None, as_json: Json = False) -> Answer:
    """Prove that resuming loses nothing: all steps at once, against half, stop, half. Exit code 1 if a bit differs.

    Example: pluri verify-resume pretrain.toml
    """
    verdict = pluri.verify_resume(pluri.PretrainConfig.load(config, override), steps=steps)
    run = f"{verdict.steps} steps at once, and stopped after {verdict.stopped_after} and resumed"
    text = f"equal to the bit, {verdict.tensors} tensors and every loss: {run}"
    if not verdict.equal:
        text = f"different: {run}; {', '.join(verdict.differences)}"
    return Answer(asdict(verdict), text, as_json, done=verdict.equal)


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """A line on stderr that counts documents and tokens, and says how fast they come."""
    from rich.console import Console

    began = time.monotonic()
    with Console(stderr=True).status("reading") as status:
        yield lambda documents, tokens: status.update(
            f"{documents:,} documents, {tokens:,} tokens, {tokens / (time.monotonic() - began):,.0f} tokens/s"
        )
