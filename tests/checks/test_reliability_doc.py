"""docs/reliability.md names tests that exist, at least one for each fault that is to be survived."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
TEST = re.compile(r"(tests/[\w/.-]+\.py)::(\w+)")
ROW = re.compile(r"^\| (\d+) \| .*$", re.MULTILINE)
ROWS = {*range(1, 13), *range(14, 26), 27, 28, 30}


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text()


def is_there(path: str, name: str) -> bool:
    """Whether the file has such a test, at its top or in a class."""
    file = ROOT / path
    return file.exists() and re.search(rf"^ *(?:async )?def {name}\(", file.read_text(), re.MULTILINE) is not None


def test_every_test_that_is_named_exists(text: str) -> None:
    named = sorted(set(TEST.findall(text)))
    assert named, "docs/reliability.md names no test"
    absent = [f"{path}::{name}" for path, name in named if not name.startswith("test_") or not is_there(path, name)]
    assert not absent, "docs/reliability.md names tests that are not there; mend the page or the name:\n" + "\n".join(
        absent
    )


def test_every_fault_has_its_row_with_a_test(text: str) -> None:
    shown = {int(row[1]) for row in ROW.finditer(text) if TEST.search(row[0])}
    assert shown >= ROWS, f"docs/reliability.md has no row with a test for the faults {sorted(ROWS - shown)}"
