"""Running the command line: `pluri`, or `python -m pluri`.

Results go to stdout, progress and complaints to stderr. Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError
from rich.console import Console

from pluri.cli import Answer, app
from pluri.errors import PluriError

_SHARED = ("pretrain", "finetune", "evaluate", "predict", "embed")  # what several processes do together
_OUT_OF_MEMORY = ("not enough memory", "allocate memory", "out of memory")  # as torch says it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code. With PLURI_DEBUG=1 in the environment, errors are raised."""
    out = sys.stdout
    verb = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    if _launched() and verb not in _SHARED:
        return _complain(f"pluri {verb} is for one process; leave out torchrun", 2)
    try:
        # whatever else is printed must not mix with the result
        with contextlib.redirect_stdout(sys.stderr), _group():
            answer = app(arguments, console=Console(file=out), exit_on_error=False, print_error=False)
        if not isinstance(answer, Answer):
            if verb in ("finetune", "pretrain"):  # its help was shown
                _print(import_module("pluri.run.settings").settings_text(verb), out)
            return 0
        _print(answer, out)
        return 0 if answer.done else 1
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    except Exception as error:
        if os.environ.get("PLURI_DEBUG") == "1":
            raise
        return _complain(*_explained(error))


def _launched() -> bool:
    """Whether torchrun started several of these: a process alone does not import what that takes."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def _group() -> contextlib.AbstractContextManager[None]:
    return import_module("pluri.training.parallel").joined() if _launched() else contextlib.nullcontext()


def _print(result: object, out: TextIO) -> None:
    """To whoever reads it; `head`, say, may have seen enough before the end, which is no error."""
    if _launched() and os.environ["RANK"] != "0":
        return  # process 0 says it for all
    try:
        print(result, file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _explained(error: Exception) -> tuple[str, int]:
    """(one line, exit code) of whatever went wrong."""
    if isinstance(error, PluriError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        verb = " ".join(["pluri", *(error.command_chain or ())])
        return f"{_said(error)}; see `{verb} --help`", 2
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name.partition('.')[0]} is not installed; pip install 'pluri[all]'", 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return "out of memory; make the model, its length or the batch smaller", 1
    return f"unexpected {type(error).__name__}: {error}; run it with PLURI_DEBUG=1 to see where", 1


def _said(error: CycloptsError) -> str:
    """A wrong usage in one line: what is missing is called missing, and the list of verbs is whole."""
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing, or has no value"
    if isinstance(error, UnknownCommandError):
        verbs = ", ".join(name for name in app if not name.startswith("-"))
        return f"{str(error).partition(' Available commands:')[0].rstrip('.')}; verbs: {verbs}"
    return str(error).rstrip(".")


def _complain(line: str, exit_code: int) -> int:
    if not _launched() or import_module("pluri.training.parallel").first_to_fail():
        print("error:", " ".join(line.split()), file=sys.stderr, flush=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
