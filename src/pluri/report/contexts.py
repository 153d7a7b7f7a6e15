"""The report on one word in many sentences."""

from pathlib import Path
from string import ascii_uppercase

import numpy as np

from pluri.report.page import Line, Page, heat, lines, plot, sentences, table, text
from pluri.report.words import Headline
from pluri.run.contexts import Contexts
from pluri.tasks.clusters import SUBSTANTIAL

_SENTENCE = 160  # characters of one that are shown around the word
_HEADS = 200  # attention maps that a page carries
_FEW = 100_000  # words below which static vectors learnt from them are near to nothing in particular


def write_contexts_report(found: Contexts, output: str | Path) -> Path:
    """Writes what `pluri.compare` found as one HTML file. DataError: it cannot be written."""
    page = Page(f"{found.word} in {found.model}", headline(found), found.command)
    letters = [ascii_uppercase[each.cluster] for each in found.occurrences]
    names = [f"{letter}{letters[: i + 1].count(letter)}" for i, letter in enumerate(letters)]
    maps = {f"layer {layer}": found.cosines[layer] for layer in _first(found.layer, len(found.cosines))}
    if found.static.cosines is not None:
        maps["static"] = found.static.cosines
    page.add(
        "Each occurrence beside each other",
        text(
            "A cell is the cosine of the word's vectors in two sentences: 1 is the same direction. Sentences stand "
            "cluster "
            "by cluster; the list below has them by name. The choice shows other layers, 0 being the embedding before "
            "any "
            "layer, and the static vector, which is the same everywhere."
        ),
        plot(
            heat(maps, names, float(min(0, found.cosines.min())), 1, ("sentence", "sentence")),
            f"Heat map of the cosines of {len(names)} occurrences. The table of layers sums it up.",
            choices=list(maps),
        ),
    )
    page.add("The clusters and what is near them", *_clusters(found))
    page.add("Layer by layer", *_layers(found))
    page.add("Where each head looks", *_attention(found))
    return page.write(output)


def headline(found: Contexts) -> Headline:
    """What the numbers say, in words, whatever they are."""
    count, n = found.clusters.count, len(found.occurrences)
    silhouette = found.clusters.silhouette
    everywhere, baseline = float(found.mean_cosines()[found.layer]), float(found.baseline[found.layer])
    details = []
    if count > 1:
        within, between = (float(found.mean_cosines(within=side)[found.layer]) for side in (True, False))
        claim = f"{count} uses of “{found.word}” are told apart in {n} sentences"
        evidence = f"mean silhouette {silhouette:.2f}, a {found.clusters.strength} structure"
        if not np.isnan(within):
            details.append(
                f"In layer {found.layer} two occurrences of one cluster have a mean cosine of {within:.2f}, two of "
                f"different clusters {between:.2f}, any two words of different sentences {baseline:.2f}."
            )
        details.append(
            "Clusters are what the vectors show, not senses of a dictionary: read the sentences below to see whether "
            "they "
            "are two meanings, or two topics, or two places in a sentence."
        )
    else:
        claim = f"The {n} occurrences of “{found.word}” make one cluster"
        evidence = f"layer {found.layer}"
        if silhouette is None:
            details.append("With fewer than four sentences one use cannot be told from two: give more.")
        else:
            details.append(
                f"The best division into several has a mean silhouette of {silhouette:.2f}, and up to {SUBSTANTIAL} "
                "counts "
                "as no structure. Either the word is used in one way here, or this layer does not tell its uses apart."
            )
        details.append(
            f"Two occurrences have a mean cosine of {everywhere:.2f}, any two words of different sentences "
            f"{baseline:.2f}."
        )
    if everywhere <= baseline:
        details.append("The occurrences are no closer to each other than any two words: this layer has lost the word.")
    elif everywhere > 0.95:
        details.append("The vectors hardly differ from sentence to sentence: this layer is nearly static.")
    details.append(_about_static(found))
    if found.found > n:
        details.append(f"Drawn are {n} of {found.found:,} occurrences: one a sentence, by chance.")
    if found.lost:
        details.append(f"{found.lost} more stand beyond what the model reads of a sentence.")
    return Headline(claim, evidence, details=details)


