import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pluri.runtime import pick_device
from pluri.tasks.fit import Split, with_new_head
from pluri.tasks.predictions import _logits, predict, prediction_batches
from pluri.tasks.spans import illegal, span_tags
from pluri.tasks.task import Labelled, define_task
from pluri.tasks.viterbi import best_paths, legal_labels

LABELS = {
    "IOB2": ("O", "B-A", "I-A", "I-B"),
    "IOB1": ("O", "B-A", "I-A", "I-B"),
    "BIOES": ("O", "B-A", "E-A", "S-B"),
}


def brute(scores, allowed):
    """The best of all sequences of labels, one after the other."""
    border = len(allowed) - 1

    def worth(path):
        steps = itertools.pairwise((border, *path, border))
        broken = sum(not allowed[step] for step in steps)
        return -broken, sum(scores[t, label] for t, label in enumerate(path))

    return max(itertools.product(range(border), repeat=len(scores)), key=worth)


@pytest.mark.parametrize("scheme", LABELS)
@pytest.mark.parametrize("seed", range(5))
def test_the_best_allowed_sequence_is_found(scheme, seed):
    chance = np.random.default_rng(seed)
    lengths = chance.integers(1, 6, 6)
    allowed = span_tags(LABELS[scheme], scheme).allowed
    scores = np.log(chance.dirichlet(np.ones(4), lengths.sum()))
    found = np.split(best_paths(scores, lengths, allowed), np.cumsum(lengths)[:-1])
    for labels, part in zip(found, np.split(scores, np.cumsum(lengths)[:-1]), strict=True):
        assert tuple(labels) == brute(part, allowed)


def test_where_nothing_is_allowed_the_fewest_rules_are_broken():
    allowed = span_tags(("B-A", "E-A"), "BIOES").allowed  # a sentence of three has no whole spans
    scores = np.log(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]))
    assert tuple(best_paths(scores, np.array([3]), allowed)) == brute(scores, allowed)


def test_a_sentence_may_go_on_from_block_to_block():
    """Whatever the blocks, the labels are those of whole sentences, and scores the model's own of these labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 4, generator=generator) * 2
    lengths, labels = np.array([3, 0, 17, 1, 19]), LABELS["IOB2"]
    tags = span_tags(labels, "IOB2")
    whole, scores = legal_labels([logits], lengths, tags.allowed)
    assert illegal(tags, logits.argmax(1).numpy(), lengths).any()
    assert not illegal(tags, whole, lengths).any()
    np.testing.assert_allclose(scores, logits.softmax(1).numpy()[np.arange(40), whole], rtol=1e-5)
    for sizes in ([1] * 40, [2, 2, 30, 6], [20, 20]):
        again = legal_labels(logits.split(sizes), lengths, tags.allowed)
        assert (again[0] == whole).all()
        assert (again[1] == scores).all()


def test_a_sentence_is_decoded_whole_over_its_windows(made, small, tokenizer):
    records = [
        Labelled(r.units, tuple(LABELS["IOB2"][len(unit)] for unit in r.units), r.where) for r in made.tagged(30)
    ]
    task = replace(define_task("tag", records), scheme="IOB2", legal=True)
    assert task.tags is not None
    model = with_new_head(small, task, 0)
    encoded: Any = Split.of(records, task, tokenizer, 9, truncate=False).encoded
    assert len(encoded) > len(records)
    said = predict(model, task, encoded)
    free = predict(model, replace(task, legal=False), encoded)
    with torch.inference_mode():
        logits = torch.cat(list(_logits(model, task, prediction_batches(encoded, 48), pick_device())))
    scores = logits.log_softmax(1).cpu().numpy()
    assert (free.values == scores.argmax(1)).all()
    assert illegal(task.tags, free.values.astype(np.int64), task.num_labels(records)).any()
    assert (said.values == best_paths(scores, task.num_labels(records), task.tags.allowed)).all()
    assert not illegal(task.tags, said.values.astype(np.int64), task.num_labels(records)).any()
