"""The best masked language model that 20 minutes on one GPU buy, and a small one in seven languages.

    python recipes/budget/run.py english DATA [--tasks sst2 mrpc squad ...] [--tiny]
    python recipes/budget/run.py multilingual DATA [--tiny]

DATA: a folder with the data sets as README.md lists them. Everything goes to ./budget; files of tasks to ./minilm, as
recipes/minilm makes them. english: modern.toml and bert.toml see the same store; prints the held-out loss of both by
minutes, then fine-tunes both by the TOMLs of recipes/minilm. multilingual: prints the MRR of `pluri align` and the
answers in all languages of `pluri transfer` after SQuAD in English alone. What is finished is not run again; a run that
was stopped (Ctrl-C, SIGTERM) goes on. --tiny: small models and little text, in minutes on a CPU, to see it run.
"""

import argparse
import gzip
import importlib.util
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

import pluri
from pluri.sequences import read_records, read_rows
from pluri.training.journal import read_journal

HERE, WORK = Path(__file__).parent, Path("budget")
BIBLE = "text/parallel_bible/bible_parallel.jsonl.zst"
MANUAL = "text/parallel_python_docs/python_docs_parallel.jsonl.zst"
ENGLISH = (
    "text/eltec_eng/novels_eng.txt.zst",
    "text/openstax_ccby/openstax_ccby.txt.zst",
    "text/openstax_ccbyncsa/openstax_ccbyncsa.txt.zst",
    "text/wikipedia_en/wiki_en_sample.txt.zst",
    "text/us_presidents/speeches.txt.zst",
)
# Besides the Bible in each, and Python's manual where it was translated.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "en": ENGLISH,
    "de": ("text/eltec_deu/novels_deu.txt.zst",),
    "es": ("text/eltec_spa/novels_spa.txt.zst",),
    "zh": ("text/zh_modern_of_classics/zh_modern.txt.zst", "text/zh_lctt_tech/zh_lctt.txt.zst"),
    "ru": (),
    "el": (),
    "vi": (),
}
DICTIONARIES = ("de", "es", "zh")
QUESTIONS = ("en", "de", "es", "zh", "ru", "el", "vi", "ar", "tr")
MINUTES = (1, 2, 4, 6, 8, 10, 15, 20)
HELD_OUT, JUDGED = 1000, 6000  # verses: the last ones, which no model sees, for sentences; to look words up in
_TINY = ("model.size=tiny", "model.max_length=64", "training.minutes=0.1", "training.batch_tokens=1024")
_TINY += ("training.eval_steps=5", "training.workers=1")
_FEW = ("labelled=60", "seeds=1", "min_steps=5", "epochs=0.1", "truncate=true")
Row = dict[str, Any]


