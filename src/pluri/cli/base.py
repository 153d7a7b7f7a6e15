"""What the verbs share: the app, the kinds of their arguments, and what they answer."""

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import App, Parameter

import pluri
from pluri.errors import UsageError

Files = Annotated[list[str], Parameter(help="Files, folders, globs or URLs.", negative="")]
Flag = Parameter(negative="")
Folder = Annotated[Path, Parameter(["--output", "-o"], help="Folder to write to.")]
Json = Annotated[bool, Parameter("--json", negative="", help="Print the result as JSON.")]
Model = Annotated[Path, Parameter(help="Model folder, or a name on the Hugging Face hub.")]
Models = Annotated[list[Path], Parameter(help="Model folder, or a name on the hub; repeat it to compare.", negative="")]
OneFile = Annotated[Path, Parameter(["--output", "-o"], help="File to write.")]
Output = Annotated[Path, Parameter(["--output", "-o"], help="File to write; for answers a folder.")]
Override = Annotated[list[str] | None, Parameter("--set", negative="", help="Change a setting, repeatable: a.b=value.")]
PairColumns = Annotated[tuple[str, str], Parameter(help="Where a table keeps the two sequences of a pair.")]
Paths = Annotated[list[Path], Parameter(help="Run folders.", negative="")]
TextColumn = Annotated[str, Parameter(help="Where a table keeps the text.")]
Truncate = Annotated[bool, Parameter(negative="", help="Cut what is longer than the model reads.")]

app = App(
    name="pluri",
    help="Pretrain on sequences that nobody labelled, then do useful work with the few that somebody did.",
    version=pluri.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app["--help"].group = app["--version"].group = "Other"


class Answer(NamedTuple):
    """What a verb has to say: `value` for --json, `text` for people. done: False makes the exit code 1."""

    value: Any
    text: str
    as_json: bool
    done: bool = True

    def __str__(self) -> str:
        return json.dumps(self.value, ensure_ascii=False, indent=2, default=str) if self.as_json else self.text


def nothing_at(output: Path) -> None:
    """A verb writes where nothing is, or into an empty folder. UsageError, before any work, if something is there.

    `prepare` and `pretrain` go on with what they began, and know by themselves what that is; `report` and `quickstart`
    renew theirs.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError("is there already", where=str(output), do="name another with -o, or move that one away")
