import gzip

import pyarrow as pa
import pytest

from pluri.errors import DataError, UsageError
from pluri.tasks.compare import STATIC, STATIC_RIDGE, compare
from pluri.tasks.fit import Tuning
from pluri.tasks.static import read_vectors, words_of
from pluri.tasks.task import Labelled, define_task

WORDS = ["the", "cat", "Cat", ". . .", "sat"]
GLOVE = "the 1 0\ncat 0 1\nother x x\nCat -2.5e-1 3\n. . . 4 5 \nthe 9 9\n"
TUNING = Tuning(min_steps=2, batch_tokens=256, validations=1)


def written(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.txt", GLOVE),
        ("v.vec", "6 2\n" + GLOVE),
        ("v.txt.gz", gzip.compress(GLOVE.encode())),
        ("v.txt.zst", pa.compress(GLOVE.encode(), "zstd", asbytes=True)),
    ],
)
def test_only_words_of_the_data_are_kept(tmp_path, name, content):
    found = read_vectors(written(tmp_path, name, content), WORDS)
    assert found.rows == {"the": 1, "cat": 2, "Cat": 3, ". . .": 4}
    assert found.vectors.tolist() == [[0, 0], [1, 0], [0, 1], [-0.25, 3], [4, 5]]
    assert found.of(["THE", "Cat", "CAT", "dog"]).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 0\ncat 1\n", r"v\.txt:2: 1 numbers, where 2 are expected; mend the line"),
        ("the 1 0\ncat 1.5 0.5 2\n", r"v\.txt:2: 3 numbers, where 2 are expected"),
        ("the 1 0\ncat 1 x\n", r"v\.txt:2: not a vector: could not convert string to float"),
        ("the 1 0\ncat 1 nan\n", r"v\.txt:2: not a vector: a number is not finite"),
        ("the\n", r"v\.txt:1: 0 numbers, where some are expected"),
        ("3 2\nthe 1 0\ncat 1 0\n", r"v\.txt: 2 words, where the first line announces 3"),
        ("3 2\nthe 1.5 0 0\n", r"v\.txt:2: 3 numbers, where 2 are expected"),
        ("hund 1 0\n", r"v\.txt: has a vector for no word of the data"),
        (b"the 1 0\ncat\xff 1 0\n", r"v\.txt:2: .* not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_vectors(written(tmp_path, "v.txt", content), WORDS)


def test_words_of_texts_and_characters_of_scripts_without_spaces():
    record = Labelled(("Don't go, 我们go",), ("x",), "f:1")
    task = define_task("classify", [record, Labelled(("a",), ("y",), "f:2")])
    assert words_of(task, record) == ["Don", "'", "t", "go", ",", "我", "们", "go"]


def test_features_are_means_of_texts_and_neighbours_of_tokens(tmp_path):
    vectors = read_vectors(written(tmp_path, "v.txt", "a 1 2\nb 3 6\n"), ["a", "b"])
    texts = [Labelled((text,), (label,), "f:1") for text, label in (("a b, x", "1"), ("x", "2"))]
    (block,) = vectors.features(define_task("classify", texts), texts)
    assert block.tolist() == [[2, 4], [0, 0]]
    assert vectors.coverage(define_task("classify", texts), texts) == 2 / 5
    tags = [Labelled(("a", "x", "b"), ("N", "V", "N"), "f:1"), Labelled(("b",), ("N",), "f:5")]
    (block,) = vectors.features(define_task("tag", tags), tags)
    assert block.tolist() == [[1, 2, 0, 0, 0, 0], [0, 0, 1, 2, 3, 6], [3, 6, 0, 0, 0, 0], [3, 6, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("maker", "kind", "method"), [("tagged", "tag", STATIC), ("measured", "classify", STATIC_RIDGE)]
)
def test_vectors_that_know_the_answer_are_one_more_row(made, small, tokenizer, tmp_path, maker, kind, method):
    """Each word's vector tells its letters: enough for the tags, and, in the mean, for the numbers."""
    pytest.importorskip("sklearn")
    parts = [getattr(made, maker)(count, seed) for count, seed in ((60, 1), (20, 2), (30, 3))]
    words = {word for part in parts for r in part for unit in r.units for word in unit.split()}
    lines = [f"{word} {int(word[0] > 'd')} {sum(c <= 'd' for c in word)} {len(word)}" for word in sorted(words)]
    file = written(tmp_path, "v.txt", "\n".join(lines) + "\n")
    task = define_task(kind, parts[0], regression=maker == "measured")
    (found,) = compare(small, tokenizer, task, *parts, tuning=TUNING, static_vectors=file)
    (run,) = (run for run in found.runs if run.method == method)
    assert run.outcome.value(task.metric) > 0.9
    assert found.coverage == 1
    with pytest.raises(UsageError, match="static_vectors"):
        compare(small, tokenizer, task, *parts, tuning=TUNING, static_vectors=file, baselines=False)
