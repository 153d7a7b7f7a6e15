"""Tags that spell spans: what a model folder keeps of them, and what a reader of results must know."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pluri.errors import UsageError
from pluri.run.outputs import write_lines
from pluri.tasks.spans import Tagging, illegal, scheme_of
from pluri.tasks.task import Labelled, Targets, Task

TAGGING = "tagging.toml"


def keep_tagging(folder: Path, task: Task) -> None:
    if task.scheme is None:
        (folder / TAGGING).unlink(missing_ok=True)  # of an earlier run
    else:
        write_lines(folder / TAGGING, [f'scheme = "{task.scheme}"', f"legal = {json.dumps(task.legal)}"])


def kept_tagging(folder: str | Path, labels: Sequence[str], settings: Sequence[str]) -> Tagging:
    """What a model folder says, else the names of its labels. UsageError if the two contradict each other.

    settings: "name=value" for a field of `Tagging`.
    """
    path = Path(folder) / TAGGING
    tagging, named = Tagging.load(path if path.exists() else None, list(settings)), scheme_of(labels)
    known = ("IOB2", "IOB1") if named == "IOB2" else (named,)
    if tagging.scheme is not None and tagging.scheme not in known:
        do = f"leave it out: they say {named or 'no spans'}"
        raise UsageError(f"the labels are not named as in {tagging.scheme}", where="scheme", do=do)
    return tagging.model_copy(update={"scheme": tagging.scheme or named})


def notes_on_spans(
    task: Task, files: Mapping[str, Sequence[Labelled]], asked: Sequence[Labelled], predicted: Targets
) -> list[str]:
    """The scheme, and how many tags break it: of each labelled file, and of what was predicted for `asked`."""
    if task.tags is None:
        return []
    rules = "of all types together (micro), illegal tags read as by conlleval and seqeval"
    notes = [f"the tags spell spans ({task.scheme}): span_f1 counts those with the right type and both ends, {rules}"]
    for name, records in files.items():
        known = task.knowing(records)
        assert known.tags is not None
        lengths, ids = known.num_labels(records), known.targets(records).astype(np.int64)
        wrong = np.flatnonzero(illegal(known.tags, ids, lengths))
        if len(wrong):
            unit = int(wrong[0])
            place = int(np.searchsorted(np.cumsum(lengths), unit, side="right"))
            token = unit - int(lengths[:place].sum()) + 1
            first = f"{known.labels[ids[unit]]}, token {token} of the sentence at {records[place].where}"
            count = f"{len(wrong)} of {len(ids)} {name} tags where they stand"
            notes.append(f"{task.scheme} forbids {count}; first {first}")
    count = int(illegal(task.tags, predicted.astype(np.int64), task.num_labels(asked)).sum())
    do = "" if task.legal or not count else " (legal = true predicts only what it allows)"
    notes.append(f"{task.scheme} forbids {count} of {len(predicted)} predicted tags where they stand{do}")
    return notes
