"""docs/data-model.md says what the code does: the same keys, entry fields, partition tags and functions."""

import re
from pathlib import Path

from service.store import decode, functions
from service.store.keys import KEYS, PARTITIONS_DEFAULT, Layout, partition_tags

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "data-model.md"
LUA = ROOT / "service" / "store" / "lua"
TEXT = DOC.read_text(encoding="utf-8")
LINES_MAX = 500


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the tables under a heading, whatever its level: what stands in backquotes first → the other cells."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f'add a heading "{title}" to docs/data-model.md'
    lines = re.findall(r"^\| `([^`]+)` \| (.*) \|$", found[1], re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}


def test_every_key_has_its_row() -> None:
    said = rows("Keys")
    wrong = [
        f"{'write' if kind.pattern in said else 'add'} the row | `{kind.pattern}` | {kind.type} | {kind.lifetime} | …"
        for kind in KEYS
        if said.get(kind.pattern, [])[:2] != [kind.type, kind.lifetime]
    ]
    wrong += [f"there is no key `{name}`, take its row out" for name in said.keys() - {kind.pattern for kind in KEYS}]
    assert not wrong, "mend the keys in docs/data-model.md:\n" + "\n".join(wrong)


def test_every_key_says_who_writes_and_who_removes_it() -> None:
    said = rows("Keys")
    wrong = [
        f"| `{kind.pattern}` | … | {kind.writer} | {kind.deleter} |"
        for kind in KEYS
        if said.get(kind.pattern, [])[2:] != [kind.writer, kind.deleter]
    ]
    assert not wrong, "let these rows of docs/data-model.md end so:\n" + "\n".join(wrong)


def test_what_is_in_a_key_is_told() -> None:
    told = re.split(r"^## What is in the keys$", TEXT, flags=re.MULTILINE)[1].split("\n## ")[0]
    named = set(re.findall(r"^(?:### |\| )`(wp:[^`]+)`", told, re.MULTILINE))
    reserved = {"wp:{p}:c"}  # said to be so above the table
    missing = {kind.pattern for kind in KEYS} - named - reserved
    assert not missing, f'add a row or a heading for {missing} under "What is in the keys" in docs/data-model.md'
    unknown = named - {kind.pattern for kind in KEYS}
    assert not unknown, f"docs/data-model.md: there is no key {unknown}"


def test_the_ledger_line_can_be_read() -> None:
    lines = re.findall(r'^`(\{"after":.*\})`$', TEXT, re.MULTILINE)
    assert len(lines) == 1, "docs/data-model.md: show one line of a ledger, in backquotes on a line of its own"
    assert decode.removal(lines[0].encode()), (
        f"mend the ledger line in docs/data-model.md, it cannot be read: {lines[0]}"
    )


def entry_fields() -> set[str]:
    """The short names of fields that functions write into streams: in lists that begin with the type."""
    named: set[str] = set()
    for name in ("publish", "join", "leave", "redact"):
        text = (LUA / f"{name}.lua").read_text(encoding="utf-8")
        lists = re.findall(r"\{('t', .*?)\}", text)
        assert lists, f"{name}.lua has no list of fields that begins with 't' any more: mend this test"
        named |= {field for listed in lists for field in re.findall(r"'(\w)',", listed)}
        named |= set(re.findall(r"fields\[#fields \+ 2\] = '(\w)'", text))
    return named


def test_every_entry_field_has_its_row() -> None:
    said = rows("`wp:{p}:s:<stream>`, the entries").keys() - {"v"}  # reserved, written by nobody yet
    missing, unknown = entry_fields() - said, said - entry_fields()
    assert not missing, f"docs/data-model.md: add rows for the entry fields {sorted(missing)}"
    assert not unknown, f"docs/data-model.md: no entry has the fields {sorted(unknown)}, take their rows out"


def test_partition_tags_are_told() -> None:
    tags = " ".join(partition_tags(PARTITIONS_DEFAULT))
    assert f"`{tags}`" in TEXT, f"docs/data-model.md: write the tags of the partitions, `{tags}`"
    inbox = Layout(PARTITIONS_DEFAULT).stream("user:alice")
    assert f"`{inbox}`" in TEXT, f"docs/data-model.md: alice's inbox is `{inbox}`"


def flags_of(name: str) -> str:
    """The flags of a function as the page spells them."""
    [flags] = re.findall(r"flags = \{(.*?)\}\}", functions.text(name))
    return ", ".join(f"`{flag}`" for flag in re.findall(r"'([\w-]+)'", flags)) or "none"


def test_every_function_has_its_row() -> None:
    said = rows("Functions")
    loaded = {functions.library(name): flags_of(name) for name in functions.FUNCTIONS}
    wrong = [
        f"{'write' if library in said else 'add'} the row | `{library}` | {flags} | what it writes |"
        for library, flags in loaded.items()
        if said.get(library, [""])[0] != flags
    ]
    wrong += [f"there is no function `{library}`, take its row out" for library in said.keys() - loaded.keys()]
    wrong += [f"say what `{library}` writes" for library, cells in said.items() if len(cells) < 2 or not cells[1]]
    assert not wrong, "mend the functions in docs/data-model.md:\n" + "\n".join(wrong)


def test_the_page_can_be_read_in_one_sitting() -> None:
    lines = len(TEXT.splitlines())
    assert lines <= LINES_MAX, f"docs/data-model.md has {lines} lines, {LINES_MAX} is the wall: say it shorter"
