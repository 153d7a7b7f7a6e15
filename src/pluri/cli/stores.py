"""Verbs for token stores beyond one machine."""

from pathlib import Path

import pluri
from pluri.cli.base import Answer, Json, app
from pluri.cli.pretraining import answer_of


@app.command
def merge(store: Path, /, *, as_json: Json = False) -> Answer:
    """Make one token store of what `pluri prepare --part` has written there.

    Example: pluri merge store
    """
    return answer_of(pluri.merge_parts(store), store, as_json)
