"""The libraries: their texts are frozen, their files keep the form of the house."""

import json
import re
from pathlib import Path

import pytest

from service.store import BODY_INLINE_BYTES
from service.store.functions import FUNCTIONS, digest, library, text

FOLDER = Path(__file__).parents[3] / "service" / "store" / "lua"
DIGESTS = json.loads((Path(__file__).parent / "function_digests.json").read_text())
READING = {"group", "history", "page", "progress", "ripe", "survey"}
REFUSED_WHEN_FULL = {"publish", "join"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_released_text_never_changes(name: str) -> None:
    # Servers keep the text they have under this name: raise the version in FUNCTIONS and in the file, and add
    # the digest of the new one to function_digests.json.
    assert DIGESTS.get(library(name)) == digest(name)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lua")), ids=lambda path: path.stem)
def test_a_file_is_short_and_begins_with_its_contract(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120
    if path.stem.startswith("_"):
        assert lines[0].startswith("-- Shared by ")
        return
    assert path.stem in FUNCTIONS
    assert lines[0].startswith(f"-- {library(path.stem)}: ")
    contract = "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("--"))])
    for word in ("KEYS", "ARGV", "Returns"):
        assert f"-- {word}" in contract
    assert re.search(r"-- Errors|Not fenced", contract)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_library_registers_one_function_under_its_name(name: str) -> None:
    code = text(name)
    assert code.startswith(f"#!lua name={library(name)}\n")
    [(registered, flags)] = re.findall(r"function_name = '(\w+)', callback = \w+, flags = \{(.*?)\}\}", code)
    assert registered == library(name)
    expected = "'no-writes'" if name in READING else "" if name in REFUSED_WHEN_FULL else "'allow-oom'"
    assert flags == expected


def test_bodies_go_inline_up_to_the_size_that_nodes_reckon_with() -> None:
    [size] = re.findall(r"local BODY_MAX = (\d+)", text("publish"))
    assert int(size) == BODY_INLINE_BYTES
