"""Verbs on tasks: learning them, judging and applying what was learnt."""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

from cyclopts import Parameter

import pluri
from pluri.cli.base import (
    Answer,
    Json,
    Model,
    Models,
    Output,
    Override,
    PairColumns,
    TextColumn,
    Truncate,
    app,
    nothing_at,
)
from pluri.errors import UsageError


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
    nothing_at(settings.output)
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
    nothing_at(output)
    columns: dict[str, Any] = {"text_column": text_column, "pair_columns": pair_columns}
    count = pluri.predict(model, input, output, **columns, truncate=truncate, settings=override or ())
    return Answer({"output": output, "count": count}, f"{count:,} predictions: {output}", as_json)


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
        nothing_at(output)
    if not all(count.strip().isdecimal() for count in shots.split(",")):
        raise UsageError(f"{shots!r} is no list of counts", where="--shots", do="give such as --shots 0,1,4")
    counts = [int(count) for count in shots.split(",")]
    results = pluri.prompt(task, model, shots=counts, seeds=seeds, output=output, progress=True)
    return Answer(asdict(results), str(results), as_json)


def _means(rows: list[dict[str, Any]]) -> str:
    """The metric that the task is judged by, each method's mean over the seeds, best first."""
    metric = rows[0]["metric"]
    values: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        if row["metric"] == metric:
            name = row["method"] + (f", on {row['test']}" if "test" in row else "")
            values.setdefault((row["labelled"], name), []).append(row["value"])
    ranked = sorted(((mean(found), *group) for group, found in values.items()), reverse=True)
    width = max(len(metric), 6) + 2
    lines = [f"{value:<{width}.4f}{labelled:>8,}  {method}" for value, labelled, method in ranked]
    return "\n".join([f"{metric:{width}}labelled  method", *lines])
