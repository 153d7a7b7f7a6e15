"""The quickstart's choices; `.ci/run` runs it as a whole."""

import pytest

from pluri import demo
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer

PARAGRAPHS = [[("他", "r"), ("说", "v"), ("今天", "t"), ("天气", "n"), ("很", "d"), ("好", "a"), ("。", "w")]] * 40
COUNTS = {"counted neighbours, no training"}


@pytest.mark.parametrize(("counted", "context"), [(True, 2), (False, 0)])
def test_the_model_is_that_of_the_machine(tmp_path, counted, context):
    (tmp_path / "text.txt").write_text("他说今天天气很好。\n" * 40, encoding="utf-8")
    tokenizer = train_tokenizer([str(tmp_path / "text.txt")], kind="char", vocab_size=100)
    store = prepare([str(tmp_path / "text.txt")], tokenizer, tmp_path / "store", workers=1)
    config = demo.configuration(store, tmp_path / "run", counted=counted, steps=1)
    assert config.model["context"] == context
    assert config.training.steps == 1


@pytest.mark.parametrize(("rate", "methods"), [(1e9, COUNTS), (400e9, COUNTS), (1e15, set())])
def test_counts_stand_in_the_table_where_they_are_the_start(tmp_path, monkeypatch, rate, methods):
    """Where the minutes hold little the start is counted, else it learns for longer; both from the same text."""
    monkeypatch.setattr(demo, "_machine_rate", lambda: rate)
    monkeypatch.setattr(demo, "newspaper", lambda: (PARAGRAPHS, PARAGRAPHS))
    seen = {}

    def few_labels(starts, *_, **__):
        seen.update(starts)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "few_labels", few_labels)
    with pytest.raises(KeyboardInterrupt):
        demo.quickstart(tmp_path, minutes=0.02, progress=False)
    assert set(seen) == {"pretrained", "random start"} | methods
    assert seen["pretrained"].config.context == (2 if methods else 0)
