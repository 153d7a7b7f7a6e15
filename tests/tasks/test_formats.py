import gzip
import json
from pathlib import Path

import pytest

from pluri.errors import DataError
from pluri.tasks.formats import read_labelled
from pluri.tasks.task import define_task

DATA = Path(__file__).parents[3] / "shared" / "data" / "tag"


def written(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'text,label\n"good, very",1\nbad,0\n'),
        ("a.tsv", "label\ttext\n1\tgood, very\n0\tbad\n"),
        ("a.jsonl", '{"text": "good, very", "label": 1}\n{"text": "bad", "label": 0.0}\n'),
    ],
)
def test_tables_for_classification(tmp_path, name, text):
    first, second = read_labelled(written(tmp_path, name, text), "classify")
    assert (first.units, first.labels) == (("good, very",), ("1",))
    assert (second.units, second.labels) == (("bad",), ("0",))
    assert second.where.endswith(f"{name}:{2 if name == 'a.jsonl' else 3}")


def test_other_columns_by_name(tmp_path):
    file = written(tmp_path, "a.tsv", "sentence\tstars\nnice\t5\n")
    (record,) = read_labelled(file, "classify", text_column="sentence", label_column="stars")
    assert (record.units, record.labels) == (("nice",), ("5",))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'sentence2,label,sentence1\nb,1,"a, a"\n'),
        ("a.tsv", "sentence1\tsentence2\tlabel\na, a\tb\t1\n"),
        ("a.jsonl", '{"sentence1": "a, a", "sentence2": "b", "label": 1}\n'),
    ],
)
def test_pairs(tmp_path, name, text):
    file = written(tmp_path, name, text)
    (record,) = read_labelled(file, "pair")
    assert (record.units, record.labels) == (("a, a", "b"), ("1",))
    (asked,) = read_labelled(file, "pair", labels=False, pair_columns=("sentence2", "sentence1"))
    assert (asked.units, asked.labels) == (("b", "a, a"), ())


def test_pairs_of_published_tables(tmp_path):
    """As the paraphrases of MRPC stand: a byte-order mark, CRLF, and quotes that are ordinary characters."""
    lines = ["\ufeffQuality\t#1 String\t#2 String", '1\t"We are\tWe "are', '0\tOne"\t"Two"']
    path = tmp_path / "a.tsv"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    records = read_labelled(str(path), "pair", pair_columns=("#1 String", "#2 String"), label_column="Quality")
    assert [record.units for record in records] == [('"We are', 'We "are'), ('One"', '"Two"')]


CONLL = "EU NNP B-ORG\nrejects VBZ O\n\n\n# NN O\n"
CONLLU = (
    "# text = vámonos\n1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_\n"
    "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_\n2.1\tx\tx\tX\t_\t_\t_\t_\t_\t_\n"
)


def test_conll_columns_first_is_the_token_and_last_the_tag(tmp_path):
    first, second = read_labelled(written(tmp_path, "a.conll", "-DOCSTART- -X- O\n\n" + CONLL), "tag")
    assert (first.units, first.labels) == (("EU", "rejects"), ("B-ORG", "O"))
    assert second.units == ("#",)
    assert second.where.endswith("a.conll:7")


def test_conll_tabs_may_hold_tokens_with_spaces(tmp_path):
    (record,) = read_labelled(written(tmp_path, "a.txt", "New York\tB\t\nis\tO\n\t\n"), "tag")
    assert (record.units, record.labels) == (("New York", "is"), ("B", "O"))


def test_conllu_takes_forms_and_upos_of_single_words(tmp_path):
    path = tmp_path / "a.conllu.gz"
    path.write_bytes(gzip.compress(CONLLU.encode()))
    (record,) = read_labelled(str(path), "tag")
    assert (record.units, record.labels) == (("vamos", "nos"), ("VERB", "PRON"))
    assert record.where.endswith("a.conllu.gz:3")


