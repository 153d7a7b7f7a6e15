"""The files of each task and of each pretraining, from the data sets as their publishers give them."""

import csv
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pluri.errors import DataError
from pluri.runtime import permuted
from pluri.sequences import read_records, read_rows
from pluri.sequences.lines import lines
from pluri.sequences.music import music_words

Row = tuple[str, ...]  # text, label (of tags as many characters each); where the publisher says so, also its part
PARTS = ("train", "validation", "test")
_PIECE, _LETTERS, _WORDS = 10_000, 120, 126
_KERN_LINES = 80  # music21 takes its time


class Source(NamedTuple):
    """domain: whose own pretraining. rows: the labelled sequences. settings: of `pluri finetune`.

    sizes: sequences to learn from (drawn anew by each seed), to choose by, and to test on.
    """

    domain: str
    rows: Callable[[Path], Iterable[Row]]
    sizes: tuple[int, int, int]
    settings: dict[str, Any]


def _splice(data: Path) -> Iterator[Row]:
    """Each sequence once, and none that has two labels. Windows around one gene are of one group: see `_genes`."""
    found: dict[str, set[str]] = {}
    for _, line in lines(str(data / "dna/uci_splice/splice.data")):
        if line.strip():
            label, _, text = (cell.strip() for cell in line.split(","))
            found.setdefault(text, set()).add(label)
    return ((text, *labels) for text, labels in found.items() if len(labels) == 1)


def _genes(data: Path) -> dict[str, str]:
    """The group of each sequence: genes that share a sequence are one."""
    gene_of: dict[str, str] = {}
    leader: dict[str, str] = {}

    def first(gene: str) -> str:
        while leader.setdefault(gene, gene) != gene:
            gene = leader[gene]
        return gene

    for _, line in lines(str(data / "dna/uci_splice/splice.data")):
        if line.strip():
            _, name, text = (cell.strip() for cell in line.split(","))
            gene = name.split("-")[0]
            leader[first(gene)] = first(gene_of.setdefault(text, gene))
    return {text: first(gene) for text, gene in gene_of.items()}


def _promoters(data: Path) -> Iterator[Row]:
    for _, line in lines(str(data / "dna/uci_promoters/promoters.data")):
        if line.strip():
            label, _, text = line.split(",")
            yield text.strip(), {"+": "promoter", "-": "other"}[label]


def _cnnprom(data: Path) -> Iterator[Row]:
    for name, label in (("Ecoli_prom", "promoter"), ("Ecoli_non_prom", "other")):
        records = read_records(str(data / f"dna/cnnprom/{name}.fa.zst"))
        yield from dict.fromkeys((record.text.upper(), label) for record in records)


def _structure(data: Path) -> Iterator[Row]:
    """Of each protein the longest stretch that was resolved, its first 120 residues: what is not, has no label."""
    folder = data / "protein/flip_secondary_structure"
    files = (read_records(str(folder / f"{name}.fasta.gz")) for name in ("sequences", "sampled"))
    masks = ("".join(line.split()) for _, line in lines(str(folder / "mask.fasta.gz")) if not line.startswith(">"))
    for sequence, states, mask in zip(*files, masks, strict=True):
        assert sequence.id == states.id
        assert len(sequence.text) == len(mask)
        stretch = max(mask.split("0"), key=len)
        start = mask.index(stretch)
        end = start + min(len(stretch), _LETTERS)
        if end - start >= 20:
            split = states.meta["description"]
            yield sequence.text[start:end], states.text[start:end], _part("SET=test" in split, "=True" in split)


def _gb1(data: Path) -> Iterator[Row]:
    """The 56 residues of the domain; what follows is the same in every row."""
    for row, _ in read_rows(str(data / "protein/flip_gb1/sampled.csv.gz")):
        yield row["sequence"][:56], row["target"], _part(row["set"] == "test", bool(row["validation"]))


def _part(test: bool, validation: bool) -> str:
    return PARTS[2 if test else 1 if validation else 0]


def _peptides(data: Path) -> Iterator[Row]:
    found = islice(lines(str(data / "protein/modlamp/AMPvsUniProt.csv")), 1, None)  # the first line counts the others
    cells = (line.split(",") for _, line in found if line.strip())
    return iter(dict.fromkeys((text[:_LETTERS], "peptide" if "1" in label else "other") for text, label in cells))


