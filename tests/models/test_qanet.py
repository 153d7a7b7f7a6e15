"""QANet: its parts against loops, and that questions of a batch know nothing of each other."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from pluri.batches.example import IGNORE, Examples
from pluri.batches.packing import pack
from pluri.losses import answer_loss, span_logits
from pluri.models.qanet import ContextQueryAttention, EncoderBlock, QANet, SpanHead, sinusoids, survivals
from pluri.tokens.ragged import offsets_of

WORDS, CLS, SEP = 40, 2, 3


def made() -> QANet:
    """Every parameter away from 0, so that each has an effect."""
    chance = np.random.default_rng(1)
    vectors, characters = chance.integers(0, 30, WORDS), chance.integers(0, 20, (WORDS, 16))
    model = QANet(vectors, characters, blocks=2, width=16, num_heads=2, max_length=64)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def batch_of(pairs, *, packed=True):
    """pairs: (words of the question, words of the document), as AnswerExamples lays them out. The answer is word 0."""
    ids, labels, types, lengths = [], [], [], []
    for question, document in pairs:
        ids += [CLS, *question, SEP, *document, SEP]
        labels += [0, *[IGNORE] * (len(question) + 1), *[0] * len(document), IGNORE]
        types += [0] * (len(question) + 2) + [1] * (len(document) + 1)
        lengths.append(len(question) + len(document) + 3)
    arrays = np.array(ids, np.int32), offsets_of(np.array(lengths))
    answers = np.ones((len(pairs), 2), np.int64)
    return pack(Examples(*arrays, np.array(labels, np.int32), np.array(types, np.uint8), answers), 64, packed=packed)


@pytest.fixture
def pairs():
    chance = np.random.default_rng(3)
    return [(chance.integers(5, WORDS, q).tolist(), chance.integers(5, WORDS, d).tolist()) for q, d in SIZES]


SIZES = [(3, 5), (1, 30), (9, 2), (4, 11), (2, 1), (6, 20)]


@torch.no_grad()
def test_a_question_is_answered_alike_in_any_company(pairs):
    model = made()
    alone = [span_logits(model, batch_of([pair]))[:, 0] for pair in pairs]
    assert [logits.shape[1] for logits in alone] == [1 + len(document) for _, document in pairs]
    for order in ([4, 2, 5, 0, 3, 1], [1, 0]):
        for packed in (True, False):
            together = span_logits(model, batch_of([pairs[i] for i in order], packed=packed))
            for row, i in enumerate(order):
                places = alone[i].shape[1]
                torch.testing.assert_close(together[:, row, :places], alone[i], atol=1e-4, rtol=1e-4)
                assert (together[:, row, places:] == -torch.inf).all()


@torch.no_grad()
def test_question_document_and_places_all_count():
    model = made()
    logits = span_logits(model, batch_of([([7, 8], [9, 10, 11]), ([7, 12], [9, 10, 11]), ([7, 8], [9, 10, 13])]))
    for other in (1, 2):
        assert (logits[:, 0] - logits[:, other]).abs().max() > 1e-3
    same = span_logits(model, batch_of([([7], [9] * 6)]))[:, 0, 1:]
    assert (same - same.mean(1, keepdim=True)).abs().max() > 1e-3
    assert (same[0] - same[1]).abs().max() > 1e-3


def test_every_parameter_learns(pairs):
    model = made()
    answer_loss(model, batch_of(pairs), 0, len(pairs))[0].backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle


def test_the_start_is_an_even_guess_and_a_function_of_the_seed_alone(pairs):
    vectors, characters = np.arange(WORDS), np.zeros((WORDS, 16), np.int64)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (QANet(vectors, characters, blocks=1, seed=seed).eval() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.embedding.words.weight, other.embedding.words.weight)
    logits = span_logits(first, batch_of(pairs))
    assert not logits[logits.isfinite()].any()


def test_context_query_attention_against_loops():
    layer, generator = ContextQueryAttention(4), torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
    document, question = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    words = [(5, 2), (3, 3)]  # of document and question
    inside = torch.arange(5) < torch.tensor([[n] for n, _ in words])
    asked = torch.arange(3) < torch.tensor([[n] for _, n in words])
    with torch.no_grad():
        similar, found = layer.similarity(document, question), layer(document, inside, question, asked)
    w = layer.weight.detach().flatten()
    for n, (rows, columns) in enumerate(words):
        scores = torch.zeros(rows, columns)
        for i in range(rows):
            for j in range(columns):
                c, q = document[n, i], question[n, j]
                scores[i, j] = torch.dot(w, torch.cat([c, q, c * q]))
                assert similar[n, i, j] == pytest.approx(float(scores[i, j]), abs=1e-5)
        by_row, by_column = scores.softmax(1), scores.softmax(0)
        for i in range(rows):
            a, b = torch.zeros(4), torch.zeros(4)
            for j in range(columns):
                a += by_row[i, j] * question[n, j]
                for k in range(rows):
                    b += by_row[i, j] * by_column[k, j] * document[n, k]
            c = document[n, i]
            torch.testing.assert_close(found[n, i], torch.cat([c, a, c * a, c * b]))


def test_the_start_reads_passes_one_and_two_and_the_end_one_and_three():
    head, states = SpanHead(4), torch.ones(12, requires_grad=True)
    read = [torch.autograd.grad(logit, states, retain_graph=True)[0].view(3, 4).any(1) for logit in head(states)]
    assert [passes.tolist() for passes in read] == [[True, True, False], [True, False, True]]


def block(survival):
    config = made().config
    made_block = EncoderBlock(config, 1, 3, survival)
    return made_block, torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0)), torch.ones(1, 4).bool()


def test_sub_layers_survive_as_often_as_they_should():
    survival = (0.9, 0.5, 0.2)
    encoder, x, inside = block(survival)
    called = Counter()
    for name in ("convolutions.0", "attention", "ffn"):
        encoder.get_submodule(name).register_forward_hook(lambda *_, name=name: called.update([name]))
    torch.manual_seed(0)
    passes = 400
    with torch.no_grad():
        for _ in range(passes):
            encoder.train()(x, inside)
        for chance, times in zip(survival, called.values(), strict=True):
            assert abs(times / passes - chance) < 4 * (chance * (1 - chance) / passes) ** 0.5
        called.clear()
        encoder.eval()(x, inside)
    assert set(called.values()) == {1}


def test_the_mean_over_survivals_is_what_prediction_adds():
    encoder, x, inside = block((0.0, 0.0, 0.4))
    before = x + sinusoids(x)
    torch.manual_seed(0)
    with torch.no_grad():
        added = torch.stack([encoder.train()(x, inside) - before for _ in range(1000)])
        wanted = encoder.ffn(encoder.norms[2](before))
    error = added.std(0) / len(added) ** 0.5
    assert ((added.mean(0) - wanted).abs() <= 5 * error + 1e-6).all()
    assert wanted.abs().max() > 0.1


def test_survival_falls_evenly_to_nine_in_ten():
    flat = [chance for each in survivals(7, 4) for chance in each]
    assert len(flat) == 28
    assert flat[-1] == pytest.approx(0.9)
    assert {round(one - other, 9) for one, other in pairwise([1.0, *flat])} == {round(0.1 / 28, 9)}


def test_sinusoids_against_their_formula():
    found = sinusoids(torch.zeros(1, 50, 6))
    for place in (0, 1, 49):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert found[place, i].item() == pytest.approx(np.sin(angle), abs=1e-5)
            assert found[place, 3 + i].item() == pytest.approx(np.cos(angle), abs=1e-5)
