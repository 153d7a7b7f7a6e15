"""Aligning languages: how near a model puts translations to each other, layer by layer, beside honest baselines."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pluri.checkpoints.huggingface import load_model
from pluri.errors import DataError
from pluri.inference.alignment import WordMeans, directions, mean_sentences, mean_vectors
from pluri.models.heads import Model
from pluri.run.bilingual import (
    FEWEST,
    Language,
    Parallel,
    Segmented,
    check_dictionary,
    corpus_names,
    read_parallel,
)
from pluri.run.command import command_line
from pluri.run.shift import Shift, measure_shift
from pluri.tasks.alignment import Case, Judge, halves, static_vectors
from pluri.tasks.word2vec import check_installed
from pluri.tokens.dictionary import Dictionary, Entries, read_dictionary, written
from pluri.tokens.tokenizer import Tokenizer

MODEL, RANDOM_START, STATIC, CENTRING = "model", "random start", "CBOW + Procrustes", "centring"
CANDIDATES, OCCURRENCES = "entries that occur, the candidates", "their occurrences"
MEDIAN = "occurrences of the median one"

_Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Alignment:
    """What was found.

    names: of the languages. rows: one a task ("words", "sentences"), method, layer, similarity, direction and metric,
    with its 95% interval over the queries. layer: of the model, chosen by the words that static vectors were mapped by.
    differences: of its MRR by CSLS to those of the baselines, and of centring to not centring; each with its interval.
    shifts: what language vectors do. about: counts, by what they count. notes: what a reader must know.
    command: that made it.
    """

    names: tuple[str, str]
    layer: int
    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    shifts: list[Shift]
    about: dict[str, int]
    notes: list[str]
    command: str


def align(
    model: str | Path,
    dictionary: str,
    corpora: tuple[str, str],
    *,
    parallel: tuple[str, str] | None = None,
    progress: bool = False,
) -> Alignment:
    """Ranks translations by the cosine of their vectors: of every layer, in both directions, beside two baselines.

    model: a folder; it is not changed. dictionary: two columns, words of the first language and of the second
    (`read_dictionary`). corpora: a file, folder, glob or URL of each language: a word's vector is the mean over its
    occurrences there, a sentence at a time. All words of a language that the dictionary and its corpus have are
    candidates.
    parallel: two files, line by line translations of each other, for sentence retrieval.
    Baselines: the same architecture with random weights, and CBOW of the same text, mapped by an orthogonal map from
    half of the dictionary; all methods are judged on the other half's words. A sentence's static vector is the mean of
    its words'.
    progress: say on stderr what is going on.
    DataError: the dictionary's columns are in the other order; too few of its words occur; the parallel files differ in
    length. UsageError: gensim is not installed; the others and CheckpointError as the parts say.
    """
    check_installed()
    say = Console(stderr=True, quiet=not progress, highlight=False, markup=False).print
    pairs = read_dictionary(dictionary)
    lines_of = None if parallel is None else read_parallel(*parallel)
    first, second = (
        Language(name, source, Entries(pair[side] for pair in pairs.pairs))
        for side, (name, source) in enumerate(zip(corpus_names(corpora), corpora, strict=True))
    )
    with ExitStack() as open_files:
        files = []
        for corpus in (first, second):
            say(f"reading {corpus.source}")
            files.append(open_files.enter_context(tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt")))
            corpus.read(files[-1])
        check_dictionary(pairs, first, second)
        loaded, tokenizer = load_model(model)
        work = _Work(loaded, tokenizer, pairs, (first, second), lines_of)
        work.judge_models(say)
        say(STATIC)
        work.judge_static([Segmented(file.name) for file in files])
    about: dict[str, Any] = {"dictionary": dictionary, "corpus": tuple(corpora), "parallel": parallel}
    return work.found(command_line("align", model=model, **about, output="report.html"), say)


class _Work:
    """The words and sentences that are judged, and what was found of them so far."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        dictionary: Dictionary,
        corpora: tuple[Language, Language],
        parallel: Parallel | None,
    ) -> None:
        self.model, self.tokenizer, self.dictionary, self.parallel = model, tokenizer, dictionary, parallel
        self.corpora, self.names = corpora, (corpora[0].name, corpora[1].name)
        self.sentences = None
        if parallel is not None:
            self.sentences = Judge(np.repeat(np.arange(len(parallel.texts[0]))[:, None], 2, axis=1))
        self.means: list[WordMeans] = []

    def judge_models(self, say: _Say) -> None:
        """The model, and the same with random weights. The words are those that the model has read."""
        layers = range(self.model.config.num_layers + 1)
        for method in (MODEL, RANDOM_START):
            say(method)
            model = self.model if method == MODEL else Model(self.model.config, seed=1)
            means = [mean_vectors(model, self.tokenizer, c.texts, c.entries) for c in self.corpora]
            self.means = self.means or means
            for layer in layers:
                both = (each.vectors[layer][at] for each, at in zip(means, self.known, strict=True))
                self.words.judge(method, layer, *both)
            if self.sentences is not None and self.parallel is not None:
                found = [mean_sentences(model, self.tokenizer, texts) for texts in self.parallel.texts]
                for layer in layers:
                    self.sentences.judge(method, layer, *(each[layer] for each in found))

    def judge_static(self, texts: Sequence[Segmented]) -> None:
        learnt = [static_vectors(text) for text in texts]
        named = [list(map(Language.spelled, at.tolist())) for at in self.known]
        source, target = (each.vectors[each.of(names)] for each, names in zip(learnt, named, strict=True))
        self.words.judge(STATIC, None, source, target, mapped=True)
        if self.sentences is not None and self.parallel is not None:
            onto = self.words.map(directions(source, "raw"), directions(target, "raw")).numpy()
            each = zip(learnt, self.corpora, self.parallel.texts, strict=True)
            source, target = (np.concatenate([of.mean(c.names(text)) for text in lines]) for of, c, lines in each)
            self.sentences.judge(STATIC, None, source @ onto, target)

    @cached_property
    def known(self) -> list[NDArray[np.int64]]:
        """Of each language the numbers of the entries that the model has read: the candidates."""
        return [np.flatnonzero(means.counts) for means in self.means]

    @cached_property
    def words(self) -> Judge:
        """DataError: too few are left, since the model did not read what stands beyond its length."""
        place = [dict(zip(known.tolist(), range(len(known)), strict=True)) for known in self.known]
        numbers = [corpus.entries.numbers for corpus in self.corpora]
        both = [tuple(place[i].get(numbers[i][pair[i]], -1) for i in (0, 1)) for pair in self.dictionary.pairs]
        pairs = np.array([pair for pair in both if min(pair) >= 0], np.int64).reshape(-1, 2)
        judge = Judge(pairs, halves(pairs)) if len(pairs) >= FEWEST else None
        if judge is None or not all(len(queries) for queries in judge.queries):
            what = f"{len(pairs):,} of its {len(both):,} pairs occur in both corpora where the model has read them"
            do = f"give more text: {FEWEST} pairs of different words are the least"
            raise DataError(what, where=self.dictionary.file, do=do)
        return judge

    def found(self, command: str, say: _Say) -> Alignment:
        layer = self.words.best_layer(MODEL)
        assert layer is not None
        rows = self.words.rows("words", self.names, (len(self.known[0]), len(self.known[1])))
        if self.sentences is not None:
            count = len(self.sentences.pairs)
            rows += self.sentences.rows("sentences", self.names, (count, count))
        notes, shifts = self._notes(), []
        if "masked" in self.model.heads:
            say("language vectors")
            means, texts = (self.means[0].mean, self.means[1].mean), (self.corpora[0].texts, self.corpora[1].texts)
            shifts = measure_shift(self.model, self.tokenizer, self.names, means, texts)
        else:
            notes.append("the model predicts no masked tokens, so language vectors are not tried")
        return Alignment(self.names, layer, rows, self._differences(layer), shifts, self._about(), notes, command)

    def _differences(self, layer: int) -> list[dict[str, Any]]:
        found = []
        random: tuple[str, int | None] = RANDOM_START, self.words.best_layer(RANDOM_START)
        for side in (0, 1):
            ours = MODEL, layer
            cases: dict[str, tuple[Case, Case]] = {
                RANDOM_START: ((*ours, "csls", side), (*random, "csls", side)),
                STATIC: ((*ours, "csls", side), (STATIC, None, "csls", side)),
                CENTRING: ((*ours, "centred", side), (*ours, "raw", side)),
            }
            for what, both in cases.items():
                less = self.words.difference(*both)
                about = {"what": what, "direction": f"{self.names[side]} to {self.names[1 - side]}"}
                found.append({**about, "value": less.value, "low": less.low, "high": less.high})
        return found

    def _about(self) -> dict[str, int]:
        dictionary, learns = self.dictionary, self.words.learns
        assert learns is not None
        about = {
            "lines of the dictionary": dictionary.read,
            "pairs": len(dictionary.pairs),
            "pairs with a phrase": dictionary.phrases,
            "pairs that stood there before": dictionary.repeated,
            "lines that are not two columns": len(dictionary.left_out),
            "pairs that occur in both corpora": len(self.words.pairs),
            "pairs that static vectors are mapped by": int(learns.sum()),
        }
        for side, (corpus, means) in enumerate(zip(self.corpora, self.means, strict=True)):
            counts, name = means.counts[means.counts > 0], corpus.name
            about |= {
                f"{name}: sentences": corpus.sentences,
                f"{name}: words": corpus.words,
                f"{name}: words beyond the model's length": means.cut,
                f"{name}: entries that never occur": len(corpus.entries) - len(counts),
                f"{name}: {CANDIDATES}": len(counts),
                f"{name}: {OCCURRENCES}": int(counts.sum()),
                f"{name}: {MEDIAN}": int(np.median(counts)),
                f"{name}: words that are judged": len(self.words.queries[side]),
            }
        if self.parallel is not None:
            about["parallel lines"] = self.parallel.read
            about["of them with an empty side, or there before"] = self.parallel.left_out
            about["parallel sentences that are judged"] = len(self.parallel.texts[0])
        return about

    def _notes(self) -> list[str]:
        """What is to be known of single words, with the first of each kind."""
        notes = list(self.dictionary.left_out[:5])
        for corpus, means in zip(self.corpora, self.means, strict=True):
            never, entries = np.flatnonzero(means.counts == 0), list(corpus.entries.numbers)
            if len(never):
                some = ", ".join(written(entries[i]) for i in never[:5]) + (", ..." if len(never) > 5 else "")
                notes.append(f"{len(never):,} entries never occur in {corpus.source}: {some}")
            if any(len(entry) > 1 and " " not in written(entry) for entry in entries):
                where = "a word of several characters is found where its string stands, the longest first"
                notes.append(f"{corpus.name}: {where}; its vector is the mean over its characters")
        return notes