def _composers(data: Path) -> Iterator[Row]:
    """The first 126 words of the first 80 lines of each piece. A piece that cannot be read is named, and left out."""
    names = ("bach", "mozart", "beethoven", "chopin")
    pieces = [read_rows(str(data / f"music/kern_composers/{composer}.jsonl.zst")) for composer in names]
    for row, where in (found for each in zip_longest(*pieces) for found in each if found):
        kern = "\n".join(row["kern"].split("\n")[:_KERN_LINES])
        try:
            yield " ".join(music_words(kern, "kern", where).split()[:_WORDS]), row["composer"]
        except DataError as error:
            print(error)


SOURCES: dict[str, Source] = {
    "splice": Source("dna", _splice, (600, 150, 400), {"metric": "macro_f1"}),
    "promoters": Source("dna", _promoters, (60, 18, 28), {"metric": "accuracy"}),
    "cnnprom": Source("dna", _cnnprom, (500, 150, 400), {"metric": "mcc"}),
    "structure": Source("protein", _structure, (300, 30, 100), {"task": "tag", "metric": "accuracy"}),
    "gb1": Source("protein", _gb1, (600, 150, 400), {"regression": True, "metric": "spearman"}),
    "peptides": Source("protein", _peptides, (500, 150, 400), {"metric": "accuracy"}),
    "composers": Source("music", _composers, (300, 80, 200), {"metric": "macro_f1"}),
}


def make_task(name: str, data: Path, folder: Path, most: int | None = None) -> dict[str, str]:
    """Writes train, validation and test under `folder`, once, and returns their names. most: sequences to read."""
    source = SOURCES[name]
    suffix = "jsonl" if source.settings.get("task") == "tag" else "csv"
    files = {part: folder / f"{part}.{suffix}" for part in PARTS}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        genes = _genes(data) if name == "splice" else {}
        rows = list(islice(source.rows(data), most))
        held_out = (min(size, len(rows) // 3) for size in source.sizes[1:])
        parts = dealt(rows, lambda row: genes.get(row[0], row[0]), *held_out)
        for file, part in zip(files.values(), parts, strict=True):
            _write(file, part)
    return {part: str(file) for part, file in files.items()}


def dealt(rows: Sequence[Row], group: Callable[[Row], Hashable], validation: int, test: int) -> list[list[Row]]:
    """Training, validation, test, in one random order: whole groups fill the test, then the validation; the rest.

    Where the publisher says what is what, that is kept, and of each part as many are taken.
    """
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    members = list(groups.values())
    parts: list[list[Row]] = [[], [], []]
    for i in permuted(np.arange(len(members)), len(members), 0):
        given = [PARTS.index(part) for row in members[i] for part in row[2:]]
        place = given[0] if given else 2 if len(parts[2]) < test else 1 if len(parts[1]) < validation else 0
        if given and len(parts[place]) >= (len(rows), validation, test)[place]:
            continue
        parts[place] += [row[:2] for row in members[i]]
    return parts


def _write(file: Path, rows: Sequence[Row]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        if file.suffix == ".csv":
            csv.writer(out).writerows([("text", "label"), *rows])
        else:
            out.writelines(json.dumps({"tokens": list(text), "tags": list(tags)}) + "\n" for text, tags in rows)


CORPORA = {
    "english": ("text/eltec_eng/novels_eng.txt.zst",),
    "dna": ("dna/ecoli_536_genome/NC_008253.fna.zst", "dna/yeast_R64_genome/Saccharomyces_cerevisiae.R64-1-1.fa.zst"),
    "protein": ("protein/unlabelled_uniprot20k/uniprot_20k.fasta.zst",),
    "music": ("music/nottingham/nottingham_abc.jsonl.zst",),
}


def make_corpus(domain: str, data: Path, folder: Path, most: int | None) -> list[str]:
    """What a domain is pretrained on: genomes in records of 10,000 letters, tunes as words, the others as they are.

    most: so many sequences alone.
    """
    if most is None and domain in ("protein", "english"):
        return [str(data / name) for name in CORPORA[domain]]
    file = folder / f"{domain}.{'fa' if domain in ('dna', 'protein') else 'txt'}"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        texts = (text for name in CORPORA[domain] for text in _texts(domain, str(data / name)))
        with file.open("w", encoding="utf-8") as out:
            for i, text in enumerate(islice(texts, most)):
                out.write(f">{i}\n{text}\n" if file.suffix == ".fa" else f"{' '.join(text.split())}\n")
    return [str(file)]


def _texts(domain: str, file: str) -> Iterator[str]:
    if domain == "music":
        yield from (music_words(row["abc"], "abc", where) for row, where in read_rows(file))
        return
    for record in read_records(file):
        starts = range(0, len(record.text), _PIECE) if domain == "dna" else [0]
        yield from (record.text[start : start + _PIECE] for start in starts)
