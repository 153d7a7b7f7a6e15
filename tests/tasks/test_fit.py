from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pluri.batches.packing import pack
from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import UsageError
from pluri.models.heads import Model
from pluri.tasks.fit import Split, Tuning, class_weights, fit, with_new_head
from pluri.tasks.predictions import labelled_positions, predict, row_length
from pluri.tasks.task import Labelled, define_task
from pluri.training.schedule import learning_rate_factor

QUICK = Tuning(min_steps=80, learning_rate=5e-3, batch_tokens=512, validations=4)


@pytest.fixture
def learn(made, small, tokenizer):
    """Fine-tunes the small model on made-up data: (task, model, what came of it, test split)."""

    def learn(maker, tuning=QUICK, *, regression=False, seed=0, kind: Any = "classify", fresh=True):
        records = [getattr(made, maker)(count, seed) for count, seed in ((200, 1), (40, 2), (60, 3))]
        task = define_task(kind, records[0], regression=regression)
        train, validation, test = (Split.of(r, task, tokenizer, 48, truncate=False) for r in records)
        model = with_new_head(small, task, seed, fresh=fresh)
        return task, model, fit(model, task, train, validation, tuning, seed=seed), test

    return learn


def score(task, model, test):
    said = predict(model, task, test.encoded)
    return task.outcome(test.records, said.values).value(task.metric)


def test_tags_are_learned(learn):
    task, model, trained, test = learn("tagged", kind="tag")
    assert score(task, model, test) > 0.95
    assert trained.best["accuracy"] > 0.95


def test_classes_are_learned(learn):
    task, model, _, test = learn("classified")
    assert score(task, model, test) > 0.85


def test_numbers_are_learned_and_predicted_in_their_own_units(learn):
    task, model, _, test = learn("measured", regression=True)
    said = predict(model, task, test.encoded)
    gold = task.targets(test.records)
    assert said.scores is None
    assert score(task, model, test) > 0.9
    assert np.abs(said.values - gold).mean() < 0.5 * np.abs(gold - gold.mean()).mean()


def test_the_best_weights_on_validation_are_kept(learn):
    """A learning rate that ruins the model late leaves the early weights standing."""
    task, model, trained, _ = learn("tagged", QUICK.model_copy(update={"learning_rate": 0.3}), kind="tag")
    values = [validation["accuracy"] for validation in trained.validations]
    assert len(values) == 4
    assert trained.best["accuracy"] == max(values)
    del task, model


def test_the_same_seed_gives_the_same_model(learn):
    models = [
        learn("tagged", QUICK.model_copy(update={"min_steps": 5}), kind="tag", seed=seed)[1] for seed in (3, 3, 4)
    ]
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tiny_data_get_enough_steps_and_large_data_their_epochs(learn, made, tokenizer):
    few = learn("tagged", Tuning(min_steps=7, epochs=0.5), kind="tag")[2]
    more = learn("tagged", Tuning(min_steps=1, epochs=2, batch_tokens=300), kind="tag")[2]
    records = made.tagged(200, 1)
    encoded: Any = Split.of(records, define_task("tag", records), tokenizer, 48, truncate=False).encoded
    assert few.step == 7
    assert more.tokens == pytest.approx(2 * len(encoded.input_ids), rel=0.1)


def test_a_step_in_parts_learns_the_same(learn):
    tuning = Tuning(min_steps=6, batch_tokens=400, dropout=0.0, epochs=0.1)
    whole, parts = (learn("tagged", tuning.model_copy(update={"accumulation": k}), kind="tag") for k in (1, 4))
    assert whole[2].step == parts[2].step == 6
    assert parts[2].tokens == whole[2].tokens
    change = [torch.cat([p.flatten() for p in found[1].parameters()]) for found in (whole, parts)]
    assert torch.allclose(change[0], change[1], atol=2e-3)
    start = torch.cat(
        [
            p.flatten()
            for p in learn("tagged", QUICK.model_copy(update={"learning_rate": 1e-12}), kind="tag")[1].parameters()
        ]
    )
    assert (change[0] - change[1]).norm() < 0.2 * (change[0] - start).norm()


