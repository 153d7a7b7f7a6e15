"""The report on what each layer of a model knows of context."""

from collections.abc import Sequence
from pathlib import Path

from pluri.report.charts import Section
from pluri.report.page import Line, Page, lines, table, text
from pluri.report.words import Headline
from pluri.run.layers import GEOMETRY, PREDICTION, PRETRAINED, PROBABILITY, RANDOM_START, STATIC, Layers, Row

_AXIS = "layer (0 is the embedding)"
_MEASURES = {
    "self_similarity": (
        "Self-similarity",
        "The mean cosine of a word's vectors in two sentences. A static vector has 1 before its baseline is taken "
        "off; the "
        "lower, the more the sentence makes the vector.",
    ),
    "intra_sentence_similarity": (
        "Intra-sentence similarity",
        "The mean cosine of the words of a sentence with their mean: whether words of one sentence come to be alike, "
        "as "
        "they need not to be contextual.",
    ),
    "maximum_explainable_variance": (
        "Maximum explainable variance",
        "The share of a word's vectors that one static vector could explain at best.",
    ),
    "anisotropy": (
        "Anisotropy: the baseline",
        "The mean cosine of any two words: 0 if vectors point everywhere, near 1 if all lie in one narrow cone. It is "
        "taken "
        "off the first two measures; off the third, the share that as many words drawn by chance have.",
    ),
}


def write_layers_report(found: Layers, output: str | Path) -> Path:
    """Writes what `pluri.layers` found as one HTML file. DataError: it cannot be written."""
    page = Page(f"the layers of {found.model}", headline(found), found.command)
    if found.of("pseudo_words"):
        page.add("Two words written as one", *_pseudo_words(found))
    if found.of(GEOMETRY[0]):
        page.add("How contextual the vectors are", *_geometry(found))
    if found.of("probe_accuracy"):
        page.add("What a linear probe reads off", *_probes(found))
    page.add("What was measured", *_samples(found))
    return page.write(output)


def headline(found: Layers) -> Headline:
    """What the numbers say, in words, whatever they are."""
    told = [*_of_pseudo_words(found), *_of_geometry(found), *_of_probes(found)]
    claim, *details = told or ["Nothing could be measured"]
    claim, _, evidence = claim.partition(" | ")
    return Headline(claim, evidence, details=[*details, *found.notes])


def _of_pseudo_words(found: Layers) -> list[str]:
    rows, random = found.of("pseudo_words"), found.of("pseudo_words", RANDOM_START)
    if not rows or not random:
        return []
    best, chance = _best(rows), _best(random)
    if best.low > max(chance.high, 0.5):
        bought = "pretraining taught it that"
    elif best.low > 0.5:
        bought = "which is no clear gain: what pretraining adds does not show here"
    else:
        bought = "and neither is clearly above chance, 50%: this model does not use context for such words"
    said = [
        f"Layer {best.layer} tells two words written as one apart in {best.value:.0%} of their sentences"
        f" | 95% interval {best.low:.0%} to {best.high:.0%}, {found.samples['pairs of words']} pairs of words",
        f"The same model from a random start reaches {chance.value:.0%} at best: {bought}.",
    ]
    for row in found.of("pseudo_words", STATIC):
        said.append(f"Static vectors have one for both words, and tell {row.value:.0%}: chance, by construction.")
    for row in found.of("pseudo_words", PREDICTION):
        versus = "more than" if row.low > best.high else "less than" if row.high < best.low else "about as much as"
        said.append(f"The masked prediction at that place tells {row.value:.0%}, {versus} the vectors.")
    first = rows[0]
    if first.layer == 0 and first.low > 0.5:
        said.append(
            f"The embedding tells {first.value:.0%}: it sees no context, but where in its sentence a word stands."
        )
    return said


def _of_geometry(found: Layers) -> list[str]:
    alike = found.of("self_similarity")
    if not alike:
        return []
    first, last = alike[0], alike[-1]
    span = f"from {first.value:.2f} in the embedding to {last.value:.2f} in layer {last.layer}"
    if last.high < first.low:
        said = [f"Self-similarity falls {span}: higher layers are more contextual, as Ethayarajh (2019) found."]
    elif last.low > first.high:
        said = [f"Self-similarity rises {span}, against what Ethayarajh (2019) found of published models."]
    else:
        said = [f"Self-similarity stays as it is, {span}, against what Ethayarajh (2019) found of published models."]
    variance, base = found.of("maximum_explainable_variance")[-1], found.of("variance_baseline")[-1]
    said.append(
        f"In layer {variance.layer} one static vector could explain at best {variance.value + base.value:.0%} of a "
        "word's "
        f"vectors; of the vectors of any words, drawn by chance, it explains {base.value:.0%}."
    )
    cone = _best(found.of("anisotropy"))
    narrow = "a narrow cone" if cone.value > 0.5 else "a wide cone" if cone.value > 0.1 else "almost all directions"
    said.append(f"Any two words have a mean cosine of up to {cone.value:.2f} (layer {cone.layer}): {narrow}.")
    inside = found.of("intra_sentence_similarity")
    direction = "closer to" if inside[-1].low > inside[0].high else "no closer to"
    said.append(f"Words of one sentence come {direction} each other from the embedding to the last layer.")
    return said


