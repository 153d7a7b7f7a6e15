"""Models from and for other programs: a folder, or a name on the hub, is read, checked, and written in one spelling."""

from dataclasses import dataclass
from pathlib import Path

from pluri.checkpoints.config_json import architecture, passed_over
from pluri.checkpoints.huggingface import read_model, save_model
from pluri.models.config import departures


@dataclass(frozen=True, slots=True)
class Converted:
    """A model folder that was written.

    architecture: its class in transformers; None for what only Pluri opens. only_here: what keeps transformers from
    opening it, or of its heads those that it passes over. dtype: of the weights.
    left_out: tensors of the source that Pluri has no use for, by their published names.
    """

    folder: Path
    architecture: str | None
    parameters: int
    dtype: str
    left_out: list[str]
    only_here: list[str]

    def __str__(self) -> str:
        lines = [f"{self.parameters:,} parameters, {self.dtype}: {self.folder}"]
        if self.architecture is None:
            lines.append(f"opens with Pluri alone: no architecture in transformers has {', '.join(self.only_here)}")
        else:
            without = f", without {', '.join(self.only_here)}" if self.only_here else ""
            lines.append(f"opens with Pluri, and with transformers.{self.architecture}{without}")
        return "\n".join([*lines, *(f"left out: {name}" for name in self.left_out)])


def convert_model(source: str | Path, output: str | Path) -> Converted:
    """Reads a model folder, or a name on the Hugging Face hub, and writes it to another folder, with the same dtype.

    Every tensor is accounted for: the same weights under today's names, tied weights once, or named in `left_out`.
    CheckpointError: the source is missing, damaged, of an unknown architecture, or does not fit its tokenizer.
    """
    loaded = read_model(source)
    model, described = loaded.model, loaded.described
    labels, problem, task = described.labels, described.problem, described.task
    folder = save_model(output, model, loaded.tokenizer, labels=labels, problem=problem, task=task, dtype=loaded.dtype)
    own = model.config.family == "modern"
    return Converted(
        folder,
        None if own else architecture(model),
        sum(parameter.numel() for parameter in model.parameters()),
        str(loaded.dtype).removeprefix("torch."),
        loaded.left_out,
        [f"{field} = {value!r}" for field, value in departures(model.config).items()] if own else passed_over(model),
    )
