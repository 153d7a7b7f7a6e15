"""Configuration: frozen, checked, loaded from TOML, overridden from the command line."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from pluri.errors import UsageError


def _named(path: Any) -> Any:
    if path == "":
        raise ValueError("is empty")
    return path


Folder = Annotated[Path, BeforeValidator(_named)]
"""A folder that is named: the empty text would be the one where the command is given."""


def _place(place: str | Path) -> str | Path:
    return place if isinstance(place, str) and "://" in place else Path(place)


Place = Annotated[str | Path, BeforeValidator(_named), AfterValidator(_place)]
"""A folder, or a URL that fsspec knows: a Path would take one of its slashes away."""


class Config(BaseModel):
    """Base of every configuration: immutable, unknown keys refused with the nearest known one.

    verbatim: fields whose keys are names of the user's, such as labels: their hyphens stay.
    """

    verbatim: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "configuration") -> Self:
        """Checks `values` (hyphens in keys read as underscores). UsageError names the key, the value and the rule."""
        try:
            return cls.model_validate(_underscored(values, cls.verbatim))
        except ValidationError as error:
            raise UsageError(_first_problem(cls, error), where=where) from None

    @classmethod
    def load(cls, path: str | Path | None, overrides: list[str] | None = None) -> Self:
        """Reads a TOML file, if any, and applies `a.b=value` overrides (values in TOML; bare words are strings)."""
        values = _underscored(_read_toml(Path(path)), cls.verbatim) if path else {}
        for override in overrides or []:
            _apply(values, override)
        return cls.parse(values, where=str(path) if path else "options")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), do="check the path of the configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from None


def _underscored(value: Any, verbatim: Sequence[str] = ()) -> Any:
    if isinstance(value, dict):
        named = {str(key).replace("-", "_"): item for key, item in value.items()}
        return {key: item if key in verbatim else _underscored(item) for key, item in named.items()}
    return value


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"override {override!r} is not of the form a.b=value", where="--set")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().replace("-", "_").split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UsageError(f"override {override!r}: {parent!r} is a value, not a table", where="--set")
    values[last] = value


def hint(key: str, known: Sequence[str]) -> str:
    """What an unknown key may have meant: the nearest that is known, or all that are."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    unknown = problem["type"] == "extra_forbidden"
    location, model = _location(cls, problem["loc"][:-1] if unknown else problem["loc"])
    if unknown:
        key = str(problem["loc"][-1])
        known = list(getattr(model, "model_fields", {}))
        return f"unknown key {'.'.join([*location, key])!r}; {hint(key, known)}"
    if problem["type"] == "missing":
        name = ".".join(location)
        return f"{name} is missing; give it in the file, or with --set {name}=..."
    value = problem.get("input")
    shown = "" if isinstance(value, dict) else f" (got {value!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return ": ".join([".".join(location), f"{message}{shown}"]) if location else f"{message}{shown}"


def _location(model: Any, parts: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys and indices on the way to a problem, without pydantic's names of alternatives; the last model met."""
    location: list[str] = []
    for part in parts:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = fields[part].annotation
        if part in fields or isinstance(part, int):
            location.append(str(part))
    return location, model
