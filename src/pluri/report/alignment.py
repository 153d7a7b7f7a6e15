"""The report on how two languages lie upon each other."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pluri.report.page import Line, Page, lines, sentences, table, text
from pluri.report.words import Headline
from pluri.run.align import CANDIDATES, CENTRING, MEDIAN, MODEL, OCCURRENCES, RANDOM_START, STATIC, Alignment
from pluri.run.shift import Shift

_SHOWN = {"raw": "cosine", "centred": "centred", "csls": "centred, CSLS"}
_DIFFERENCES = {
    RANDOM_START: "MRR against the same network with random weights",
    STATIC: "MRR against static vectors that learnt half the dictionary",
    CENTRING: "MRR with each language's mean taken away against without",
}
Row = dict[str, Any]


def write_alignment_report(found: Alignment, output: str | Path) -> Path:
    """Writes what `pluri.align` found as one HTML file. DataError: it cannot be written."""
    page = Page(f"{found.names[0]} and {found.names[1]}", headline(found), found.command)
    methods = (
        "A word's vector is the mean over its occurrences. For each word all words of the other language are ranked by "
        "cosine. MRR is the mean of 1 / rank of the best true translation; P@k the share of words whose translation is "
        "among the first k. Centred: each language's mean is taken away first. CSLS: a candidate that is near to "
        "everything counts for less (Conneau et al. 2018).",
        f"{STATIC}: static vectors of the same text, rotated by half of the dictionary. The model was not told a "
        "single pair. All are judged on the words of the other half; bands and small figures are 95% intervals over "
        "these.",
    )
    page.add("Words, layer by layer", text(*methods), *_blocks(found, "words"))
    if any(row["task"] == "sentences" for row in found.rows):
        about = "Of each sentence the mean of its words' vectors, among all sentences of the other language."
        page.add("Sentences, layer by layer", text(about), *_blocks(found, "sentences"))
    for shift in found.shifts:
        page.add(f"The vector {shift.direction}", *_shifted(shift))
    page.add("What was counted", table(["what", "how many"], [[key, f"{n:,}"] for key, n in found.about.items()]))
    if found.notes:
        page.add("To be known", text(*found.notes))
    return page.write(output)


def headline(found: Alignment) -> Headline:
    """What the numbers say, in words, whatever they are."""
    first, second = (_case(found, side=side, metric="p@1") for side in (0, 1))
    a, b = found.names
    claim = f"Layer {found.layer} finds the translation of {first['value']:.1%} of the words from {a} to {b}"
    claim += f" and of {second['value']:.1%} from {b} to {a}"
    evidence = f"first of {first['candidates']:,} and {second['candidates']:,} candidates; {_spans([first, second])}"
    details = [_plainly(found), *_against(found)]
    details += [
        f"The layer was chosen by the words that the static vectors were mapped by; the {first['queries']:,} and "
        f"{second['queries']:,} words that are judged had no part in that."
    ]
    for name in found.names:
        known, times, median = (found.about[f"{name}: {what}"] for what in (CANDIDATES, OCCURRENCES, MEDIAN))
        details.append(
            f"Of {name}, {known:,} entries of the dictionary occur {times:,} times, the median one {median:,}."
        )
    pairs = [row for row in _rows(found, "sentences", "csls", "p@1") if row["method"] == MODEL]
    if pairs:
        best = [max((r for r in pairs if r["direction"] == d), key=lambda row: row["value"]) for d in _ways(found)]
        told = (f"{r['value']:.1%} {r['direction']} (layer {r['layer']}, {_spans([r])})" for r in best)
        details.append(f"Of {best[0]['queries']:,} parallel sentences it finds, at best, {' and '.join(told)}.")
    details += [_turned(found, shift) for shift in found.shifts]
    return Headline(claim, evidence, details=details)


def _plainly(found: Alignment) -> str:
    """What the differences mean, as far as their intervals let it be said."""
    told = "Training has not clearly brought the two languages nearer to each other than spelling and chance have"
    if _sign(found, RANDOM_START) > 0:
        told = "Training has brought the two languages nearer to each other, without a single translation being told"
    more = {1: "more than", 0: "neither clearly more nor less than", -1: "less than"}[_sign(found, STATIC)]
    told += f"; the model knows {more} static vectors that learnt half a dictionary"
    if _sign(found, CENTRING) > 0:
        told += "; a part of what keeps the languages apart is one vector, the same for all words"
    return f"{told}. Guessing would find one word in {_case(found, side=0)['candidates']:,}."


def _sign(found: Alignment, what: str) -> int:
    """+1 or -1 if a difference has that sign in both directions, intervals included, else 0."""
    signs = {(each["low"] > 0) - (each["high"] < 0) for each in found.differences if each["what"] == what}
    return signs.pop() if len(signs) == 1 else 0


def _against(found: Alignment) -> Iterator[str]:
    """The differences, each with its interval."""
    for what, words in _DIFFERENCES.items():
        parts = []
        for less in (each for each in found.differences if each["what"] == what):
            sign = "better" if less["low"] > 0 else "worse" if less["high"] < 0 else "not clearly different"
            span = f"95% interval {less['low']:+.3f} to {less['high']:+.3f}"
            parts.append(f"{less['direction']} {sign} ({less['value']:+.3f}, {span})")
        yield f"{words}: {'; '.join(parts)}."


def _turned(found: Alignment, shift: Shift) -> str:
    target = shift.direction.rpartition(" to ")[2]
    before, after = (_share(shift, layer, target) for layer in (None, shift.layer))
    verdict = "not clearly more"
    if not after["low"] <= before["value"] <= after["high"]:
        verdict = "more" if after["value"] > before["value"] else "fewer"
    told = f"With the vector {shift.direction} added at layer {shift.layer}, {after['value']:.1%} of the masked tokens"
    masks = f"{shift.masks:,} masks in {shift.texts:,} sentences"
    return f"{told} are predicted in {target}, {verdict} than the {before['value']:.1%} without it ({masks})."


def _share(shift: Shift, layer: int | None, tokens: str) -> Row:
    return next(row for row in shift.shares if row["layer"] == layer and row["tokens"] == tokens)


def _blocks(found: Alignment, task: str) -> Iterator[Any]:
    """Of each direction the MRR over the layers, and a table of all metrics."""
    for way in _ways(found):
        mine = [row for row in found.rows if row["task"] == task and row["direction"] == way]
        layers = sorted({row["layer"] for row in mine if row["layer"] is not None})
        each = [_line(mine, MODEL, similarity, layers) for similarity in _SHOWN]
        each.append(_line(mine, RANDOM_START, "csls", layers))
        if any(row["method"] == STATIC for row in mine):
            each.append(_line(mine, STATIC, "csls", layers))
        label = f"Line chart of the MRR {way} over the layers. The table below has the same numbers."
        yield lines(each, label, x="layer (0 is the embedding)", y=f"MRR, {way}")
        yield table(["", "MRR", "P@1", "P@5", "P@10"], list(_table(mine)), f"{way}, {mine[0]['queries']:,} {task}")


def _line(rows: Sequence[Row], method: str, similarity: str, layers: Sequence[int]) -> Line:
    """A method without layers is a straight line."""
    found = {r["layer"]: r for r in rows if (r["method"], r["similarity"], r["metric"]) == (method, similarity, "mrr")}
    points = [found.get(layer) or found[None] for layer in layers]
    value, low, high = ([row[key] for row in points] for key in ("value", "low", "high"))
    return Line(f"{method}, {_SHOWN[similarity]}", layers, value, low, high, dashed=method != MODEL)


def _table(rows: Sequence[Row]) -> Iterator[list[Any]]:
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        for layer in dict.fromkeys(row["layer"] for row in mine):
            for similarity, shown in _SHOWN.items():
                cells = [r for r in mine if r["layer"] == layer and r["similarity"] == similarity]
                name = f"{method}{'' if layer is None else f' {layer}'}, {shown}"
                yield [name, *((f"{r['value']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}") for r in cells)]


def _shifted(shift: Shift) -> Iterator[Any]:
    kinds = list(dict.fromkeys(row["tokens"] for row in shift.shares))
    layers = [row["layer"] for row in shift.shares if row["tokens"] == kinds[0]]
    yield text(
        "The mean of all words of the second language less that of the first, added at a layer to sentences of the "
        f"first: the tokens that are then predicted for {shift.masks:,} masks in {shift.texts:,} sentences. A token "
        "is of a language if it is ten times as frequent there, else of both."
    )
    rows = [
        [
            "nothing added" if layer is None else f"layer {layer}",
            *((f"{r['value']:.1%}", _spans([r])) for r in (_share(shift, layer, kind) for kind in kinds)),
        ]
        for layer in layers
    ]
    yield table(["", *kinds], rows)
    shown = [
        (f"{each['text']} ", ", ".join(f"{m['before']} → {m['after']}" for m in each["masks"]), "")
        for each in shift.examples
    ]
    yield sentences(f"Before → after, layer {shift.layer}", shown)


def _ways(found: Alignment) -> list[str]:
    return list(dict.fromkeys(row["direction"] for row in found.rows))


def _rows(found: Alignment, task: str, similarity: str, metric: str) -> list[Row]:
    return [r for r in found.rows if (r["task"], r["similarity"], r["metric"]) == (task, similarity, metric)]


def _case(found: Alignment, *, side: int, similarity: str = "csls", metric: str = "mrr") -> Row:
    """Of the words, by the model, in the chosen layer."""
    rows, way = _rows(found, "words", similarity, metric), _ways(found)[side]
    return next(r for r in rows if (r["method"], r["layer"], r["direction"]) == (MODEL, found.layer, way))


def _spans(rows: Sequence[Row]) -> str:
    return " and ".join(f"{row['low']:.1%} to {row['high']:.1%}" for row in rows)
