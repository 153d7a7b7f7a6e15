import itertools

import numpy as np
import pytest
import torch

from pluri.batches.loader import Batches
from pluri.batches.packing import pack
from pluri.losses import span_logits
from pluri.runtime import pick_device
from pluri.tasks.answer import AnswerExamples, Answering
from pluri.tasks.decode import best_spans, best_threshold, likeliest_ends, valid_spans
from pluri.tasks.fit import with_new_head
from pluri.tasks.predictions import judged, predict, settled
from pluri.tasks.task import Question, Task

TASK = Task("answer", (), "f1")


def question(name, document, *references):
    spans = tuple((document.index(text), document.index(text) + len(text)) for text in references)
    return Question((f"{name} a", document), (), f"q.json, id {name}", name, references, spans)


@pytest.mark.parametrize(("kept", "longest"), [(1, 1), (3, 2), (6, 4), (50, 30)])
def test_valid_spans_are_the_best_of_all_that_are_valid(kept, longest):
    chance = np.random.default_rng(0)
    grid = torch.tensor(chance.normal(size=(2, 5, 6)), dtype=torch.float32)
    for window, tokens in enumerate((6, 4, 1, 0, 3)):
        grid[:, window, tokens:] = -torch.inf
    places, scores = valid_spans(grid, kept, longest)
    for window, tokens in enumerate((6, 4, 1, 0, 3)):
        every = {
            (first, last): float(grid[0, window, first] + grid[1, window, last])
            for first, last in itertools.product(range(tokens), repeat=2)
            if first <= last < first + longest
        }
        expected = sorted(every.items(), key=lambda item: -item[1])[:kept]
        found = [
            ((int(first), int(last)), float(sum(pair)))
            for (first, last), pair in zip(places[window], scores[window], strict=True)
            if pair[0] > -torch.inf
        ]
        assert [place for place, _ in found] == [place for place, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_likeliest_ends_may_cross():
    grid = torch.tensor([[[0.0, 1, 3], [5, 1, -torch.inf]], [[2.0, 0, 1], [4, 6, -torch.inf]]])
    places, scores = likeliest_ends(grid)
    assert places.tolist() == [[[2, 0]], [[0, 1]]]
    assert scores.tolist() == [[[3, 2]], [[5, 6]]]
    assert likeliest_ends(torch.empty(2, 3, 0))[1].tolist() == [[[-torch.inf] * 2]] * 3


@pytest.fixture
def asked(small, tokenizer):
    """A model with opinions of every place, and questions over one to many windows; one document has no token."""
    model = with_new_head(small, TASK, 3)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=chance))
    letters = np.random.default_rng(0).choice(list("abcdefgh"), 120)
    documents = ["a b", " ".join(letters[:54]), "\u200b", "b c d e f", " ".join(letters[54:])]
    records = [question(str(i), document) for i, document in enumerate(documents)]
    settings = Answering(doc_stride=5, max_answer_length=4, n_best_size=6)
    return model, AnswerExamples(records, tokenizer, length=24, settings=settings)


def test_ends_that_cross_in_the_best_window_are_no_answer(asked, tokenizer):
    """Whatever the other windows hold: so the sample of the homework decides."""
    model, valid = asked
    records, settings = valid.questions, valid.settings.model_copy(update={"valid_spans": False})
    examples = AnswerExamples(records, tokenizer, length=24, settings=settings)
    said = predict(model, TASK, examples)
    best: list[tuple] = [(-np.inf, 0, -1)] * len(records)
    with torch.inference_mode():
        for i in range(len(examples)):
            batch = pack(examples.examples(np.array([i]), np.array([0])), 24).to(pick_device())
            start, end = span_logits(model, batch)[:, 0, 1:].cpu()
            if len(start):
                found = (float(start.max() + end.max()), *(int(examples.first[i] + s.argmax()) for s in (start, end)))
                best[examples.owner[i]] = max(best[examples.owner[i]], found)
    crossed = [first > last for _, first, last in best]
    assert any(crossed)
    assert not all(crossed)
    for i, (_, first, last) in enumerate(best):
        expected = (-1, -1) if first > last else examples.characters_of(i, first, last)
        assert tuple(said.values[i].tolist()) == expected


