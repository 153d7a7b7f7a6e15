"""Fine-tuning, evaluation, prediction and vectors on several processes: the numbers of one."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluri.checkpoints.huggingface import save_model
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def said(corpus: Path, run_groups: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What each verb says on one process and on three; files have the number in their name."""
    folder = tmp_path_factory.mktemp("tasks")
    tokenizer = Tokenizer.load(corpus.parent / "store" / "tokenizer")
    shape = preset("modern", "tiny", vocab_size=tokenizer.vocab_size, max_length=32, hidden_size=32, num_heads=2)
    save_model(folder / "model", Model(shape, {"masked": tokenizer.vocab_size}), tokenizer)
    texts = (corpus.parent / "text.txt").read_text().splitlines()[:120]
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, str("river" in text)) for text in texts)])
    rows = str(folder / "rows.csv")
    jobs = []
    for world in (1, 3):
        tuned = str(folder / f"tuned{world}")
        settings = ["min_steps=6", "epochs=0.01", "baselines=false", "dropout=0.0", "precision=fp32"]
        finetune = ["--task", "classify", "--model", str(folder / "model"), "--train", rows, "--validation", rows]
        finetune += [each for setting in settings for each in ("--set", setting)]
        jobs += [
            {"world": world, "arguments": ["finetune", *finetune, "-o", tuned]},
            {"world": world, "arguments": ["evaluate", "--model", str(folder / "tuned1"), "--data", rows, "--json"]},
            {"world": world, "arguments": ["predict", "--model", str(folder / "tuned1"), "--input", rows]},
            {"world": world, "arguments": ["embed", rows, "--model", str(folder / "model")]},
            {"world": world, "arguments": ["embed", rows, "--pooling", "word", "--model", str(folder / "model")]},
        ]
        for job, file in zip(jobs[-3:], ("said{}.jsonl", "vectors{}.npy", "words{}.parquet"), strict=True):
            job["arguments"] += ["-o", str(folder / file.format(world))]
    jobs.append({"world": 2, "arguments": ["fill", "a [MASK].", "--model", str(folder / "model")]})
    return folder, run_groups(jobs)


def test_all_say_the_same(said: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = said
    for result in results[:-1]:
        assert set(result["codes"]) == {0}, result["stderr"][-3000:]
    one, three = results[:5], results[5:10]
    assert json.loads(one[1]["stdout"]) == json.loads(three[1]["stdout"])
    assert (folder / "said1.jsonl").read_bytes() == (folder / "said3.jsonl").read_bytes()
    assert np.array_equal(np.load(folder / "vectors1.npy"), np.load(folder / "vectors3.npy"))
    assert (folder / "words1.parquet").read_bytes() == (folder / "words3.parquet").read_bytes()


def test_fine_tuning_is_alike(said: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = said
    curves = [
        [json.loads(line)["loss"] for line in (folder / f"tuned{world}" / "curves.jsonl").read_text().splitlines()]
        for world in (1, 3)
    ]
    assert len(curves[0]) > 0
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    rows = [json.loads((folder / f"tuned{world}" / "results.json").read_text())["rows"] for world in (1, 3)]
    assert [row["value"] for row in rows[1]] == pytest.approx([row["value"] for row in rows[0]], abs=0.03)


def test_a_verb_for_one_process_says_so(said: tuple[Path, list[dict[str, Any]]]) -> None:
    result = said[1][-1]
    assert result["codes"] == [2, 2]
    assert result["stderr"].count("pluri fill is for one process; leave out torchrun") == 1