def test_the_rate_falls_or_stays(learn, made, tokenizer):
    def rates(**options):
        batches = Tuning(**options).batches(*rows, 0)
        config = Tuning(**options).training(batches, model.config, "accuracy", 0)
        return [learning_rate_factor(p, config.schedule, warmup=config.warmup, decay=config.decay) for p in (0.5, 1)]

    records = made.tagged(20)
    rows = (Split.of(records, define_task("tag", records), tokenizer, 48, truncate=False).encoded, 48)
    model = learn("tagged", QUICK.model_copy(update={"min_steps": 1, "epochs": 0.1}), kind="tag")[1]
    assert rates() == pytest.approx([5 / 9, 0])
    assert rates(schedule="constant") == [1, 1]


def test_defaults_follow_the_data_and_the_model(small, made, tokenizer):
    def batches(count, **options):
        records = made.tagged(count)
        encoded = Split.of(records, define_task("tag", records), tokenizer, 48, truncate=False).encoded
        return encoded, Tuning(**options).batches(encoded, 48, 0)

    encoded, few = batches(20)
    assert few.sequences_per_batch == round(256 / encoded.mean_length)
    encoded, many = batches(4000)
    assert len(encoded) / many.sequences_per_batch == pytest.approx(100, rel=0.1)
    assert batches(20, batch_tokens=30)[1].sequences_per_batch == round(30 / batches(20)[0].mean_length)
    published = small.config.model_copy(update={"family": "bert", "hidden_size": 768})
    assert Tuning().training(few, small.config, "accuracy", 0).learning_rate == 1e-3
    assert Tuning().training(few, published, "accuracy", 0).learning_rate == pytest.approx(5e-5)
    assert Tuning(learning_rate=0.5).training(few, published, "accuracy", 0).learning_rate == 0.5


def test_rows_are_as_long_as_the_data_need(made, tokenizer):
    task = define_task("classify", made.classified(9))
    texts = {words: [Labelled(("a " * words,), ("yes",), "t.csv:2")] for words in (3, 200)}
    short, long = (Split.of(t, task, tokenizer, 512, False).encoded for t in texts.values())
    assert [row_length(short, most) for most in (64, 512)] == [64, 128]
    assert 200 <= long.longest == row_length(long, 512) < 512
    assert row_length(long, 250) <= 250


def test_a_copy_keeps_the_body_and_has_its_own_output(small, made):
    task = define_task("tag", made.tagged(10))
    known, fresh = (with_new_head(small, task, 5, fresh=fresh) for fresh in (False, True))
    assert set(known.heads) == {"tag"}
    for name, value in small.body.state_dict().items():
        assert torch.equal(known.body.state_dict()[name], value)
        assert known.body.state_dict()[name].data_ptr() != value.data_ptr()
    assert not torch.equal(known.body.embeddings.tokens.weight, fresh.body.embeddings.tokens.weight)
    other = with_new_head(small, task, 6)
    assert not torch.equal(known.state_dict()["heads.tag.out.weight"], other.state_dict()["heads.tag.out.weight"])


def test_a_new_head_keeps_the_pooling_layer(small, made):
    task = define_task("classify", made.classified(10))
    config = small.config.model_copy(
        update={"family": "bert", "norm": "layer", "pre_norm": False, "positions": "learned", "gated": False}
    )
    config = config.model_copy(update={"qk_norm": False, "biases": True, "pooling": "first", "intermediate_size": 64})
    before = Model(config, {"classify": 3}, seed=2)
    after = with_new_head(before, task, 7)
    name = "heads.classify.pooler.dense.weight"
    assert torch.equal(before.state_dict()[name], after.state_dict()[name])
    assert after.state_dict()["heads.classify.out.weight"].shape[0] == 2