def _of_probes(found: Layers) -> list[str]:
    rows, random = found.of("probe_accuracy"), found.of("probe_accuracy", RANDOM_START)
    if not rows:
        return []
    best, chance, chosen = _best(rows), _best(random), _best(found.of("selectivity"))
    said = [
        f"A linear probe reads {best.value:.0%} of the tags off layer {best.layer}, {chance.value:.0%} off a random "
        "start.",
        f"Its selectivity, what it does better than on tags drawn for each word, is largest in layer {chosen.layer}: "
        f"{100 * chosen.value:.0f} points.",
    ]
    if best.low <= chance.high:
        said.append("That is no clear gain over the random start: the probe may learn the tags of words by heart.")
    return said


def _pseudo_words(found: Layers) -> list[Section]:
    places = list(range(found.depth + 1))
    others = {
        STATIC: STATIC,
        PREDICTION: PREDICTION,
        PROBABILITY: "masked prediction, mean probability of the true word",
    }
    rows = [
        *_rows(found, "pseudo_words"),
        *([name, _shown(row), ""] for of, name in others.items() for row in found.of("pseudo_words", of)),
    ]
    flat = [
        Line(of, places, [row.value] * len(places))
        for of in (STATIC, PREDICTION)
        for row in found.of("pseudo_words", of)
    ]
    each = [_line(found.of("pseudo_words", of), of) for of in (PRETRAINED, RANDOM_START)]
    example = found.pairs[0]
    return [
        text(
            f"In every sentence one of two words, such as “{example[0]}” and “{example[1]}”, was written "
            f"“{''.join(example)}”. "
            "What the model makes of that artificial word can differ only by what is around it. From its vectors the "
            "nearer of "
            "two means tells which word it was, on sentences that the means were not made of; chance is 50%. The "
            "prediction is "
            "the model's own: which of the two it holds for likelier where the word is masked."
        ),
        lines(
            [*each, *flat, Line("chance", places, [0.5] * len(places), dashed=True)],
            "Line chart of the share that is told apart, over the layers. The table below has the same numbers.",
            x=_AXIS,
            y="share told apart",
            caption="Bands: 95% intervals over pairs.",
        ),
        table(
            ["layer", PRETRAINED, RANDOM_START], rows, "Share of occurrences whose word is told, with its 95% interval."
        ),
    ]


def _geometry(found: Layers) -> list[Section]:
    blocks = [
        text(
            "The measures of Ethayarajh (2019), each minus what words drawn by chance have: vectors that lie in a "
            "narrow cone "
            "are alike whatever they mean, and that is no merit of theirs."
        )
    ]
    for measure, (name, about) in _MEASURES.items():
        each = [_line(found.of(measure, of), of) for of in (PRETRAINED, RANDOM_START)]
        label = f"Line chart of {name} over the layers. The table below it has the same numbers."
        blocks += [text(about, heading=name), lines(each, label, x=_AXIS, y=name.partition(":")[0])]
        blocks.append(table(["layer", PRETRAINED, RANDOM_START], _rows(found, measure), folded="The numbers"))
    return blocks


def _probes(found: Layers) -> list[Section]:
    each = [
        _line(found.of(measure, of), f"{name}, {of}")
        for of in (PRETRAINED, RANDOM_START)
        for measure, name in (("probe_accuracy", "tags"), ("control_accuracy", "control"))
    ]
    chosen = [_line(found.of("selectivity", of), of) for of in (PRETRAINED, RANDOM_START)]
    return [
        text(
            "Logistic regression reads the tags off each layer. The control task gives every word one tag drawn by "
            "chance: a "
            "probe can only learn it by heart. The difference is its selectivity (Hewitt and Liang 2019)."
        ),
        lines(each, "Line chart of accuracies over the layers.", x=_AXIS, y="accuracy"),
        lines(chosen, "Line chart of selectivity over the layers.", x=_AXIS, y="selectivity"),
        *(
            table(["layer", PRETRAINED, RANDOM_START], _rows(found, measure), folded=f"The numbers: {name}")
            for measure, name in (
                ("probe_accuracy", "accuracy on the tags"),
                ("control_accuracy", "accuracy on the control task"),
                ("selectivity", "selectivity"),
            )
        ),
    ]


def _samples(found: Layers) -> list[Section]:
    rows = [[name, f"{count:,}"] for name, count in found.samples.items()]
    pairs = ", ".join(f"{a} + {b}" for a, b in found.pairs)
    return [table(["drawn by chance", "how many"], rows), *([text(f"The pairs of words: {pairs}.")] if pairs else [])]


def _line(rows: Sequence[Row], name: str) -> Line:
    return Line(
        name,
        [row.layer or 0 for row in rows],
        [row.value for row in rows],
        [row.low for row in rows],
        [row.high for row in rows],
    )


def _rows(found: Layers, measure: str) -> list[list]:
    """A row a layer: pretrained and random start, each with its interval below it."""
    random = {row.layer: row for row in found.of(measure, RANDOM_START)}
    return [
        [str(row.layer), _shown(row), _shown(random[row.layer]) if row.layer in random else "–"]
        for row in found.of(measure)
    ]


def _shown(row: Row) -> tuple[str, str]:
    return f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}"


def _best(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.value)
