"""Zero-shot transfer: models fine-tuned in each language, judged in all of them, in one table."""

import json
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, ClassVar

from pydantic import Field

from pluri.config import Config, Folder
from pluri.errors import UsageError
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.outputs import write_lines
from pluri.tasks.compare import PRETRAINED, QANET
from pluri.tasks.task import Kind

_NAMES = dict[str, str]


class TransferConfig(Config):
    """Every model, fine-tuned on every language, and on all of them together; each judged on every test file.

    task: as for `pluri finetune`. models: folders by name; of one that reads a single language, name that language in
        `only`. train, validation: files by language, the same languages in both. test: files by language.
    only: {model = language}: what a model can be trained in.
    together: also train on all languages at once.
    output: a folder for each fine-tuning, MODEL-LANGUAGE, and results.json, with all rows. What is finished is not run
        again.
    settings: of each `pluri finetune`; qanet = 7 adds the row without pretraining.
    """

    verbatim: ClassVar[tuple[str, ...]] = ("models", "only", "train", "validation", "test")

    task: Kind
    models: dict[str, Folder] = Field(min_length=1)
    train: _NAMES = Field(min_length=1)
    validation: _NAMES
    test: _NAMES = Field(min_length=1)
    only: _NAMES = Field(default_factory=dict)
    together: bool = True
    output: Folder
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transferred:
    """rows: those of `pluri finetune`, with "model" and "train", the language (or "en + zh") that was learnt from; both
    stand behind the method, too, so that `pluri report` keeps them apart."""

    rows: list[dict[str, Any]]
    metrics: list[str]
    tests: list[str]
    notes: list[str]

    def __str__(self) -> str:
        """A line for each method and training language, a column for each test: the means over seeds, in per cent.

        Of several metrics as "exact match / F1", with the 95% interval of the last one.
        """
        cells: dict[tuple[str, str], dict[str, dict[str, list[dict[str, Any]]]]] = {}
        for row in self.rows:
            method = row["method"].removesuffix(_behind(row["model"], row["train"]))
            name = row["model"] if method == PRETRAINED else f"{method} ({row['model']})"
            name = QANET if method == QANET else name
            found = cells.setdefault((name, row["train"]), {}).setdefault(row["test"], {})
            found.setdefault(row["metric"], []).append(row)
        width, wide = (max(len(key[i]) for key in cells) + 2 for i in (0, 1))
        column = max(24, *(len(test) + 2 for test in self.tests))
        head = f"{'model':{width}}{'trained on':{max(wide, 12)}}" + "".join(f"{test:{column}}" for test in self.tests)
        lines = [f"{' / '.join(self.metrics)}, per cent", head]
        for (name, train), found in cells.items():
            shown = "".join(f"{self._cell(found[test]):{column}}" for test in self.tests)
            lines.append(f"{name:{width}}{train:{max(wide, 12)}}{shown}")
        return "\n".join(line.rstrip() for line in [*lines, *self.notes])

    def _cell(self, found: dict[str, list[dict[str, Any]]]) -> str:
        values = " / ".join(f"{100 * mean(row['value'] for row in found[metric]):.1f}" for metric in self.metrics)
        last = found[self.metrics[-1]][0]
        return f"{values} ({100 * last['low']:.1f} to {100 * last['high']:.1f})"


def transfer(config: TransferConfig, *, progress: bool = True) -> Transferred:
    """Runs it. Beside each model stand its random start and, if `settings.qanet` is set, QANet, once a language.

    UsageError: languages that do not fit each other. Else as `finetune`, before anything is trained where it can be.
    """
    runs = list(_runs(config))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    done: set[str] = set()  # training languages that have a QANet, which no model changes
    for name, train, settings in runs:
        about = {"model": name, "train": train}
        found = _tuned(settings.model_copy(update={"qanet": 0} if train in done else {}), progress)
        done.add(train)
        rows += [{**about, **row, "method": row["method"] + _behind(name, train)} for row in found["rows"]]
        notes += [note for note in found["notes"] if note not in notes]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    shown = ["exact_match", "f1"] if config.task == "answer" else metrics[:1]
    results = Transferred(rows, shown, list(config.test), notes)
    write_lines(config.output / "results.json", [json.dumps(asdict(results), ensure_ascii=False, indent=1)])
    return results


def _tuned(settings: FinetuneConfig, progress: bool) -> dict[str, Any]:
    """What is in results.json of a fine-tuning, which is run if it is not finished. UsageError: it was another one."""
    file, kept = settings.output / "results.json", settings.output / "settings.json"
    now = settings.model_dump_json(exclude={"output"})
    if not file.exists():
        write_lines(kept, [now])
        return asdict(finetune(settings, progress=progress))
    if not kept.exists() or kept.read_text(encoding="utf-8").strip() != now:
        do = "move that folder away, or choose another output"
        raise UsageError("holds a fine-tuning with other settings", where=str(settings.output), do=do)
    return json.loads(file.read_text(encoding="utf-8"))


def _behind(model: str, train: str) -> str:
    return f" ({model}, {train})"


def _runs(config: TransferConfig) -> list[tuple[str, str, FinetuneConfig]]:
    """(model, what it learns from, settings) of each fine-tuning."""
    if config.train.keys() != config.validation.keys():
        what = f"train has {', '.join(config.train)}, validation {', '.join(config.validation)}"
        raise UsageError(what, where="validation", do="name the same languages in both")
    for model, language in config.only.items():
        if model not in config.models or language not in config.train:
            do = f"models are {', '.join(config.models)}, languages {', '.join(config.train)}"
            raise UsageError(f"{model} = {language!r} names no model or no language", where="only", do=do)
    taken = {"task", "model", "train", "validation", "test", "output"} & config.settings.keys()
    if taken:
        raise UsageError(f"{taken.pop()!r} is not set here", where="settings", do="give it above")
    if isinstance(config.settings.get("labelled"), list):
        raise UsageError("several numbers of labels", where="settings.labelled", do="give one: a table is of one")
    runs = []
    for name, model in config.models.items():
        only = config.only.get(name)
        choices = [[only]] if only else [[language] for language in config.train]
        choices += [list(config.train)] if config.together and not only and len(config.train) > 1 else []
        for languages in choices:
            learnt = " + ".join(languages)
            files = {
                "train": {each: config.train[each] for each in languages},
                "validation": {each: config.validation[each] for each in languages},
            }
            output = config.output / f"{name}-{'+'.join(languages)}"
            values = {"task": config.task, "model": model, "output": output, "test": config.test, **files}
            settings = FinetuneConfig.parse({**config.settings, **values}, where="settings")
            runs.append((name, learnt, settings))
    return runs
