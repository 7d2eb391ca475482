"""The rules of the house that no linter knows: sizes, and what must not stand in any file."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON_LINES_MAX = 500
LUA_LINES_MAX = 120
DECISION_LINES_MAX = 80

# Files above the wall, with the lines they have. The list can only shrink.
TOO_LONG: dict[str, int] = {}

# Hosts of package registries. With their dots escaped the patterns do not match this file.
REGISTRIES = (
    r"pypi\.(?:org|python)",
    r"pythonhosted\.org",
    r"registry\.npmjs",
    r"crates\.io",
    r"proxy\.golang\.org",
    r"repo1?\.maven\.",
    r"deb\.debian\.org",
    r"index[-]url",
)
LOCK_FILES = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"}
# Folders of this machine that a file may not speak of.
MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/")


def files(*suffixes: str) -> Iterator[tuple[str, Path]]:
    """Every file of the project, by its path from the root: no hidden folder but .ci, nothing that was made."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in {"__pycache__", "build", "dist", "node_modules"}
        ]
        for name in sorted(names):
            if not suffixes or name.endswith(suffixes):
                path = Path(folder, name)
                yield path.relative_to(ROOT).as_posix(), path


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize(
    ("suffix", "limit", "mend"),
    [
        (".py", PYTHON_LINES_MAX, "split it: one noun per module"),
        (".lua", LUA_LINES_MAX, "move what functions share to _shared.lua, or make two of it"),
    ],
)
def test_no_file_is_too_long(suffix: str, limit: int, mend: str) -> None:
    long = {name: line_count(path) for name, path in files(suffix) if line_count(path) > TOO_LONG.get(name, limit)}
    assert not long, f"longer than {limit} lines: {long}; {mend}"


def test_the_list_of_long_files_shrinks() -> None:
    mended = [name for name in TOO_LONG if not (ROOT / name).exists() or line_count(ROOT / name) <= PYTHON_LINES_MAX]
    assert not mended, f"take {mended} out of TOO_LONG in {Path(__file__).name}"


def test_decision_notes_are_short() -> None:
    notes = [(name, path) for name, path in files(".md") if name.startswith("docs/decisions/")]
    long = {name: line_count(path) for name, path in notes if line_count(path) > DECISION_LINES_MAX}
    assert not long, f"longer than {DECISION_LINES_MAX} lines: {long}; a note says what was decided and why, no more"
    odd = [name for name, _ in notes if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name.rpartition("/")[2])]
    assert not odd, f"{odd}: name decision notes NNNN-title.md"


def test_no_file_names_a_registry_or_this_machine() -> None:
    registry = re.compile("|".join(REGISTRIES))
    found = []
    for name, path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {match[0]}"
            for number, line in enumerate(text.splitlines(), 1)
            for match in [registry.search(line) or MACHINE.search(line)]
            if match
        ]
    assert not found, "take out addresses of package registries and paths of one machine:\n" + "\n".join(found)


def test_no_lock_file() -> None:
    found = [name for name, path in files() if path.name in LOCK_FILES]
    assert not found, f"remove {found}: they record a registry's address; tools are pinned in pyproject.toml"


def test_every_test_file_is_run() -> None:
    odd = [name for name, path in files(".py") if name.startswith("tests/") and path.name.endswith("_test.py")]
    assert not odd, f"{odd}: name it test_….py, pytest looks for nothing else"
