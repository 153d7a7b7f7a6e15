"""Names on the hub: taken from the cache, refused in one line where there is no network; never mistaken for a path."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from pluri.checkpoints.hub import _snapshot, local_folder
from pluri.checkpoints.huggingface import load_model
from pluri.errors import CheckpointError

hub = pytest.importorskip("huggingface_hub", reason="names on the hub need the extra `hub`")


@pytest.fixture(autouse=True)
def _nothing_remembered():
    _snapshot.cache_clear()


def test_paths_stay_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    for path in ("org/name", "org", "a/b/c", "./org/absent", str(tmp_path / "absent"), "../x", tmp_path):
        assert local_folder(path) == Path(path)


def test_offline_is_one_line_at_once():
    with pytest.raises(CheckpointError) as refused:
        load_model("nobody/has-this-model")
    line = str(refused.value)
    assert line.startswith("nobody/has-this-model: is no folder here, and the Hugging Face hub is out of reach")
    assert "pluri import nobody/has-this-model" in line
    assert "\n" not in line


def test_no_network_is_the_same_line(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise hub.errors.LocalEntryNotFoundError("no connection,\nand not cached")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="out of reach"):
        local_folder("org/name")


def test_what_the_hub_refuses_is_told(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any, **__: Any) -> None:
        raise ValueError("401 Client Error\nRepository not found")

    monkeypatch.setattr(hub, "snapshot_download", refused)
    with pytest.raises(
        CheckpointError, match=r"org/name: is no folder here, and .* says: 401 Client Error Repository not found"
    ):
        local_folder("org/name")


def test_only_weights_and_their_description_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def fetched(name: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetched)
    assert local_folder("org/name") == local_folder("org/name") == tmp_path
    ((name, patterns),) = asked
    assert name == "org/name"
    assert all(p == "vocab.txt" or Path(p).suffix in (".json", ".safetensors") for p in patterns)


def test_a_model_without_safetensors_comes_with_the_line_that_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no safetensors .*t\.BertForMaskedLM\.from_pretrained\(.org/name.\)"):
        local_folder("org/name")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(CheckpointError, match=r"org/name: no such folder; .*pip install 'pluri\[hub\]'"):
        local_folder("org/name")
