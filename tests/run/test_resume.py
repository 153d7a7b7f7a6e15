"""Stopping costs nothing: proven by `verify_resume`, and by killing a run again and again."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pluri.batches.loader import Batches
from pluri.errors import StoreError, TrainingError, UsageError
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.store_examples import StoreExamples
from pluri.run.lock import only_writer
from pluri.run.pretrain import PretrainConfig, pretrain
from pluri.run.verify import verify_resume
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.training import train_tokenizer
from pluri.training.journal import read_journal

WORDS = ["the", "a", "river", "bank", "money", "of", "in", "water", "lends", "runs", "deep", "old", "house"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    chosen = np.random.default_rng(0).integers(0, len(WORDS), (400, 20))
    lines = [" ".join(WORDS[w] for w in row[: 5 + i % 15]) + "." for i, row in enumerate(chosen)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = train_tokenizer([str(folder / "text.txt")], kind="wordpiece", vocab_size=100)
    return prepare([str(folder / "text.txt")], tokenizer, folder / "store").path


def config(store: Path, output: Path, **training: object) -> PretrainConfig:
    return PretrainConfig.parse(
        {
            "store": store,
            "output": output,
            "model": {"preset": "modern", "size": "tiny", "hidden_size": 32, "max_length": 32},
            "objective": {"pair": "sop"},
            "training": {"steps": 40, "batch_tokens": 300, "checkpoint_steps": 1, **training},
            "validation": 0.1,
        }
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_verify_resume(store: Path, tmp_path: Path, optimizer: str, precision: str) -> None:
    verdict = verify_resume(config(store, tmp_path / "unused", optimizer=optimizer, precision=precision), steps=6)
    assert verdict.equal, verdict.differences
    assert verdict.tensors > 20
    assert not (tmp_path / "unused").exists()


def test_verify_resume_sees_a_difference(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that forgets Muon's momentum would pass unseen if the comparison were blind."""
    from pluri.training import optimizer

    full = optimizer.MasterOptimizer.load_state

    def forgetful(self: optimizer.MasterOptimizer, tensors: dict[str, torch.Tensor]) -> None:
        full(self, {k: v for k, v in tensors.items() if "momentum_buffer" not in k})

    monkeypatch.setattr(optimizer.MasterOptimizer, "load_state", forgetful)
    verdict = verify_resume(config(store, tmp_path / "unused"), steps=4)
    assert not verdict.equal
    assert any("loss of step" in difference for difference in verdict.differences)


# Forks a child for each attempt, so that importing torch is paid for once; the child is killed at a random moment.
DRIVER = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)  # before any fork: threads do not survive one
from pathlib import Path
from pluri.run.lock import only_writer
from pluri.run.pretrain import PretrainConfig, pretrain
config = PretrainConfig.model_validate_json(Path(sys.argv[1]).read_text())
chance = random.Random(int(sys.argv[2]))
kills = 0
while True:
    child = os.fork()
    if not child:
        pretrain(config, resume=True, progress=False)
        os._exit(0)
    if kills < 20:
        time.sleep(chance.uniform(0.02, 0.6))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    elif kills >= 20:
        print(kills, os.waitstatus_to_exitcode(status))
        break