def test_json_lines_of_tokens_and_tags(tmp_path):
    file = written(tmp_path, "a.jsonl", json.dumps({"tokens": ["EU", "rejects"], "tags": ["B", "O"]}) + "\n")
    assert read_labelled(file, "tag")[0].labels == ("B", "O")


@pytest.mark.parametrize(
    ("name", "kind", "text", "message"),
    [
        ("a.csv", "classify", "text,lable\na,b\n", r"a\.csv:2: no column 'label' among text, lable;"),
        ("a.csv", "classify", "text,label\na,\n", r"a\.csv:2: column 'label' is empty;"),
        ("a.csv", "classify", "text,label\n ,1\n", r"a\.csv:2: column 'text' is empty;"),
        ("a.csv", "classify", "text,label\n", r"a\.csv: .*no rows"),
        ("a.csv", "classify", "", r"a\.csv: .*empty"),
        ("a.csv", "pair", "sentence1,label\na,b\n", r"a\.csv:2: no column 'sentence2' among sentence1, label;"),
        ("a.csv", "pair", "sentence1,sentence2,label\na,b,1\na, ,0\n", r"a\.csv:3: column 'sentence2' is empty;"),
        ("a.csv", "pair", "sentence1,sentence2,label\na,b,\n", r"a\.csv:2: column 'label' is empty;"),
        ("a.conll", "tag", "EU B\nrejects\n", r"a\.conll:2: 1 columns where 2 are expected;"),
        ("a.conll", "tag", "EU B\nrejects X O\n", r"a\.conll:2: 3 columns where 2 are expected;"),
        ("a.conll", "tag", "EU\n", r"a\.conll:1: a token without a tag;"),
        ("a.conll", "tag", "\n\n", r"a\.conll: holds no sequence;"),
        ("a.conllu", "tag", "1\tvamos\tVERB\n", r"a\.conllu:1: 3 columns where 10 are expected;"),
        ("a.jsonl", "tag", '{"tokens": ["a", "b"], "tags": ["X"]}\n', r"a\.jsonl:1: 2 tokens but 1 tags;"),
        ("a.jsonl", "tag", '{"tokens": ["a"]}\n', r"a\.jsonl:1: no column 'tags' among tokens;"),
        ("a.jsonl", "tag", '{"tokens": ["a"], "tags": [1]}\n', r"a\.jsonl:1: 'tags' is not a list of strings"),
        ("a.jsonl", "tag", '{"tokens": "[a", "tags": []}\n', r"a\.jsonl:1: 'tokens' is not a list of strings"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, kind, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_labelled(written(tmp_path, name, text), kind)
    assert "\n" not in str(caught.value)


def test_what_has_no_labels_yet(tmp_path):
    texts = read_labelled(written(tmp_path, "a.txt", "one\n\ntwo\n"), "classify", labels=False)
    assert [(r.units, r.labels) for r in texts] == [(("one",), ()), (("two",), ())]
    (tokens,) = read_labelled(written(tmp_path, "b.txt", "EU\nrejects\n"), "tag", labels=False)
    assert (tokens.units, tokens.labels) == (("EU", "rejects"), ())
    (known,) = read_labelled(written(tmp_path, "c.csv", "text,label\na,b\n"), "classify", labels=False)
    assert known.labels == ()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in ../shared/data/tag")
@pytest.mark.parametrize(
    ("name", "sentences", "tokens", "scheme"),
    [
        ("wnut17/emerging.dev.conll.gz", 1009, 15733, "IOB2"),
        ("wnut17/emerging.test.annotated.gz", 1287, 23394, "IOB2"),
        ("peopledaily_ner/dev.txt.gz", 4631, 172601, "IOB2"),
        ("ud_chinese_gsd/zh_gsd-ud-test.conllu.gz", 500, 12010, None),
    ],
)
def test_real_files_for_tagging(name, sentences, tokens, scheme):
    records = read_labelled(str(DATA / name), "tag")
    assert (len(records), sum(len(record.units) for record in records)) == (sentences, tokens)
    assert define_task("tag", records).scheme == scheme
