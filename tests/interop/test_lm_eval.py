"""The same weights in lm-evaluation-harness: as its own model `hf`, and as `pluri`."""

import json
from typing import Any

import pytest

from pluri.checkpoints.huggingface import save_model
from pluri.errors import UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.tokens.training import train_tokenizer

TEXT = "the cat sat on the mat and the dog ran to the red house . "
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {train: ROOT/train.jsonl, test: ROOT/test.jsonl}, cache_dir: ROOT/cache}
training_split: train
test_split: test
"""
TASKS = {
    "choices": """
output_type: multiple_choice
fewshot_split: train
num_fewshot: 2
doc_to_text: "{{text}} it was"
doc_to_choice: ["good", "bad enough", "so"]
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "written": """
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["red"], max_gen_toks: 9}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra `lm-eval`")
    pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("harness")
    (root / "corpus.txt").write_text(TEXT * 20, encoding="utf-8")
    tokenizer = train_tokenizer([str(root / "corpus.txt")], kind="gpt2", vocab_size=300)
    config = preset("gpt2", "tiny", vocab_size=tokenizer.vocab_size, max_length=48, hidden_size=32, num_heads=2)
    model = Model(config.model_copy(update={"initializer_range": 0.3}), {"next": tokenizer.vocab_size}, seed=1)
    save_model(root / "model", model, tokenizer)
    words = TEXT.split()
    rows: list[dict[str, Any]] = [{"text": " ".join(words[i : i + 5]), "label": i % 3, "answer": ""} for i in range(8)]
    rows[0]["text"] = TEXT * 5  # longer than the model reads
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[4:]), encoding="utf-8")
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in TASKS.items():
        settings = COMMON.replace("ROOT", str(root))
        (root / f"{name}.yaml").write_text(f"task: {name}\n{settings}{task}", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def judged(root):
    import lm_eval.tasks

    import pluri.interop.lm_eval

    harness: Any = lm_eval
    manager = lm_eval.tasks.TaskManager(include_path=str(root), include_defaults=False)

    def judge(model: str) -> dict[str, Any]:
        arguments: Any = {"pretrained": str(root / "model")} | ({"dtype": "float32"} if model == "hf" else {})
        found = harness.simple_evaluate(
            model, arguments, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, device="cpu", batch_size=4
        )
        return found

    assert pluri.interop.lm_eval
    return judge("hf"), judge("pluri")


@pytest.mark.filterwarnings("ignore")
def test_every_figure_is_that_of_hf(judged):
    theirs, ours = judged
    for name in TASKS:
        figures = {key: value for key, value in theirs["results"][name].items() if isinstance(value, float)}
        assert figures
        assert {key: ours["results"][name][key] for key in figures} == pytest.approx(figures, rel=1e-6, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_every_answer_is_that_of_hf(judged):
    theirs, ours = judged
    for name in TASKS:
        for one, other in zip(theirs["samples"][name], ours["samples"][name], strict=True):
            assert one["doc"] == other["doc"]
            said, expected = other["filtered_resps"], one["filtered_resps"]
            if name == "written":
                assert said == expected
            elif name == "rolling":
                assert said == pytest.approx(expected, abs=1e-3)
            else:
                assert [float(value) for value, _ in said] == pytest.approx([float(v) for v, _ in expected], abs=1e-4)
                assert [str(greedy) for _, greedy in said] == [str(greedy) for _, greedy in expected]


def test_only_causal_models_go_on_with_a_text(root, tmp_path):
    import pluri.interop.lm_eval

    lm: Any = pluri.interop.lm_eval.PluriLM

    (tmp_path / "corpus.txt").write_text(TEXT * 20, encoding="utf-8")
    tokenizer = train_tokenizer([str(tmp_path / "corpus.txt")], vocab_size=100)
    config = preset("bert", "tiny", vocab_size=tokenizer.vocab_size, hidden_size=32, num_heads=2)
    save_model(tmp_path / "bert", Model(config, {"masked": tokenizer.vocab_size}), tokenizer)
    with pytest.raises(UsageError, match="use `pluri prompt`"):
        lm(str(tmp_path / "bert"))