"""


def test_killed_twenty_times_and_still_the_same_to_the_bit(store: Path, tmp_path: Path) -> None:
    once, often = config(store, tmp_path / "once", steps=120), config(store, tmp_path / "often", steps=120)
    (tmp_path / "config.json").write_text(often.model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path / "config.json"), "1"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.stdout.split()[-1:] == ["0"], result.stderr[-2000:]
    assert int(result.stdout.split()[-2]) >= 20
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pretrain(once, progress=False)
    finally:
        torch.set_num_threads(threads)
    for name in ("checkpoints/step-000000120/state.safetensors", "model/model.safetensors"):
        a, b = load_file(once.output / name), load_file(often.output / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_existing_run_is_not_overwritten(store: Path, tmp_path: Path) -> None:
    pretrain(config(store, tmp_path, steps=2), progress=False)
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        pretrain(config(store, tmp_path, steps=2), progress=False)
    with pytest.raises(UsageError, match="training"):
        pretrain(config(store, tmp_path, steps=2, batch_tokens=400), resume=True, progress=False)
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    pretrain(config(store, tmp_path, steps=4), resume=True, progress=False)  # a longer budget is the same run


def test_a_full_disk_is_one_line_and_loses_nothing(store: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE refuses what a full disk refuses: writing on."""
    settings = config(store, tmp_path / "run", steps=3)
    pretrain(settings, progress=False)
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    code = (
        "import resource, sys\nfrom pathlib import Path\nimport signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pluri.run.pretrain import PretrainConfig, pretrain\nfrom pluri.errors import PluriError\n"
        "config = PretrainConfig.model_validate_json(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    pretrain(config, resume=True, progress=False)\n"
        "except PluriError as error:\n    print(error); sys.exit(7)\n"
    )
    longer = config(store, tmp_path / "run", steps=6)
    result = subprocess.run([sys.executable, "-c", code, longer.model_dump_json()], capture_output=True, text=True)
    assert result.returncode == 7, result.stderr[-2000:]
    assert "cannot be written" in result.stdout
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == kept
    assert pretrain(longer, resume=True, progress=False).exists()


