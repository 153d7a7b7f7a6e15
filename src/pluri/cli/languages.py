"""Verbs across languages."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import pluri
from pluri.cli.base import Answer, Json, Model, Override, app, nothing_at


@app.command
def align(
    *,
    model: Model,
    dictionary: str,
    corpus: tuple[str, str],
    parallel: tuple[str, str] | None = None,
    output: Annotated[Path | None, Parameter(["--output", "-o"], help="HTML file to write the report to.")] = None,
    as_json: Json = False,
) -> Answer:
    """Measure how near a model puts translations to each other, layer by layer, beside honest baselines.

    Example: pluri align --model run/model --dictionary en-zh.txt --corpus en.txt zh.txt -o alignment.html

    Args:
        dictionary: two columns, a word of each language a line; phrases where a tab parts the columns.
        corpus: text of the first language, and of the second.
        parallel: two more files, line by line translations of each other: of each sentence the other is looked for.
    """
    if output is not None:
        nothing_at(output)
    found = pluri.align(model, dictionary, corpus, parallel=parallel, progress=True)
    from pluri.report.alignment import headline, write_alignment_report

    told = headline(found)
    text = "\n".join([f"{told.claim} ({told.evidence})", *told.details])
    if output is not None:
        write_alignment_report(found, output)
        text += f"\nopen {output}"
    return Answer(asdict(found), text, as_json)


@app.command
def transfer(config: Path, /, *, override: Override = None, as_json: Json = False) -> Answer:
    """Fine-tune models in each language, and judge each in all of them: one table, also of what was never trained on.

    The file names task, models, train, validation and test (each {language = file}), and output; `only` says which
    model reads one language, `settings` what each `pluri finetune` gets. What is finished is not run again.

    Example: pluri transfer transfer.toml
    """
    results = pluri.transfer(pluri.TransferConfig.load(config, override))
    return Answer(asdict(results), str(results), as_json)