def tasks() -> Any:
    """recipes/minilm/run.py, whose tasks these are."""
    spec = importlib.util.spec_from_file_location("minilm_tasks", HERE.parent / "minilm" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(path: Path, documents: Iterable[str], most: int | None) -> Path:
    """A document a line; at most so many, and then little of each."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (" ".join(each[: most and 3000].split()) for each in itertools.islice(documents, most))
        path.write_text("".join(f"{line}\n" for line in lines if line), encoding="utf-8")
    return path


def texts(data: Path, files: Iterable[str]) -> Iterator[str]:
    return (record.text for name in files for record in read_records(str(data / name)))


def rows_of(path: Path) -> list[Row]:
    return [row for row, _ in read_rows(str(path))]


def pages(rows: Iterable[Row], by: str, language: str) -> Iterator[str]:
    """The lines of a parallel text in one language, those of one chapter (`ref`) or page (`doc`) together."""
    for _, group in itertools.groupby(rows, key=lambda row: str(row[by]).rsplit(".", 1)[0]):
        yield " ".join(row[language] for row in group if row.get(language))


def pretrained(config: pluri.PretrainConfig) -> Path:
    """The folder of the model; a run that has one is finished."""
    folder = Path(config.output) / "model"
    if not folder.exists():
        pluri.pretrain(config, resume=(Path(config.output) / "journal.jsonl").exists())
    return folder


def english(data: Path, chosen: list[str], tiny: bool) -> None:
    folder = WORK / "english"
    text = write(folder / "text.txt", texts(data, ENGLISH), 30 if tiny else None)
    if not (folder / "tokenizer").exists():
        pluri.train_tokenizer(text, kind="bpe", vocab_size=1000 if tiny else 16_384).save(folder / "tokenizer")
    pluri.prepare(text, folder / "tokenizer", folder / "store")
    models = {}
    for name in ("modern", "bert"):
        models[name] = pretrained(pluri.PretrainConfig.load(HERE / f"{name}.toml", list(_TINY if tiny else ())))
    show_losses({name: read_journal(path.parent / "journal.jsonl") for name, path in models.items()})
    recipe, found = tasks(), {}
    for task in chosen:
        recipe.make_files(task, data)
        for name, model in models.items():
            results = folder / "results" / f"{name}-{task}"
            overrides = [f"model={model}", f"output={results}", *(_FEW if tiny else ())]
            if not (results / "results.json").exists():
                pluri.finetune(pluri.FinetuneConfig.load(HERE.parent / "minilm" / f"{task}.toml", overrides))
            found[task, name] = json.loads((results / "results.json").read_text(encoding="utf-8"))["rows"]
    show_tasks(found)


def show_losses(journals: dict[str, list[Row]]) -> None:
    """The held-out loss at the last validation before each minute; the last column is the end."""
    table = Table("model", *(f"{minute} min" for minute in MINUTES), "end", "tokens", title="held-out loss, nats")
    for name, events in journals.items():
        seen = [event for event in events if event["event"] == "validation"]
        cells = []
        for minute in MINUTES:
            before = [event["eval_loss"] for event in seen if event["seconds"] <= 60 * minute]
            cells.append(f"{before[-1]:.3f}" if before and seen[-1]["seconds"] > 60 * (minute - 1) else "")
        table.add_row(name, *cells, f"{seen[-1]['eval_loss']:.3f}", f"{seen[-1]['tokens']:,}")
    Console(width=140).print(table)


def show_tasks(found: dict[tuple[str, str], list[Row]]) -> None:
    table = Table("task", "metric", "model", "mean", "interval", title="fine-tuned, per cent")
    for (task, name), rows in found.items():
        metric = rows[0]["metric"]
        some = [row for row in rows if row["metric"] == metric and row["method"] == rows[0]["method"]]
        interval = f"{100 * some[0]['low']:.1f} to {100 * some[0]['high']:.1f}"
        table.add_row(task, metric, name, f"{100 * mean(row['value'] for row in some):.1f}", interval)
    Console(width=120).print(table)


def multilingual(data: Path, tiny: bool) -> None:
    folder = WORK / "multilingual"
    most = 30 if tiny else None
    files, bible, manuals = {}, rows_of(data / BIBLE), rows_of(data / MANUAL)
    for language, names in LANGUAGES.items():
        manual = pages(manuals, "doc", language)
        verses = itertools.islice(pages(bible[:-HELD_OUT], "ref", language), 20 if tiny else None)
        files[language] = write(
            folder / "text" / f"{language}.txt", itertools.chain(verses, texts(data, names), manual), most
        )
    if not (folder / "tokenizer").exists():
        vocabulary = 4000 if tiny else 32_768
        pluri.train_tokenizer(list(files.values()), kind="bpe", vocab_size=vocabulary, sampling=0.5).save(
            folder / "tokenizer"
        )
    for language, text in files.items():
        pluri.prepare(text, folder / "tokenizer", folder / f"store-{language}", language=language)
    config = pluri.PretrainConfig.load(HERE / "multilingual.toml", list(_TINY if tiny else ()))
    model = pretrained(config)
    show_alignment(model, data / "lexicon", folder, bible, 600 if tiny else JUDGED)
    show_transfer(model, data, tiny)


def show_alignment(model: Path, lexicon: Path, folder: Path, bible: list[Row], judged: int) -> None:
    """MRR by CSLS of words in the layer that `align` chose, and of sentences there: the mean of both directions."""
    table = Table("languages", "layer", "words", "random start", "CBOW + Procrustes", "sentences", title="MRR by CSLS")
    for language in DICTIONARIES:
        seen, held_out = (
            [(row["en"], row[language]) for row in some if row.get("en") and row.get(language)]
            for some in (bible[: 2 * judged], bible[-HELD_OUT:])
        )
        sides = []
        for side, name in enumerate(("en", language)):
            words, lines = (
                write(folder / "judged" / f"{language}-{name}-{what}.txt", [pair[side] for pair in some], None)
                for what, some in (("words", seen[:judged]), ("lines", held_out))
            )
            sides.append((str(words), str(lines)))
        (corpus, parallel) = zip(*sides, strict=True)
        dictionary = str(lexicon / f"en-{language}.freq.txt")
        found = pluri.align(model, dictionary, corpus, parallel=parallel, progress=True)

        def cell(task: str, method: str, found: Any = found) -> str:
            kind = {"task": task, "method": method, "similarity": "csls", "metric": "mrr"}
            rows = [row for row in found.rows if kind.items() <= row.items() and row["layer"] in (found.layer, None)]
            return f"{mean(row['value'] for row in rows):.3f}" if rows else ""

        words = (cell("words", method) for method in ("model", "random start", "CBOW + Procrustes"))
        table.add_row(f"en, {language}", str(found.layer), *words, cell("sentences", "model"))
    Console(width=120).print(table)


def show_transfer(model: Path, data: Path, tiny: bool) -> None:
    recipe = tasks()
    recipe.make_files("squad", data)
    tests = {}
    for language in QUESTIONS:
        tests[language] = str(recipe.WORK / "squad" / f"xquad.{language}.json")
        packed = (data / "qa" / "xquad" / f"xquad.{language}.json.gz").read_bytes()
        Path(tests[language]).write_bytes(gzip.decompress(packed))
    settings: Row = {"metric": "f1", "seeds": 3, "epochs": 3}
    if tiny:
        settings |= {"seeds": 1, "labelled": 60, "min_steps": 5, "epochs": 0.1}
        tests = {language: tests[language] for language in ("en", "de")}
    values = {"task": "answer", "models": {"budget": str(model)}, "output": str(WORK / "multilingual" / "xquad")}
    squad = {part: {"en": str(recipe.WORK / "squad" / f"{part}.json")} for part in ("train", "validation")}
    print(pluri.transfer(pluri.TransferConfig.parse({**values, **squad, "test": tests, "settings": settings})))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("english", "multilingual"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "cola", "mrpc", "rte", "stsb", "squad", "ewt"])
    parser.add_argument("--tiny", action="store_true", help="small models and little text, to see it run")
    options = parser.parse_args()
    if options.what == "english":
        english(options.data, options.tasks, options.tiny)
    else:
        multilingual(options.data, options.tiny)


if __name__ == "__main__":
    main()