def test_the_best_spans_are_those_of_all_windows(asked):
    model, examples = asked
    index = np.arange(len(examples))
    assert (np.bincount(examples.owner) > 1).any()
    every: list[dict] = [{} for _ in examples.questions]
    null = [np.inf] * len(examples.questions)
    device = pick_device()
    model.to(device).eval()
    for i in index:
        batch = pack(examples.examples(np.array([i]), np.array([0])), 24)
        with torch.inference_mode():
            start, end = span_logits(model, batch.to(device))[:, 0].cpu().numpy()
        owner, base = examples.owner[i], int(examples.first[i])
        null[owner] = min(null[owner], start[0] + end[0])
        for first in range(1, len(start)):
            for last in range(first, min(first + 4, len(start))):
                place = (base + first - 1, base + last - 1)
                every[owner][place] = max(every[owner].get(place, -np.inf), start[first] + end[last])
    for batch_tokens in (1, 100, 8192):
        batches = Batches(examples, batch_tokens=batch_tokens, length=24, seed=0).once()
        found = best_spans(model, batches, examples)
        np.testing.assert_allclose(found.null, null, rtol=1e-4)
        assert found.spans[2].tolist() == [-1, -1]
        for owner, spans in enumerate(every):
            if not spans:
                continue
            (first, last), score = max(spans.items(), key=lambda item: item[1])
            assert found.spans[owner].tolist() == list(examples.characters_of(owner, first, last))
            assert found.logits[owner, 0].sum() == pytest.approx(score, rel=1e-4)
            assert found.odds[owner] == pytest.approx(null[owner] - score, rel=1e-3, abs=1e-3)


def test_answers_are_of_the_document_each_once_and_their_probabilities_add_up(asked):
    model, examples = asked
    found = predict(model, TASK, examples).nbest
    assert found is not None
    for i, record in enumerate(examples.questions):
        for null in (False, True):
            answers = found.answers(i, null=null)
            texts = [answer["text"] for answer in answers]
            assert len(set(texts)) == len(texts)
            assert ("" in texts) == (null or i == 2)
            assert sum(answer["probability"] for answer in answers) == pytest.approx(1)
            probabilities = [answer["probability"] for answer in answers]
            assert probabilities == sorted(probabilities, reverse=True)
            for answer in answers:
                if answer["text"]:
                    assert record.document[answer["start"] : answer["end"]] == answer["text"]
        best = found.answers(i)[0]
        assert best["text"] == record.document[slice(*found.spans[i].tolist())]


def test_no_answer_is_given_above_the_threshold(asked):
    model, examples = asked
    nbest = predict(model, TASK, examples).nbest
    assert nbest is not None
    middle = float(np.median(nbest.odds))
    said = predict(model, Task("answer", (), "f1", threshold=middle), examples).values
    assert ((said == -1).all(1) == ((nbest.odds > middle) | (nbest.spans[:, 0] < 0))).all()
    assert (nbest.decided(None) == nbest.spans).all()


def test_the_best_threshold_is_the_best_of_all():
    chance = np.random.default_rng(1)
    for _ in range(30):
        odds = chance.integers(-4, 5, 12).astype(float)
        best, nothing = chance.random(12).round(1), (chance.random(12) < 0.4).astype(float)

        def total(threshold, odds=odds, best=best, nothing=nothing):
            return np.where(odds > threshold, nothing, best).sum()

        found = best_threshold(odds, best, nothing)
        assert total(found) == pytest.approx(max(total(t) for t in [-100, *odds, 100]))


def test_validation_finds_the_threshold_where_questions_have_no_answer(asked):
    model, examples = asked
    records = examples.questions
    said = predict(model, TASK, examples)
    gold = [r if i % 2 else question(r.id, r.document, r.document[:1]) for i, r in enumerate(records)]
    found = judged(TASK, [Question(r.units, (), r.where, r.id, r.references or ()) for r in gold], said)
    assert set(found) == {"f1", "null_score_diff_threshold"}
    assert settled(TASK, found).threshold == found["null_score_diff_threshold"]
    every = [Question(r.units, (), r.where, r.id, ("a",)) for r in records]
    assert set(judged(TASK, every, said)) == {"f1"}
    assert settled(TASK, {"f1": 1.0}).threshold is None
