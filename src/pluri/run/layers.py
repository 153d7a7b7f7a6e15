"""What each layer of a model knows of context: one table of measures, pretrained against a random start."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pluri.checkpoints.huggingface import load_model
from pluri.errors import DataError
from pluri.models.heads import Model
from pluri.run.command import command_line
from pluri.run.corpus import Corpus, sampled
from pluri.run.layer_geometry import CONTEXTS, Sample, geometry
from pluri.run.layer_probes import probes, read_tagged
from pluri.run.layer_words import PseudoWords, by_prediction, by_static, by_vectors
from pluri.tasks.intervals import Interval
from pluri.tasks.word2vec import check_installed, train_static

PRETRAINED, RANDOM_START = "pretrained", "random start"
GEOMETRY = ("self_similarity", "intra_sentence_similarity", "maximum_explainable_variance")
STATIC, PREDICTION, PROBABILITY = "static (cbow)", "masked prediction", "masked probability"
_SENTENCES = 5000  # that pseudo-words are drawn from; evenly spaced _MEASURED of them serve the other measures
_MEASURED = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One number. measure: such as self_similarity. of: pretrained, random start, or what else it is of.

    layer: 0 is the embedding; None where no layer is meant. low, high: its 95% interval.
    """

    measure: str
    of: str
    layer: int | None
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Layers:
    """What `layers` found. command: that finds the same. samples: how many of what was measured, by its name.

    pairs: the words that were one artificial word each. notes: what could not be measured, and why.
    """

    model: str
    command: str
    depth: int
    rows: list[Row]
    samples: dict[str, int]
    pairs: list[tuple[str, str]]
    notes: list[str]

    def of(self, measure: str, of: str = PRETRAINED) -> list[Row]:
        """The rows of a measure, layer by layer; empty if it was not taken."""
        return [row for row in self.rows if (row.measure, row.of) == (measure, of)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def layers(
    files: Iterable[str | Path] | str | Path,
    model: str | Path,
    *,
    tags: str | None = None,
    language: str = "en",
    segmented: bool = False,
    seed: int = 0,
) -> Layers:
    """Measures each layer of a model on one's own text, and of the same model from a random start.

    files: text; 5,000 of its sentences are drawn by chance. language: ISO 639-1, of its sentences.
    tags: a file with a tag a word (see `read_labelled`): adds linear probes. segmented: words are what stands between
        blanks.
    DataError: too little text for any measure. UsageError: gensim is not installed.
    """
    check_installed()
    corpus = Corpus.of(files, language=language, segmented=segmented)
    tagged = None if tags is None else read_tagged(tags, seed)
    pretrained, tokenizer = load_model(model)
    sentences = list(dict.fromkeys(sampled(corpus, _SENTENCES, seed)))
    sample = Sample.of(sentences[:: max(1, len(sentences) // _MEASURED)][:_MEASURED], corpus, seed)
    words = PseudoWords.of(sentences, corpus, seed)
    if not sample.words and not words.pairs and tagged is None:
        what = f"no word stands in {CONTEXTS} of its {len(sentences)} sentences"
        raise DataError(what, where=", ".join(corpus.files), do="give more text")
    notes: list[str] = []
    rows: list[Row] = []
    if not sample.words:
        notes.append(f"No word stands in {CONTEXTS} sentences: similarities were not measured.")
    if not words.pairs:
        notes.append("Too few words are as frequent as another: there are no pseudo-words.")
    for of in (PRETRAINED, RANDOM_START):
        each = pretrained if of == PRETRAINED else Model(pretrained.config, pretrained.num_classes, seed=seed)
        if sample.words:
            rows += _rows(geometry(each, tokenizer, corpus, sample), of)
        if words.pairs:
            rows += _rows({"pseudo_words": by_vectors(each, tokenizer, corpus, words)}, of)
        if tagged is not None:
            rows += _rows(probes(each, tokenizer, tagged, seed), of)
    asked = 0
    if words.pairs:
        static = train_static(words.tokenized(corpus), seed=seed)
        rows += _rows({"pseudo_words": [by_static(static, words)]}, STATIC, layered=False)
        if "masked" in pretrained.heads and tokenizer.mask_id is not None:
            share, probability, asked = by_prediction(pretrained, tokenizer, words)
            rows += _rows({"pseudo_words": [share]}, PREDICTION, layered=False)
            rows += _rows({"pseudo_words": [probability]}, PROBABILITY, layered=False)
        else:
            notes.append("The model has no head that predicts masked tokens, so that its predictions were not asked.")
    samples = {
        "sentences": len(sentences),
        "sentences measured": len(sample.sentences),
        "words in several sentences": len(sample.words),
        "their occurrences": sum(map(len, sample.words.values())),
        "occurrences of the baseline": len(sample.anywhere),
        "pairs of words": len(words.pairs),
        "occurrences of the pairs": len(words.occurrences),
        "pairs asked by prediction": asked,
        "tagged sentences": len(tagged or ()),
    }
    spoken, seeded = None if language == "en" else language, seed or None
    about: dict[str, Any] = {"tags": tags, "language": spoken, "segmented": segmented, "seed": seeded}
    command = command_line("layers", *corpus.files, model=model, **about, output="report.html")
    return Layers(str(model), command, pretrained.config.num_layers, rows, samples, words.pairs, notes)


def _rows(found: Mapping[str, Sequence[Interval | None]], of: str, *, layered: bool = True) -> list[Row]:
    return [
        Row(measure, of, layer if layered else None, interval.value, interval.low, interval.high)
        for measure, each in found.items()
        for layer, interval in enumerate(each)
        if interval is not None
    ]
