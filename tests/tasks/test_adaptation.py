"""Fine-tuning that changes a part of the weights: what may be combined, what is kept, what the random start does."""

from typing import Any, NamedTuple

import pytest
import torch

import pluri.tasks.compare as comparing
from pluri.errors import UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tasks.adaptation import Fitted
from pluri.tasks.fit import Split, Tuning, fit, with_new_head
from pluri.tasks.predictions import predict
from pluri.tasks.task import Task, define_task

QUICK: dict[str, Any] = {"min_steps": 40, "learning_rate": 5e-3, "batch_tokens": 512, "validations": 3}


class Learned(NamedTuple):
    task: Task
    before: dict[str, torch.Tensor]
    model: Model
    trained: Fitted
    validation: Split
    test: Split

    def score(self, split: Split) -> float:
        said = predict(self.model, self.task, split.encoded)
        return self.task.outcome(split.records, said.values).value(self.task.metric)

    def changed(self) -> set[str]:
        return {name for name, value in self.model.state_dict().items() if not torch.equal(value, self.before[name])}


@pytest.fixture
def learn(made, small, tokenizer):
    """Fine-tunes the small model on made-up tags."""

    def learn(**options: Any):
        records = [made.tagged(count, seed) for count, seed in ((200, 1), (40, 2), (60, 3))]
        task = define_task("tag", records[0])
        train, validation, test = (Split.of(r, task, tokenizer, 48, truncate=False) for r in records)
        model = with_new_head(small, task, 0)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        trained = fit(model, task, train, validation, Tuning(**{**QUICK, **options}))
        return Learned(task, before, model, trained, validation, test)

    return learn


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_lora_learns_and_leaves_a_plain_model_with_its_best_weights(learn, optimizer):
    found = learn(lora_rank=4, lora_targets="all_linear", optimizer=optimizer)
    assert found.score(found.test) > 0.8
    assert all(parameter.requires_grad for parameter in found.model.parameters())
    linear = ("attention.qkv", "attention.out", "ffn.up", "ffn.down")
    layers = {f"body.blocks.{i}.{name}.weight" for i in (0, 1) for name in linear}
    assert found.changed() == layers | {"heads.tag.out.weight", "heads.tag.out.bias"}
    assert found.trained.lora is not None
    for name, adapter in found.trained.lora.adapters.items():
        products = [adapter.scale * b @ a for a, b in zip(adapter.a, adapter.b, strict=True)]
        merged = found.before[f"{name}.weight"] + torch.cat(products)
        torch.testing.assert_close(found.model.state_dict()[f"{name}.weight"], merged, atol=1e-6, rtol=1e-5)


def test_the_best_adapters_are_kept_and_not_the_last(learn):
    """A rate that ruins the model late: what is merged did as well on validation as the best moment."""
    found = learn(lora_rank=4, learning_rate=0.3, validations=6)
    values = [validation["accuracy"] for validation in found.trained.validations]
    assert values.index(max(values)) < len(values) - 1  # or this test shows nothing
    assert found.score(found.validation) == found.trained.best["accuracy"] == max(values)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frozen_body_keeps_its_bits_and_the_head_learns(learn, precision):
    found = learn(freeze="body", min_steps=10, precision=precision)
    assert found.changed() == {"heads.tag.out.weight", "heads.tag.out.bias"}
    assert found.trained.lora is None


def test_layers_freeze_start_anew_and_decay_together(learn):
    found = learn(freeze=1, reinit_layers=1, layer_decay=0.8, min_steps=5).changed()
    assert not any(name.startswith(("body.embeddings.", "body.blocks.0.")) for name in found)
    assert "body.blocks.1.ffn.up.weight" in found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0}, "^tuning: layer_decay: Input should be greater than 0"),
        ({"layer_decay": 1.1}, "^tuning: layer_decay: Input should be less than or equal to 1"),
        ({"freeze": -1}, "^tuning: freeze: Input should be greater than or equal to 0"),
        ({"freeze": "head"}, "^tuning: freeze: should be a number of layers, 'embeddings' or 'body'"),
        ({"freeze": 2, "lora_rank": 8}, "LoRA freezes the whole pretrained body: leave freeze or lora_rank out"),
        ({"reinit_layers": 2, "lora_rank": 8}, "leave reinit_layers or lora_rank out"),
        ({"freeze": "body", "reinit_layers": 1}, "leave freeze or reinit_layers out"),
        ({"lora_alpha": 8}, "give lora_rank, too"),
        ({"lora_targets": "all_linear"}, "give lora_rank, too"),
        ({"lora_rank": 0}, "^tuning: lora_rank: Input should be greater than or equal to 1"),
        ({"lora_rank": 4, "lora_targets": "keys"}, "^tuning: lora_targets: Input should be 'query_value' or"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message):
        Tuning.parse(settings, where="tuning")


@pytest.mark.parametrize(
    ("settings", "shared", "message"),
    [
        ({"freeze": 3}, False, "^freeze: 3 layers, but the model has 2; give at most 2"),
        ({"reinit_layers": 3}, False, "^reinit_layers: 3 layers, but the model has 2; give at most 2"),
        ({"freeze": 2, "reinit_layers": 1}, False, "2 layers are frozen and 1 start anew, but the model has 2"),
        ({"freeze": 2}, True, "^freeze: 2 layers, but the model has 1, shared by all; give at most 1"),
    ],
)
def test_more_layers_than_there_are(settings, shared, message):
    config = preset("albert" if shared else "bert", "tiny", vocab_size=30)
    with pytest.raises(UsageError, match=message):
        Tuning(**settings).check(config)


def test_the_random_start_learns_all_of_its_weights(made, small, tokenizer, monkeypatch):
    """Frozen or low-rank it would stay at chance, and pretraining look better than it is."""
    told: list[tuple[Model, Tuning]] = []

    def noted(model, task, train, validation, tuning, *, seed, **kwargs):
        told.append((model, tuning))
        return fit(model, task, train, validation, tuning, seed=seed, **kwargs)

    monkeypatch.setattr(comparing, "fit", noted)
    train, validation, test = (made.classified(count, seed) for count, seed in ((40, 1), (20, 2), (20, 3)))
    task = define_task("classify", train)
    tuning = Tuning(min_steps=3, validations=1, lora_rank=2, layer_decay=0.5, weight_decay=0.02)
    pytest.importorskip("sklearn")
    (found,) = comparing.compare(small, tokenizer, task, train, validation, test, tuning=tuning)
    (_, first), (random, second) = told
    assert first == tuning
    assert (second.lora_rank, second.layer_decay, second.weight_decay) == (None, 1.0, 0.02)
    start = with_new_head(small, task, 0, fresh=True).state_dict()
    assert {n for n, v in random.state_dict().items() if torch.equal(v, start[n])} <= {"body.embeddings.context.table"}
    assert found.best.lora is not None
    assert found.best.lora.rank == 2


def test_adapters_learn_ten_times_as_fast_by_default(made, small, tokenizer):
    records = made.tagged(20)
    encoded = Split.of(records, define_task("tag", records), tokenizer, 48, truncate=False).encoded
    rates = [
        tuning.training(tuning.batches(encoded, 48, 0), small.config, "accuracy", 0).learning_rate
        for tuning in (Tuning(), Tuning(lora_rank=8), Tuning(lora_rank=8, learning_rate=1e-4))
    ]
    assert rates == pytest.approx([1e-3, 1e-2, 1e-4])
