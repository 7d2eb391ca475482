"""docs/security.md says what the code does: who may do what, which claims there are, what a scope opens."""

import re
from pathlib import Path
from typing import get_args

from service.auth import Action
from service.auth.permissions import SCOPE_FOR
from service.auth.tokens import GROUPS_MAX, TOKEN_BYTES_MAX, Claims
from service.core.public_keys import RSA_BITS_MIN
from service.core.server_keys import SCOPES

DOC = Path(__file__).parents[2] / "docs" / "security.md"


def section(title: str) -> str:
    """What stands under a heading."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/security.md: write the section {title!r}"
    return found[1]


def table(title: str, head: str) -> list[list[str]]:
    """The rows of the table in a section whose first column is headed so."""
    lines = iter(section(title).splitlines())
    for line in lines:
        if line.startswith(f"| {head} |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, f"docs/security.md: write the table {head!r} in {title!r}"
    return rows


def test_every_action_has_its_row_with_the_scope_that_opens_it() -> None:
    rows = table("Permissions", "action")
    said = {row[0].strip("`"): row[3] for row in rows}
    assert list(said) == list(dict.fromkeys(row[0].strip("`") for row in rows))
    expected = {action: f"scope `{SCOPE_FOR[action]}`" for action in get_args(Action)}
    assert said == expected, "mend the permissions in docs/security.md: one row an action, column 4 is SCOPE_FOR"
    assert all(len(row) == 5 and all(row) for row in rows), "say in every column who may: – for nobody"


def test_every_scope_has_its_row() -> None:
    assert [row[0] for row in table("Server keys", "scope")] == [f"`{scope}`" for scope in SCOPES]


def test_every_claim_has_its_row() -> None:
    said = [name for row in table("Tokens", "claim") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(said) == sorted(Claims.__struct_fields__), "mend the claims in docs/security.md"


def test_numbers_are_those_of_the_code() -> None:
    text = section("Tokens")
    for number in (TOKEN_BYTES_MAX, GROUPS_MAX, RSA_BITS_MIN):
        assert f"{number:,}" in text, f"docs/security.md: {number:,} is missing under Tokens"