def test_a_model_that_answers_goes_on_answering(small, tmp_path, tokenizer):
    """As published models that read SQuAD are fine-tuned on one's own questions."""
    task = define_task("answer", [])
    answering = with_new_head(small, task, 0)
    save_model(tmp_path, answering, tokenizer)
    loaded, _ = load_model(tmp_path, heads=task.heads(0))
    copies = {seed: with_new_head(loaded, task, seed).state_dict() for seed in (1, 2)}
    name = "heads.answer.out.weight"
    assert torch.equal(copies[1][name], answering.state_dict()[name])
    assert torch.equal(copies[2][name], answering.state_dict()[name])
    assert not torch.equal(with_new_head(loaded, task, 1, fresh=True).state_dict()[name], copies[1][name])


def test_predictions_do_not_depend_on_packing(made, small, tokenizer):
    records = made.tagged(20)
    task = define_task("tag", records)
    model = with_new_head(small, task, 0)
    together: Any = predict(model, task, Split.of(records, task, tokenizer, 48, truncate=False).encoded)
    alone: list[Any] = [
        predict(model, task, Split.of([r], task, tokenizer, 48, truncate=False).encoded) for r in records
    ]
    assert (together.values == np.concatenate([p.values for p in alone])).all()
    np.testing.assert_allclose(together.scores, np.concatenate([p.scores for p in alone]), atol=1e-5)


def test_positions_come_sequence_after_sequence(made, tokenizer):
    """Longer sequences are packed first; their labels still come in the order in which they were given."""
    records = [Labelled(("a",) * n, tuple(str(n * 10 + i) for i in range(n)), "f:1") for n in (2, 7, 3, 9, 1)]
    task = define_task("tag", records)
    encoded = Split.of(records, task, tokenizer, 16, truncate=False).encoded
    batch: Any = pack(encoded.examples(np.arange(5), np.zeros(5, np.int64)), 16)
    assert not torch.equal(batch.starts, batch.starts.sort().values)
    labels = batch.labels.reshape(-1)[labelled_positions(batch)]
    assert labels.tolist() == task.targets(records).tolist()


def test_balanced_weights_are_those_of_scikit_learn(made):
    sklearn_weights = pytest.importorskip("sklearn.utils.class_weight")
    records = made.classified(37)
    task = define_task("classify", records)
    expected = sklearn_weights.compute_class_weight("balanced", classes=np.arange(2), y=task.targets(records))
    weights: Any = class_weights(task, records, Tuning(class_weights="balanced"))
    np.testing.assert_allclose(weights.cpu(), expected, rtol=1e-6)


def test_named_weights_follow_the_labels(made):
    task = define_task("classify", made.classified(10))
    tuning = Tuning(class_weights={"yes": 3.0, "no": 1.0})
    weights: Any = class_weights(task, [], tuning)
    assert weights.tolist() == [1.0, 3.0]
    hyphens = Tuning.parse({"class-weights": {"B-PER": 3.0}})
    assert hyphens.class_weights == {"B-PER": 3.0}, "a label is spelled as its file spells it"
    with pytest.raises(UsageError, match="'maybe' is not in both"):
        class_weights(task, [], Tuning(class_weights={"yes": 3.0, "no": 1.0, "maybe": 1.0}))
    numbers = replace(task, labels=())
    with pytest.raises(UsageError, match="no classes to weigh"):
        class_weights(numbers, [], tuning)


def test_a_heavy_class_is_found_more_often(learn):
    def share(weights):
        tuning = QUICK.model_copy(update={"class_weights": weights, "min_steps": 10, "learning_rate": 1e-3})
        task, model, _, test = learn("classified", tuning)
        return float((predict(model, task, test.encoded).values == task.labels.index("yes")).mean())

    assert share({"yes": 50.0, "no": 1.0}) > 0.9 > 0.1 > share({"yes": 1.0, "no": 50.0})
