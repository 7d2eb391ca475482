"""The npm package of the browser client says what the Python package says, and brings nothing else."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE: dict[str, Any] = json.loads((ROOT / "service/web/package.json").read_text())
TESTS: dict[str, Any] = json.loads((ROOT / "tests/web/package.json").read_text())


def test_versions_and_licences_are_the_same() -> None:
    project = PROJECT["project"]
    assert (PACKAGE["name"], PACKAGE["version"], PACKAGE["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    ), "say the same in service/web/package.json and in pyproject.toml"


def test_it_depends_on_nothing_and_brings_what_is_there() -> None:
    assert not {name for name in PACKAGE if name.lower().endswith("dependencies")}, "one file, without dependencies"
    assert [name for name in PACKAGE["files"] if not (ROOT / "service/web" / name).is_file()] == []


def test_tools_are_pinned_exactly() -> None:
    loose = [name for name, version in TESTS["devDependencies"].items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)]
    assert not loose, f"pin {loose} in tests/web/package.json: a tool's new opinion must not turn a build red by itself"
    assert TESTS["private"] is True


def test_node_modules_never_reach_a_python_package() -> None:
    assert "node_modules" in PROJECT["tool"]["hatch"]["build"]["exclude"]