def test_seeking_a_million_steps_in_is_no_slower_than_the_first(store: Path) -> None:
    opened = TokenStore.open(store)
    batches = Batches(StoreExamples(opened, ObjectiveConfig(), length=32, seed=0), batch_tokens=300, length=32, seed=0)
    calls: list[int] = []
    source = batches.source
    original = source.examples

    def counted(index: np.ndarray, epoch: np.ndarray):  # type: ignore[no-untyped-def]
        calls.append(len(index))
        return original(index, epoch)

    source.examples = counted  # type: ignore[method-assign]
    far = batches[1_000_000]
    assert calls == [batches.sequences_per_batch]
    assert torch.equal(far.input_ids, batches[1_000_000].input_ids)


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def test_killed_before_its_first_checkpoint_it_begins_as_it_began(store: Path, tmp_path: Path) -> None:
    """The start from counted neighbours belongs to it: a random start instead would be another run."""
    once, killed = config(store, tmp_path / "once", steps=3), config(store, tmp_path / "killed", steps=3)
    for settings in (once, killed):
        pretrain(settings, progress=False)
    shutil.rmtree(killed.output / "checkpoints")
    shutil.rmtree(killed.output / "model")
    pretrain(killed, resume=True, progress=False)
    a, b = weights(once.output), weights(killed.output)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_store_made_anew_from_other_text_is_not_resumed(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    pretrain(config(copy, tmp_path / "run", steps=2), progress=False)
    copy.rename(tmp_path / "moved")
    pretrain(config(tmp_path / "moved", tmp_path / "run", steps=3), resume=True, progress=False)
    (tmp_path / "other.txt").write_text("a river runs deep.\n" * 300, encoding="utf-8")
    prepare([str(tmp_path / "other.txt")], store / "tokenizer", copy)
    with pytest.raises(UsageError, match="not the one that the run began with"):
        pretrain(config(copy, tmp_path / "run", steps=4), resume=True, progress=False)


def test_an_altered_store_is_not_trained_on(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    shard = next(copy.glob("*.shard"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 255
    shard.write_bytes(content)
    with pytest.raises(StoreError, match="missing or was altered"):
        pretrain(config(copy, tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()


def test_one_run_at_a_time(store: Path, tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(TrainingError, match="another process is writing here; wait for it"):
        pretrain(config(store, tmp_path), progress=False)
    pretrain(config(store, tmp_path, steps=1), progress=False)


def test_a_run_whose_journal_is_damaged_is_not_begun_anew(store: Path, tmp_path: Path) -> None:
    pretrain(config(store, tmp_path, steps=2), progress=False)
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{cut\n" + journal.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UsageError, match="holds a run already"):
        pretrain(config(store, tmp_path, steps=2), progress=False)
    with pytest.raises(TrainingError, match="first line is damaged"):
        pretrain(config(store, tmp_path, steps=2), resume=True, progress=False)
    journal.unlink()
    with pytest.raises(UsageError, match="holds a run already"):
        pretrain(config(store, tmp_path, steps=2), progress=False)


def test_a_diverged_run_goes_on_with_a_lower_learning_rate(store: Path, tmp_path: Path) -> None:
    """What the error of a non-finite loss says must be possible."""
    pretrain(config(store, tmp_path, steps=4), stop_after=2, progress=False)
    pretrain(config(store, tmp_path, steps=4, learning_rate=1e-4), resume=True, progress=False)
    steps = [event for event in read_journal(tmp_path / "journal.jsonl") if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert steps[2]["learning_rate"] < 2e-4 < steps[1]["learning_rate"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"vocab_size": 5}}, "vocab_size is not to be set; the preset and the tokenizer decide it"),
        ({"model": {"family": "bert"}}, "family is not to be set"),
        ({"model": {"presett": "bert"}}, "unknown key 'presett'; did you mean 'preset'"),
        ({"model": {"name": "bert"}}, "unknown key 'name'"),
        ({"validation": 0.999999999}, "no document is left to train on; hold out less"),
    ],
)
def test_impossible_runs(store: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    settings = PretrainConfig.parse({**config(store, tmp_path / "run").model_dump(), **change})
    with pytest.raises(UsageError, match=message):
        pretrain(settings, progress=False)


def test_two_steps_are_the_fewest_to_stop_between(store: Path, tmp_path: Path) -> None:
    for steps in (0, 1):
        with pytest.raises(UsageError, match="cannot be stopped"):
            verify_resume(config(store, tmp_path / "unused"), steps=steps)


def test_next_sentences_need_a_second_document(store: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the old house. a river runs deep. money lends.\n", encoding="utf-8")
    alone = prepare([str(tmp_path / "one.txt")], store / "tokenizer", tmp_path / "alone").path
    values = {**config(alone, tmp_path / "run").model_dump(), "objective": {"pair": "nsp"}, "validation": 0.0}
    with pytest.raises(UsageError, match="next-sentence prediction needs two documents"):
        pretrain(PretrainConfig.parse(values), progress=False)


def test_a_changed_setting_is_named_alone(store: Path, tmp_path: Path) -> None:
    pretrain(config(store, tmp_path, steps=1), progress=False)
    changed = config(store, tmp_path, steps=2, batch_tokens=99)
    with pytest.raises(UsageError, match=r"training\.batch_tokens is now 99 but the run began with 300;"):
        pretrain(changed, resume=True, progress=False)


def test_going_on_from_a_model_of_another_tokenizer_is_told_as_that(store: Path, tmp_path: Path) -> None:
    run = pretrain(config(store, tmp_path / "run", steps=1), progress=False)
    text = store.parent / "text.txt"
    other = prepare([str(text)], train_tokenizer([str(text)], kind="char"), tmp_path / "other").path
    values = {**config(other, tmp_path / "on").model_dump(), "model": {"init": str(run)}}
    with pytest.raises(UsageError, match="another tokenizer than the model"):
        pretrain(PretrainConfig.parse(values), progress=False)


def test_a_folder_has_a_name(store: Path) -> None:
    with pytest.raises(UsageError, match="output: is empty"):
        PretrainConfig.load(None, [f"store={store}", "output=", "training.steps=1"])


@pytest.mark.parametrize("kinds", [["infill", "permute"], ["mass"]])
def test_denoising_resumes_too(store: Path, tmp_path: Path, kinds: list[str]) -> None:
    values = config(store, tmp_path / "unused").model_dump(mode="json")
    model = {"preset": "bart", "size": "tiny", "hidden_size": 32, "num_layers": 1, "max_length": 32}
    values |= {"model": model, "objective": {"denoise": {"kinds": kinds}}}
    verdict = verify_resume(PretrainConfig.parse(values), steps=4)
    assert verdict.equal, verdict.differences
    assert verdict.tensors > 30