def _about_static(found: Contexts) -> str:
    static = found.static
    if static.cosines is None:
        return f"The static vectors ({static.method}) have none for this word."
    cosine = static.cosines.min()
    told = f"The static vector ({static.method}) is one for all sentences: its cosine with itself is {cosine}"
    if static.trained_on is not None and static.trained_on < _FEW:
        told += f". It was learnt from {static.trained_on:,} words only: its neighbours mean little"
    return told + "."


def _clusters(found: Contexts) -> list:
    blocks = []
    for cluster, near in enumerate(found.neighbours):
        own = [each for each in found.occurrences if each.cluster == cluster]
        shown = [
            (
                _cut(each.sentence[: each.start], last=True),
                each.sentence[each.start : each.end],
                _cut(each.sentence[each.end :]),
            )
            for each in own
        ]
        title = f"{ascii_uppercase[cluster]}: {len(own)} sentence{'s' * (len(own) > 1)}"
        blocks.append(sentences(title, shown, f"Nearest other words: {_near(near)}."))
    blocks.append(
        text(
            "The nearest words are those of the file whose mean vector in that layer has the largest cosine with the "
            "mean of "
            f"the cluster. Near the static vector: {_near(found.static.neighbours) or 'none'}."
        )
    )
    return blocks


def _layers(found: Contexts) -> list:
    places = list(range(len(found.cosines)))
    every = found.mean_cosines()
    each = [Line("any two occurrences", places, every.tolist())]
    if found.clusters.count > 1:
        inside, across = (found.mean_cosines(within=side) for side in (True, False))
        if not np.isnan(inside).any():
            each += [Line("of one cluster", places, inside.tolist())]
        each += [Line("of two clusters", places, across.tolist())]
    if found.static.cosines is not None:
        each.append(Line(f"static ({found.static.method})", places, [float(found.static.cosines.min())] * len(places)))
    each.append(Line("any two words", places, found.baseline.tolist(), dashed=True))
    rows = [[f"{layer}", *(f"{line.y[layer]:.3f}" for line in each)] for layer in places]
    return [
        lines(
            each,
            "Line chart of mean cosines over the layers. The table below has the same numbers.",
            x="layer (0 is the embedding)",
            y="mean cosine",
        ),
        text(
            "A line that falls says that context enters the vectors. The dashed line is what any two words have: the "
            "narrower the cone that all vectors lie in, the higher it is, and only what is above it is about the word."
        ),
        table(["layer", *(line.name for line in each)], rows),
    ]


def _attention(found: Contexts) -> list:
    depth, heads = found.attention.shape[:2]
    kept = [(layer, head) for layer in reversed(range(depth)) for head in range(heads)][:_HEADS]
    maps = {f"layer {layer + 1}, head {head + 1}": found.attention[layer, head] for layer, head in kept}
    names = [f"{i} {piece}" for i, piece in enumerate(found.pieces)]
    return [
        text(
            "A row is a piece of the shortest sentence of the first cluster, and shows what share of its attention "
            "goes to "
            "each piece; it adds up to 1. The darkest cell is the largest share of that head. Attention says what is "
            "mixed, not why: read it as a hint."
        ),
        plot(
            heat(maps, names, 0, None, ("from", "to")),
            "Heat map of attention weights between the pieces of a sentence, one of each head.",
            choices=list(maps),
            caption="" if len(kept) == depth * heads else f"The {len(kept)} maps of the highest layers.",
        ),
    ]


def _first(chosen: int, count: int) -> list[int]:
    return [chosen, *(layer for layer in range(count) if layer != chosen)]


def _near(neighbours: list[tuple[str, float]]) -> str:
    return ", ".join(f"{word} ({cosine:.2f})" for word, cosine in neighbours)


def _cut(part: str, *, last: bool = False) -> str:
    """The part of a sentence that stands next to the word, its first or its last characters."""
    half = _SENTENCE // 2
    if len(part) <= half:
        return part
    return f"…{part[-half:]}" if last else f"{part[:half]}…"
