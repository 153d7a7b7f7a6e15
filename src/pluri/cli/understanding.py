"""Verbs that ask why a model works."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import pluri
from pluri.cli.base import Answer, Files, Flag, Json, Model, app, nothing_at

Report = Annotated[Path | None, Parameter(["--output", "-o"], help="HTML file to write the report to.")]


@app.command
def compare(
    word: str,
    /,
    *,
    sentences: Annotated[list[str], Parameter(help="Files, a sentence a line.", negative="")],
    model: Model,
    output: Report = None,
    layer: int | None = None,
    static: str = "cbow",
    segmented: Annotated[bool, Flag] = False,
    seed: int = 0,
    as_json: Json = False,
) -> Answer:
    """Compare the vectors of one word in many sentences: clusters, neighbours, and what a static vector makes of it.

    Example: pluri compare apple --sentences corpus.txt --model run/model -o apple.html

    Args:
        layer: whose vectors are clustered: 0 is the embedding; by default the last.
        static: cbow or skip-gram, learnt from the same file, or a file of static vectors (word2vec, GloVe).
        segmented: words are what stands between blanks, also where a script has none.
        seed: of what is drawn where there are too many sentences.
    """
    if output is not None:
        nothing_at(output)
    found = pluri.compare(word, sentences, model, layer=layer, static=static, segmented=segmented, seed=seed)
    from pluri.report.contexts import headline, write_contexts_report

    told = headline(found)
    text = "\n".join([f"{told.claim} ({told.evidence})", *told.details])
    if output is not None:
        write_contexts_report(found, output)
        text += f"\nopen {output}"
    return Answer(found.as_dict(), text, as_json)


@app.command
def layers(
    files: Files,
    /,
    *,
    model: Model,
    output: Report = None,
    tags: str | None = None,
    language: str = "en",
    segmented: Annotated[bool, Flag] = False,
    seed: int = 0,
    as_json: Json = False,
) -> Answer:
    """Measure how contextual each layer is: similarities, pseudo-words, and with tags linear probes.

    Example: pluri layers corpus.txt --model run/model --tags dev.conllu -o layers.html

    Args:
        tags: a file with a tag a word (.conllu, CoNLL columns, .jsonl), for the probes.
        language: ISO 639-1 code, for sentence boundaries.
        segmented: words are what stands between blanks, also where a script has none.
        seed: of what is drawn: sentences, words, the random start.
    """
    if output is not None:
        nothing_at(output)
    found = pluri.layers(files, model, tags=tags, language=language, segmented=segmented, seed=seed)
    from pluri.report.layers import headline, write_layers_report

    told = headline(found)
    text = "\n".join([f"{told.claim} ({told.evidence})" if told.evidence else told.claim, *told.details])
    if output is not None:
        write_layers_report(found, output)
        text += f"\nopen {output}"
    return Answer(found.as_dict(), text, as_json)
