"""What is installed: everything pinned, and the versions that documents name."""

import re
import tomllib
from pathlib import Path

import pluri

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~! ;]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    wanted = {name_of(r) for group in PROJECT["optional-dependencies"].values() for r in group}
    wanted |= {name_of(r) for r in PROJECT["dependencies"]}
    assert wanted - {name_of(pin) for pin in pins} == {"pluri"}


def test_all_has_every_optional_part():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.findall(r"[\w-]+", everything.partition("[")[2]))
    assert named == set(extras) - {"all", "dev"}


def test_the_changelog_knows_this_version():
    assert f"\n## {pluri.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
