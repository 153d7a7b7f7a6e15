import gzip
import json
from pathlib import Path

import pytest

from pluri.errors import DataError
from pluri.tasks.questions import read_questions

TEXT = "Paris is big. Rome is old, and Paris is new."
DATA = Path(__file__).parents[3] / "shared" / "data" / "qa"


def squad(*questions, context=TEXT):
    return {"data": [{"title": "Cities", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def asked(name, *answers, **more):
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": f"which {name}?", "answers": listed, **more}


def written(folder, content, name="q.json"):
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


@pytest.mark.parametrize("name", ["q.json", "q.json.gz"])
def test_squad(tmp_path, name):
    content = squad(
        asked("a", ("Rome", 14), ("Rome is old", 14), ("Rome", 14)),
        asked("b", is_impossible=True, plausible_answers=[{"text": "Rome", "answer_start": 14}]),
        asked("c"),
        {"id": "d", "question": "which?"},
    )
    found = read_questions(written(tmp_path, content, name))
    one, impossible, empty, unknown = found.records
    assert one.units == ("which a?", TEXT)
    assert one.references == ("Rome", "Rome is old", "Rome")
    assert one.spans == ((14, 18), (14, 25))
    assert one.document[slice(*one.spans[0])] == "Rome"
    assert impossible.references == empty.references == ()
    assert unknown.references is None
    assert (found.read, found.right, found.repaired, found.dropped, found.course) == (3, 3, 0, [], False)
    assert found.learnable == found.records


def test_misplaced_answers_are_repaired_or_dropped_and_it_adds_up(tmp_path):
    content = squad(
        asked("right", ("Rome", 14)),
        asked("moved", ("Rome", 13)),
        asked("unclear", ("Paris", 1), ("Rome", 14)),  # stands there twice
        asked("absent", ("Madrid", 14), ("", 3)),
    )
    found = read_questions(written(tmp_path, content))
    assert found.records[1].spans == ((14, 18),)
    assert found.records[2].spans == ((14, 18),)
    assert found.records[3].spans == ()
    assert found.records[3].references == ("Madrid", "")  # scores are of texts: an answer is still looked for
    assert (found.read, found.right, found.repaired, len(found.dropped)) == (6, 2, 1, 3)
    assert found.read == found.right + found.repaired + len(found.dropped)
    assert [question.id for question in found.learnable] == ["right", "moved", "unclear"]
    notes = "\n".join(found.notes())
    assert "4 questions; 6 answers read = 2 right + 1 repaired + 3 dropped" in notes
    assert "1 questions lost all answers" in notes
    assert "q.json, id unclear: the answer 'Paris' is not at 1, and is there more than once; dropped" in notes
    assert "q.json, id absent: the answer 'Madrid' is not at 14, and is not in its document; dropped" in notes
    assert "q.json, id absent: the answer '' is not at 3, and is empty; dropped" in notes


def course(*questions):
    return {"questions": list(questions), "paragraphs": [TEXT, "它們是老城市。"]}


def course_question(name, paragraph, text, start, end):
    keys = ("id", "paragraph_id", "question_text", "answer_text", "answer_start", "answer_end")
    return dict(zip(keys, (name, paragraph, "which?", text, start, end), strict=True))


def test_the_courses_format(tmp_path):
    content = course(
        course_question(0, 0, "Rome", 14, 17),
        course_question(1, 1, "老城市", 3, 5),
        course_question(2, 0, None, None, None),
        course_question(3, 0, "null", "null", "null"),
    )
    found = read_questions(written(tmp_path, content))
    assert found.course
    assert [question.id for question in found.records] == ["0", "1", "2", "3"]
    assert [question.spans for question in found.records] == [((14, 18),), ((3, 6),), (), ()]
    assert [question.references for question in found.records] == [("Rome",), ("老城市",), None, None]


ROWS = [
    {"id": "a", "question": "which?", "context": TEXT, "answers": [{"text": "Rome", "answer_start": 14}]},
    {"id": "b", "question": "which?", "context": TEXT, "answers": {"text": ["Rome"], "answer_start": [14]}},
    {"id": "c", "question": "which?", "context": TEXT, "answer": "Rome", "answer_start": 14},
    {"id": "d", "question": "which?", "context": TEXT, "answer": "Rome"},
    {"id": "e", "question": "which?", "context": TEXT, "answer": ""},
    {"id": "f", "question": "which?", "context": TEXT, "answer": None},
    {"id": "g", "question": "which?", "context": TEXT},
]


@pytest.mark.parametrize("name", ["q.jsonl", "q.json"])
def test_rows(tmp_path, name):
    lines = "\n".join(json.dumps(row) for row in ROWS)
    found = read_questions(written(tmp_path, lines, name))
    assert [question.spans for question in found.records[:4]] == [((14, 18),)] * 4
    assert [question.references for question in found.records[4:]] == [(), None, None]
    assert (found.right, found.repaired) == (3, 1)
    array = read_questions(written(tmp_path, ROWS, "array.json"))
    assert [question.spans for question in array.records] == [question.spans for question in found.records]


def test_a_table(tmp_path):
    text = f'id,question,context,answer,answer_start\na,which?,"{TEXT}",Rome,14\n'
    assert read_questions(written(tmp_path, text, "q.csv")).records[0].spans == ((14, 18),)


def test_answers_are_not_read_where_they_are_not_wanted(tmp_path):
    found = read_questions(written(tmp_path, squad(asked("a", ("Rome", 900)))), answers=False)
    assert found.records[0].references is None
    assert found.read == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (squad(asked("a"), asked("b"), asked("a")), r"q\.json, id a: the id 'a' stands twice;"),
        (squad(asked("a") | {"question": None}), r"q\.json, id a: the question is empty;"),
        (squad(asked("a"), context=""), r"q\.json, id a: the document is empty;"),
        (squad(asked("a", ("Rome", 44))), r"id a: the answer 'Rome' begins at 44, outside its document of 44 char"),
        (squad(asked("a", ("Rome", -1))), r"id a: the answer 'Rome' begins at -1, outside its document"),
        (squad(asked("a", ("Rome", "x"))), r"id a: answer_start is 'x'"),
        (squad(asked("a", (None, 3))), r"id a: the answer is not text: None"),
        (squad(asked(None)), r"a question without an id"),
        (course(course_question(7, 5, "Rome", 14, 17)), r"id 7: no paragraph 5; there are 2, counted from 0"),
        (course(course_question(7, 1, "老城市", 3, 9)), r"id 7: the answer ends at 9, after the last of its 7 char"),
        ({"data": [{"paragraphs": 3}]}, r"no list 'paragraphs'"),
        ({"data": []}, r"holds no question"),
        ('{"data": [\n{]}', r"q\.json:2: not valid JSON"),
        ('[{"id": "a", "question": "\\ud83d", "context": "x"}]', r"entry 1, id a: the question holds half a character"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_id(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_questions(written(tmp_path, content))


def test_rows_are_named_with_their_line(tmp_path):
    lines = json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1] | {"question": ""})
    found = read_questions(written(tmp_path, lines, "q.jsonl"))
    assert [question.id for question in found.records] == [ROWS[0]["id"]]
    assert len(found.left_out) == 1
    assert "q.jsonl:2, id b: the question is empty; left out" in found.left_out[0]
    assert any("1 questions left out" in note for note in found.notes())
    assert found.left_out[0] in found.notes()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in ../shared/data/qa")
@pytest.mark.parametrize(
    ("name", "count", "read", "repaired", "dropped"),
    [
        ("squad1.1/dev-v1.1.json.gz", 10570, 34726, 0, 0),
        ("drcd/DRCD_test.json.gz", 3493, 6986, 0, 0),
        ("hw07/hw7_dev.json.gz", 4131, 4131, 0, 0),
        ("squad_it/SQuAD_it-test.json.gz", 7609, 21489, 62, 47),
        ("xquad/xquad.ar.json.gz", 1190, 1190, 0, 0),
    ],
)
def test_real_files(name, count, read, repaired, dropped):
    found = read_questions(str(DATA / name))
    assert len(found.records) == count
    assert (found.read, found.repaired, len(found.dropped)) == (read, repaired, dropped)
    assert found.right == read - repaired - dropped
    for question in found.records:
        assert {question.document[start:end] for start, end in question.spans} <= set(question.references or ())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in ../shared/data/qa")
def test_real_files_without_answers_and_with_an_empty_question():
    found = read_questions(str(DATA / "cmrc2018" / "cmrc2018_trial.json.gz"))
    assert len(found.records) == 1000
    assert [line.rpartition(", id ")[2] for line in found.left_out] == [
        f"TRIAL_{name}: the question is empty; left out" for name in ("776_QUERY_4", "20_QUERY_0")
    ]
    found = read_questions(str(DATA / "hw07" / "hw7_test.json.gz"))
    assert len(found.records) == 4957
    assert found.course
    assert all(question.references is None for question in found.records)
