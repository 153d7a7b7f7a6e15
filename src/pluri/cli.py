"""The command line: each verb is a short call of the Python API, with the same names and defaults.

A verb returns its Answer; `pluri.__main__` prints it and explains what went wrong.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import App, Parameter

import pluri
from pluri.errors import UsageError

Files = Annotated[list[str], Parameter(help="Files, folders, globs or URLs.", negative="")]
Flag = Parameter(negative="")
Folder = Annotated[Path, Parameter(["--output", "-o"], help="Folder to write to.")]
Json = Annotated[bool, Parameter("--json", negative="", help="Print the result as JSON.")]
Model = Annotated[Path, Parameter(help="Model folder, or a name on the Hugging Face hub.")]
Models = Annotated[list[Path], Parameter(help="Model folder, or a name on the hub; repeat it to compare.", negative="")]
OneFile = Annotated[Path, Parameter(["--output", "-o"], help="File to write.")]
Output = Annotated[Path, Parameter(["--output", "-o"], help="File to write; for answers a folder.")]
Override = Annotated[list[str] | None, Parameter("--set", negative="", help="Change a setting, repeatable: a.b=value.")]
PairColumns = Annotated[tuple[str, str], Parameter(help="Where a table keeps the two sequences of a pair.")]
Paths = Annotated[list[Path], Parameter(help="Run folders.", negative="")]
TextColumn = Annotated[str, Parameter(help="Where a table keeps the text.")]
Truncate = Annotated[bool, Parameter(negative="", help="Cut what is longer than the model reads.")]

app = App(
    name="pluri",
    help="Pretrain on sequences that nobody labelled, then do useful work with the few that somebody did.",
    version=pluri.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app["--help"].group = app["--version"].group = "Other"


class Answer(NamedTuple):
    """What a verb has to say: `value` for --json, `text` for people. done: False makes the exit code 1."""

    value: Any
    text: str
    as_json: bool
    done: bool = True

    def __str__(self) -> str:
        return json.dumps(self.value, ensure_ascii=False, indent=2, default=str) if self.as_json else self.text


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
    kind: Literal["wordpiece", "bpe", "unigram", "char", "byte_bpe", "gpt2", "kmer"] = "wordpiece",
    vocab_size: int = 8000,
    lowercase: Annotated[bool, Flag] = False,
    k: int = 6,
    sentinels: int = 0,
    text_column: TextColumn = "text",
    as_json: Json = False,
) -> Answer:
    """Train a tokenizer; for DNA, the kind kmer with k letters each.

    Example: pluri tokenizer corpus.txt --kind wordpiece --vocab-size 8000 -o tokenizer

    Args:
        sentinels: tokens <extra_id_0> ... for denoising as T5 does it, which has 100.
    """
    _nothing_at(output)
    made = pluri.train_tokenizer(
        files,
        kind=kind,
        vocab_size=vocab_size,
        lowercase=lowercase,
        k=k,
        sentinels=sentinels,
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
    as_json: Json = False,
) -> Answer:
    """Turn files into a token store, on all cores. A killed run goes on where it was.

    Example: pluri prepare corpus.txt --tokenizer tokenizer -o store

    Args:
        language: ISO 639-1 code, for sentence boundaries.
        drop_duplicates: leave out documents seen before.
        workers: processes; all cores by default.
    """
    with _counting() as progress:
        store = pluri.prepare(
            files,
            tokenizer,
            output,
            workers=workers,
            text_column=text_column,
            language=language,
            drop_duplicates=drop_duplicates,
            progress=progress,
        )
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
def finetune(
    config: Path | None = None,
    /,
    *,
    task: str | None = None,
    model: Path | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    output: Annotated[Path | None, Parameter(["--output", "-o"], help="Folder to write to.")] = None,
    override: Override = None,
    as_json: Json = False,
) -> Answer:
    """Fine-tune a model on labelled sequences, and compare it with honest baselines.

    Every setting is listed below, with its default.

    Example: pluri finetune --task classify --model run/model --train train.csv --validation dev.csv -o reviews

    Args:
        config: a TOML file with the same settings and more; what is given here wins.
        task: classify, pair (a label two sequences), tag (a label a token), answer (a question by part of a text), or
            translate (a text by a text).
        model: folder of the pretrained model, or its name on the Hugging Face hub.
        train: labelled file.
        validation: labelled file that chooses the best moment.
        test: labelled file that the results are measured on.
    """
    named = {"task": task, "model": model, "train": train, "validation": validation, "test": test, "output": output}
    given = [
        f"{name}={json.dumps(str(value), ensure_ascii=False)}" for name, value in named.items() if value is not None
    ]
    if config is None:
        said = {setting.partition("=")[0].strip() for setting in override or []}
        for name, value in named.items():
            if value is None and name not in said and name != "test":
                raise UsageError(f"--{name} is missing", do="give it, or a TOML file with it")
    settings = pluri.FinetuneConfig.load(config, given + (override or []))
    _nothing_at(settings.output)
    results = pluri.finetune(settings, progress=True)
    return Answer(asdict(results), _means(results.rows), as_json)


@app.command
def evaluate(
    *,
    model: Model,
    data: str,
    text_column: TextColumn = "text",
    pair_columns: PairColumns = ("sentence1", "sentence2"),
    label_column: str = "label",
    truncate: Truncate = False,
    override: Override = None,
    as_json: Json = False,
) -> Answer:
    """Measure a fine-tuned model on labelled data, with 95% intervals.

    Settings for answers: --set doc_stride=64 (tokens of OVERLAP between windows), max_answer_length, scoring, ...
    For tags of spans: --set legal=true.

    Example: pluri evaluate --model reviews --data test.csv

    Args:
        data: labelled file.
        label_column: where a table keeps the label.
    """
    columns: dict[str, Any] = {"text_column": text_column, "pair_columns": pair_columns, "label_column": label_column}
    found = pluri.evaluate(model, data, **columns, truncate=truncate, settings=override or ())
    metrics = [name.removesuffix("_low") for name in found if name.endswith("_low")]
    lines = [f"{m:12}{found[m]:.4f}  ({found[f'{m}_low']:.4f} to {found[f'{m}_high']:.4f})" for m in metrics]
    positive = f", positive_f1 is of {found['positive']!r}" if "positive" in found else ""
    scoring = f", compared by {found['scoring']}" if "scoring" in found else ""
    lines += found.get("notes", [])
    return Answer(found, "\n".join([*lines, f"{found['sequences']:,} sequences{scoring}{positive}"]), as_json)


@app.command
def predict(
    *,
    model: Model,
    input: str,
    output: Output,
    text_column: TextColumn = "text",
    pair_columns: PairColumns = ("sentence1", "sentence2"),
    truncate: Truncate = False,
    override: Override = None,
    as_json: Json = False,
) -> Answer:
    """Predict with a fine-tuned model: a line of JSON for each sequence; for answers a folder with the files of SQuAD.

    Settings for answers: --set doc_stride=64 (tokens of OVERLAP between windows), n_best_size, ...
    For tags of spans: --set legal=true.

    Example: pluri predict --model reviews --input new.csv -o predictions.jsonl

    Args:
        input: file in the format of the training file; labels are not needed, and not read.
    """
    _nothing_at(output)
    columns: dict[str, Any] = {"text_column": text_column, "pair_columns": pair_columns}
    count = pluri.predict(model, input, output, **columns, truncate=truncate, settings=override or ())
    return Answer({"output": output, "count": count}, f"{count:,} predictions: {output}", as_json)


@app.command
def fill(text: str, /, *, model: Model, top_k: int = 5, as_json: Json = False) -> Answer:
    """Fill in each [MASK] of a text, with probabilities.

    Example: pluri fill "the cat sat on the [MASK]" --model run/model

    Args:
        top_k: guesses a blank.
    """
    found = pluri.fill(text, model, top_k=top_k)
    return Answer(found, "\n".join(f"{g['score']:7.2%}  {g['token_str']}  {g['sequence']}" for g in found), as_json)


@app.command
def generate(
    *,
    model: Model,
    prompt: Annotated[list[str], Parameter(negative="", help="Text to go on with; repeatable. Empty: a new document.")],
    max_new_tokens: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    stop: Annotated[list[str] | None, Parameter(negative="", help="Text before which to stop; repeatable.")] = None,
    seed: int = 0,
    int8: Annotated[bool, Flag] = False,
    stream: Annotated[bool, Flag] = False,
    as_json: Json = False,
) -> Answer:
    """Go on with a text, with a causal model.

    Example: pluri generate --model run/model --prompt "The river" --max-new-tokens 50 --temperature 0.8

    Args:
        temperature: 0 takes the likeliest token.
        top_k: only of so many likeliest tokens.
        top_p: only of the fewest tokens that together are so probable.
        repetition_penalty: above 1, tokens that stand already are less likely.
        beams: keep so many texts, and give the likeliest; with --temperature 0.
        length_penalty: of beams: above 0 longer texts are better.
        seed: of chance.
        int8: round weights to 8 bits, a quarter of the memory that each token reads; on a CPU. Outputs change a little.
        stream: show the text while it is written; of one prompt.
    """
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}
    settings |= {"top_p": top_p, "repetition_penalty": repetition_penalty, "beams": beams, "seed": seed}
    settings |= {"length_penalty": length_penalty, "stop": tuple(stop or ()), "int8": int8}
    if stream:
        if as_json or len(prompt) > 1:
            raise UsageError("shows one text to people", where="--stream", do="leave out --json, or give one prompt")
        for piece in pluri.stream(prompt[0], model, **settings):
            print(piece, end="", file=sys.__stdout__, flush=True)
        return Answer(None, "", as_json)
    found = pluri.generate(prompt, model, **settings)
    return Answer(found, "\n\n".join(text["prompt"] + text["text"] for text in found), as_json)


@app.command
def prompt(
    task: Path,
    /,
    *,
    model: Models,
    shots: str = "0,1,2,4,8,16",
    seeds: int = 5,
    output: Annotated[Path | None, Parameter(["--output", "-o"], help="Folder for results.json.")] = None,
    as_json: Json = False,
) -> Answer:
    """Judge models on a task as they are, after none, one or a few examples. Nothing is trained.

    Example: pluri prompt polarity.toml --model run/model --shots 0,1,4,16

    Args:
        task: a TOML file with test, train, template and choices.
        shots: how many examples stand before each test row.
        seeds: draws of the examples and of their order.
    """
    if output is not None:
        _nothing_at(output)
    if not all(count.strip().isdecimal() for count in shots.split(",")):
        raise UsageError(f"{shots!r} is no list of counts", where="--shots", do="give such as --shots 0,1,4")
    counts = [int(count) for count in shots.split(",")]
    results = pluri.prompt(task, model, shots=counts, seeds=seeds, output=output, progress=True)
    return Answer(asdict(results), str(results), as_json)


@app.command(name="import")
def import_(source: str, /, *, output: Folder, as_json: Json = False) -> Answer:
    """Bring in a model of Hugging Face's: a folder, or a name on the hub, which is fetched once.

    Example: pluri import sentence-transformers/all-MiniLM-L6-v2 -o minilm
    """
    _nothing_at(output)
    converted = pluri.convert_model(source, output)
    return Answer(asdict(converted), str(converted), as_json)


@app.command
def export(*, model: Model, output: Folder, as_json: Json = False) -> Answer:
    """Write a model folder for other programs, and say what opens it.

    Example: pluri export --model run/model -o exported
    """
    _nothing_at(output)
    converted = pluri.convert_model(model, output)
    return Answer(asdict(converted), str(converted), as_json)


@app.command
def embed(
    files: Files,
    /,
    *,
    model: Model,
    output: OneFile,
    pooling: Literal["mean", "cls", "token"] = "mean",
    normalize: Annotated[bool, Flag] = False,
    max_length: int | None = None,
    text_column: TextColumn = "text",
    as_json: Json = False,
) -> Answer:
    """Write the vector of each record: .npy, .parquet, or .txt as word2vec text. Tokens' vectors need .parquet.

    Example: pluri embed corpus.txt --model run/model -o vectors.npy

    Args:
        pooling: the mean of a record's tokens, its first token, or every token.
        normalize: scale vectors to length 1.
        max_length: tokens of a record that are read; by default all that the model can.
    """
    _nothing_at(output)
    done = pluri.embed(
        files, model, output, pooling=pooling, normalize=normalize, max_length=max_length, text_column=text_column
    )
    cut = f", {done['truncated']:,} records cut at the model's length" if done["truncated"] else ""
    return Answer(done, f"{done['records']:,} records, width {done['width']}{cut}: {output}", as_json)


@app.command
def report(runs: Paths, /, *, output: OneFile, as_json: Json = False) -> Answer:
    """Write one HTML file about runs: loss, label efficiency, ledger, filled blanks. It needs no network.

    Example: pluri report run reviews -o report.html
    """
    pluri.write_report(runs, output)
    return Answer({"output": output}, f"open {output}", as_json)


@app.command
def doctor(
    paths: Annotated[list[Path] | None, Parameter(help="Run folders, stores, files.", negative="")] = None,
    /,
    *,
    show_corruption: Annotated[Path | None, Parameter(help="Show what denoising makes of a file's lines.")] = None,
    tokenizer: Annotated[Path | None, Parameter(help="For these lines: a tokenizer, a store or a model.")] = None,
    language: str = "en",
    as_json: Json = False,
) -> Answer:
    """Say by name what is wrong with runs, stores or files. The exit code is 1 if there is a problem.

    Example: pluri doctor run store train.csv test.csv

    Args:
        language: ISO 639-1 code, for the sentences of the shown lines.
    """
    if show_corruption is not None:
        from pluri.run.corruption import corruption_text

        shown = pluri.show_corruption(show_corruption, tokenizer, language=language)
        return Answer([asdict(each) for each in shown], corruption_text(shown), as_json)
    from rich.console import Console

    from pluri.run.findings import show_findings

    findings = pluri.diagnose(paths or [])
    console = Console(file=sys.__stdout__)
    with console.capture() as told:
        show_findings(findings, console)
    healthy = all(finding.severity != "problem" for finding in findings)
    return Answer([asdict(finding) for finding in findings], told.get().rstrip(), as_json, done=healthy)


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


def _nothing_at(output: Path) -> None:
    """A verb writes where nothing is, or into an empty folder. UsageError, before any work, if something is there.

    `prepare` and `pretrain` go on with what they began, and know by themselves what that is; `report` and `quickstart`
    renew theirs.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError("is there already", where=str(output), do="name another with -o, or move that one away")


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """A line on stderr that counts documents and tokens, and says how fast they come."""
    from rich.console import Console

    began = time.monotonic()
    with Console(stderr=True).status("reading") as status:
        yield lambda documents, tokens: status.update(
            f"{documents:,} documents, {tokens:,} tokens, {tokens / (time.monotonic() - began):,.0f} tokens/s"
        )


def _means(rows: list[dict[str, Any]]) -> str:
    """The metric that the task is judged by, each method's mean over the seeds, best first."""
    metric = rows[0]["metric"]
    values: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        if row["metric"] == metric:
            values.setdefault((row["labelled"], row["method"]), []).append(row["value"])
    ranked = sorted(((mean(found), *group) for group, found in values.items()), reverse=True)
    width = max(len(metric), 6) + 2
    lines = [f"{value:<{width}.4f}{labelled:>8,}  {method}" for value, labelled, method in ranked]
    return "\n".join([f"{metric:{width}}labelled  method", *lines])
