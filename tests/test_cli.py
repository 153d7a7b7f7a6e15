"""The command line: usage, errors, exit codes, and the path from a raw file to a report."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pluri
from pluri.__main__ import main
from pluri.cli import app
from pluri.cli.tasks import _means
from pluri.errors import DataError, UsageError

VERBS = sorted(name for name in app if not name.startswith("-"))
SENTENCES = ["the cat sat on the mat .", "a dog ran to the old red house .", "we drink tea in the long winter ."]


def fake_fill(monkeypatch: pytest.MonkeyPatch, result: Callable[[], Any]) -> None:
    monkeypatch.setitem(pluri.__dict__, "fill", lambda *args, **kwargs: result())


def failing(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([verb, "--help"]) == 0
    return capsys.readouterr().out


def test_verbs_are_those_of_the_guide():
    guide = (Path(__file__).parent.parent / "docs" / "guide.md").read_text(encoding="utf-8")
    assert VERBS == [
        "align", "compare", "doctor", "embed", "evaluate", "export", "fill", "finetune", "generate", "import", "layers",
        "merge", "predict", "prepare", "pretrain", "prompt", "quickstart", "report", "tokenizer", "transfer",
        "verify-resume",
    ]  # fmt: skip
    assert [verb for verb in VERBS if f"pluri {verb}" not in guide] == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_that_parses(verb: str, capsys: pytest.CaptureFixture[str]):
    text = " ".join(help_of(verb, capsys).split())
    _, _, example = text.partition("Example: pluri ")
    example = example.partition("╭")[0]
    while example and not _parses(shlex.split(example)):  # words of a following sentence are no part of the example
        example = example.rpartition(" ")[0]
    assert shlex.split(example)[:1] == [verb]
    assert len(shlex.split(example)) > 1


def _parses(tokens: list[str]) -> bool:
    try:
        app.parse_args(tokens, exit_on_error=False, print_error=False)
    except Exception:
        return False
    return True


def test_help_imports_nothing_heavy():
    code = "import sys; from pluri.__main__ import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "quickstart" in done.stdout
    for heavy in ("torch", "numpy", "pydantic", "pyarrow", "tokenizers"):
        assert f"'{heavy}'" not in done.stderr


def test_names_of_the_api_resolve():
    for name in pluri.__all__:
        assert getattr(pluri, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        pluri.pretrian  # noqa: B018


def test_underscores_and_hyphens_are_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    seen: list[dict[str, Any]] = []
    monkeypatch.setitem(pluri.__dict__, "fill", lambda text, model, **more: seen.append({"text": text, **more}) or [])
    for option in (["--top_k", "3"], ["--top-k", "3"], ["--top_k=3"], ["--top-k=3"]):
        assert main(["fill", "a_b [MASK]", "--model", "under_score", *option]) == 0
    assert seen == [{"text": "a_b [MASK]", "top_k": 3}] * 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tokeniser"], "Did you mean"),
        (["tokeniser"], "verify-resume, report, doctor"),
        (["fill", "[MASK]"], "error: --model is missing"),
        (["finetune", "--task", "tag"], "error: --model is missing; give it, or a TOML file with it"),
        (["fill", "[MASK]", "--model", "m", "--topk", "3"], "--top-k"),
        (["fill", "[MASK]", "--model", "m", "--top-k", "many"], "many"),
        (["pretrain", "absent.toml"], "absent.toml: no such file"),
        (["finetune", "--tsak", "tag"], "--task"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert complaint in err


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (DataError("broken", where="a.jsonl:3", do="mend it"), 1, "error: a.jsonl:3: broken; mend it\n"),
        (UsageError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 1, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 1, "error: run/x: No space left on device\n"),
        (OSError(errno.EROFS, "Read-only file system"), 1, "error: Read-only file system\n"),
        (
            ModuleNotFoundError("No module named 'sklearn.svm'", name="sklearn.svm"),
            1,
            "error: the package sklearn is not installed; pip install 'pluri[all]'\n",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
            1,
            "error: out of memory; make the model, its length or the batch smaller\n",
        ),
        (ValueError("odd"), 1, "error: unexpected ValueError: odd; run it with PLURI_DEBUG=1 to see where\n"),
    ],
)
def test_failures_are_one_line(
    error: BaseException,
    exit_code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.delenv("PLURI_DEBUG", raising=False)
    fake_fill(monkeypatch, failing(error))
    assert main(["fill", "[MASK]", "--model", "m"]) == exit_code
    assert capsys.readouterr() == ("", line)


def test_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PLURI_DEBUG", "1")
    fake_fill(monkeypatch, failing(DataError("broken")))
    with pytest.raises(DataError):
        main(["fill", "[MASK]", "--model", "m"])


def test_json_is_alone_on_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    guess = {"token_str": "猫", "score": 0.5, "sequence": "猫"}

    def chatty() -> list[dict[str, Any]]:
        print("loading")
        return [guess]

    fake_fill(monkeypatch, chatty)
    assert main(["fill", "[MASK]", "--model", "m", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == [guess]
    assert "猫" in out
    assert err == "loading\n"


def test_columns_of_results_stand_apart():
    rows = [{"metric": "span_precision", "labelled": 50, "method": "pretrained", "value": 0.5}]
    head, row = _means(rows).splitlines()
    assert head.split() == ["span_precision", "labelled", "method"]
    assert row.split() == ["0.5000", "50", "pretrained"]
    assert row.index("pretrained") == head.index("method")


def test_an_unhealthy_verdict_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = "text,label\n" + "".join(f"{sentence} {i},{i % 2}\n" for i, sentence in enumerate(SENTENCES * 8))
    for name in ("train.csv", "test.csv"):  # the same rows in both: every test row leaks
        (tmp_path / name).write_text(rows)
    assert main(["doctor", str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert any("leak" in finding["name"] and finding["severity"] == "problem" for finding in findings)


def test_from_a_raw_file_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    Path("labelled.csv").write_text(
        "text,label\n" + "".join(f"{SENTENCES[i % 2]},{'cat' if i % 2 == 0 else 'dog'}\n" for i in range(24))
    )
    Path("pretrain.toml").write_text(
        'store = "store"\noutput = "run"\nmodel = {size = "tiny", max_length = 32}\ntraining.steps = 3\n'
    )

    def result(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    assert result("tokenizer", "corpus.txt", "--vocab_size", "80", "-o", "tokenizer")["vocab_size"] <= 80
    ledger = result("prepare", "corpus.txt", "--tokenizer", "tokenizer", "-o", "store", "--workers", "1")["ledger"]
    assert ledger["read"] == ledger["kept"] + ledger["truncated"] + ledger["dropped"] > 0
    assert result("pretrain", "pretrain.toml", "--set", "training.batch_tokens=256")["model"] == "run/model"
    guesses = result("fill", "the cat sat on the [MASK] .", "--model", "run/model", "--top-k", "2")
    assert [{"score", "sequence", "token_str"} <= guess.keys() for guess in guesses] == [True, True]
    exported = result("export", "--model", "run/model", "-o", "exported")
    assert (exported["architecture"], exported["only_here"]) == ("EuroBertForMaskedLM", [])
    assert exported["left_out"] == []
    assert result("import", "exported", "-o", "imported")["parameters"] == exported["parameters"]
    assert result("fill", "the cat sat on the [MASK] .", "--model", "imported", "--top-k", "2") == guesses
    labelled = ["--train", "labelled.csv", "--validation", "labelled.csv", "-o", "classifier"]
    labelled += ["--set", "epochs=1", "--set", "min_steps=4", "--set", "seeds=1"]
    rows = result("finetune", "--task", "classify", "--model", "run/model", *labelled)["rows"]
    assert {"pretrained", "random start"} <= {row["method"] for row in rows}
    assert result("evaluate", "--model", "classifier", "--data", "labelled.csv")
    result("predict", "--model", "classifier", "--input", "labelled.csv", "-o", "predictions.jsonl")
    assert len(Path("predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 24
    result("report", "run", "classifier", "-o", "report.html")
    assert "</html>" in Path("report.html").read_text(encoding="utf-8")


def test_a_name_on_the_hub_without_a_network_is_one_line(capsys: pytest.CaptureFixture[str]):
    for arguments in (["import", "some/model", "-o", "x"], ["fill", "[MASK]", "--model", "some/model"]):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: some/model: is no folder here")
        assert err.count("\n") == 1


def test_a_reader_who_leaves_early_is_no_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "lines.txt").write_text("one line\n", encoding="utf-8")
    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writes, "w"))
    assert main(["doctor", str(tmp_path / "lines.txt")]) == 0
    assert capsys.readouterr().err == ""


def test_a_pipe_that_breaks_inside_a_verb_is_an_error(tmp_path, monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("pluri.diagnose", broken)
    assert main(["doctor", str(tmp_path)]) == 1
    assert "Broken pipe" in capsys.readouterr().err


def test_the_program_itself(tmp_path: Path):
    command = [sys.executable, "-m", "pluri", "fill", "[MASK]", "--model", str(tmp_path / "absent")]
    environment = {key: value for key, value in os.environ.items() if key != "PLURI_DEBUG"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_in_pretraining_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path):
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    tokenizer = pluri.train_tokenizer(tmp_path / "corpus.txt", vocab_size=80)
    pluri.prepare(tmp_path / "corpus.txt", tokenizer, tmp_path / "store", workers=1)
    settings = 'store = "store"\noutput = "run"\nmodel = {size = "tiny", max_length = 32}\ntraining.steps = 1000000\n'
    (tmp_path / "pretrain.toml").write_text(settings)
    environment = {key: value for key, value in os.environ.items() if key != "PLURI_DEBUG"}
    command = [sys.executable, "-m", "pluri", "pretrain", "pretrain.toml"]
    hears = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a shell in the background would not
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, hears)
    journal = tmp_path / "run" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and '"event": "step"' in journal.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "error: run: stopped by SIGINT after step" in err
    assert "go on with --resume" in err.splitlines()[-1]
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1
