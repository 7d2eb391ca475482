"""What `waypost doctor` finds: a line each."""

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One check. `text` says what is, `mend` which setting or command changes it, "" where nothing has to be done."""

    check: str
    state: Literal["ok", "warn", "bad"]
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """As it should be."""
    return Finding(check, "ok", text)


def warn(check: str, text: str, mend: str) -> Finding:
    """May be meant, or may become bad."""
    return Finding(check, "warn", text, mend)


def bad(check: str, text: str, mend: str) -> Finding:
    """Messages or secrets are at risk, or it does not work."""
    return Finding(check, "bad", text, mend)
