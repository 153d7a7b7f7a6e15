"""Verbs that use a model as it is, or hand it over."""

import sys
from dataclasses import asdict
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import pluri
from pluri.cli.base import Answer, Files, Flag, Folder, Json, Model, OneFile, TextColumn, app, nothing_at
from pluri.errors import UsageError


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
def embed(
    files: Files,
    /,
    *,
    model: Model,
    output: OneFile,
    pooling: Literal["mean", "cls", "token", "word"] = "mean",
    layers: Annotated[
        list[int] | None, Parameter(negative="", help="Of words, repeatable: 0 is the embedding.")
    ] = None,
    normalize: Annotated[bool, Flag] = False,
    max_length: int | None = None,
    text_column: TextColumn = "text",
    as_json: Json = False,
) -> Answer:
    """Write the vector of each record: .npy, .parquet, or .txt as word2vec text. Tokens' and words' need .parquet.

    Example: pluri embed corpus.txt --model run/model -o vectors.npy

    Args:
        pooling: the mean of a record's tokens, its first token, every token, or every word.
        normalize: scale vectors to length 1.
        max_length: tokens of a record that are read; by default all that the model can.
    """
    nothing_at(output)
    if pooling == "word":
        if normalize:
            raise UsageError("words keep their lengths", where="--normalize", do="leave it out")
        done = pluri.embed_words(files, model, output, layers=layers, max_length=max_length, text_column=text_column)
        cut = f", {done['truncated']:,} words cut at the model's length" if done["truncated"] else ""
        return Answer(done, f"{done['words']:,} words, width {done['width']}{cut}: {output}", as_json)
    if layers is not None:
        raise UsageError("only words have vectors of chosen layers", where="--layers", do="give --pooling word")
    done = pluri.embed(
        files, model, output, pooling=pooling, normalize=normalize, max_length=max_length, text_column=text_column
    )
    cut = f", {done['truncated']:,} records cut at the model's length" if done["truncated"] else ""
    return Answer(done, f"{done['records']:,} records, width {done['width']}{cut}: {output}", as_json)


@app.command(name="import")
def import_(source: str, /, *, output: Folder, as_json: Json = False) -> Answer:
    """Bring in a model of Hugging Face's: a folder, or a name on the hub, which is fetched once.

    Example: pluri import sentence-transformers/all-MiniLM-L6-v2 -o minilm
    """
    nothing_at(output)
    converted = pluri.convert_model(source, output)
    return Answer(asdict(converted), str(converted), as_json)


@app.command
def export(*, model: Model, output: Folder, as_json: Json = False) -> Answer:
    """Write a model folder for other programs, and say what opens it.

    Example: pluri export --model run/model -o exported
    """
    nothing_at(output)
    converted = pluri.convert_model(model, output)
    return Answer(asdict(converted), str(converted), as_json)
