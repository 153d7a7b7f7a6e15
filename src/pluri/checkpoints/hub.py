"""Models by their name on the Hugging Face hub: fetched once, then read from its cache."""

import functools
import json
import re
from pathlib import Path

from pluri.errors import CheckpointError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = [
    "config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
]  # fmt: skip
_SECONDS = 5.0  # to wait for an answer


def local_folder(source: str | Path) -> Path:
    """The folder itself; of a name on the hub, org/name, which is no path here, the folder in the hub's cache.

    Only safetensors and what describes the model and its tokenizer are fetched, never code or pickles.
    CheckpointError: it is neither, or the hub cannot be reached and the cache does not have it.
    """
    path = Path(source)
    return path if path.exists() or not _NAME.fullmatch(str(source)) else _snapshot(str(source))


@functools.cache
def _snapshot(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        do = "check the path; for a name on the hub, pip install 'pluri[hub]'"
        raise CheckpointError("no such folder", where=name, do=do) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES, etag_timeout=_SECONDS))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            "is no folder here, and the Hugging Face hub is out of reach (offline, or HF_HUB_OFFLINE=1)",
            where=name,
            do=f"check the path, or run `pluri import {name} -o DIR` where there is a network, and copy DIR",
        ) from None
    except Exception as error:  # whatever the library and the network raise
        line = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"is no folder here, and the Hugging Face hub says: {line}", where=name) from None
    if (folder / "config.json").exists() and not any(folder.glob("*.safetensors")):
        raise CheckpointError("has no safetensors on the hub", where=name, do=conversion(folder, name, "DIR"))
    return folder


def conversion(folder: Path, source: str, output: str) -> str:
    """One line for a shell that turns the pickled weights of `source` into safetensors; folder: has its config.json."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = [str((values.get("architectures") or ["AutoModel"])[0]), "AutoTokenizer"]
    steps = [f"t.{name}.from_pretrained({source!r}).save_pretrained({output!r})" for name in classes]
    return f'pickled weights are not read; convert them: python -c "import transformers as t; {"; ".join(steps)}"'
