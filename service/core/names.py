"""Names of streams, users, groups and devices, and entry ids: parse, check, compare."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from service.errors import WaypostError

ALL = "all"
NAME_LENGTH_MAX = 128  # characters; a name is part of keys and of every frame
KNOWN_STREAMS = 10_000  # that were parsed lately: what is written to is written to again; a few megabytes

# Unicode letters and digits (`\w` without the underscore is added back by hand) and . _ - ~ @ + : |
_NAME = re.compile(r"[\w.\-~@+:|]{1,%d}" % NAME_LENGTH_MAX)
_ID = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


class EntryId(NamedTuple):
    """`<ms>-<n>`: the Redis server's clock in milliseconds, and the stream's own running number.

    Compares as a pair of integers. Within one epoch of one stream both parts only rise, `n` by exactly one.
    """

    ms: int
    n: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.n}"


ZERO = EntryId(0, 0)
PART_MAX = 2**53 - 1  # what Lua and JavaScript can count


def parse_id(text: str) -> EntryId:
    """The entry id that `text` spells. Raises `bad_id` for anything but two decimal numbers without leading zeros."""
    match = _ID.fullmatch(text)
    if match is None:
        raise WaypostError("bad_id", f"not an entry id: {text[:40]!r}")
    entry = EntryId(int(match[1]), int(match[2]))
    if max(entry) > PART_MAX:
        raise WaypostError("bad_id", f"above 2^53: {text!r}")
    return entry


def follows(entry: EntryId, position: EntryId) -> bool:
    """Whether `entry` is exactly the next one after `position`."""
    return entry.n == position.n + 1 and entry.ms >= position.ms


def had(entry: EntryId, position: EntryId) -> bool:
    """Whether `entry` was dispatched when the position stood at `position`: neither part is higher."""
    return entry.n <= position.n and entry.ms <= position.ms


def check_name(text: str) -> str:
    """`text` itself when it may name a user, a group or a device, else `bad_name`.

    1-128 characters: Unicode letters and digits, and . _ - ~ @ + : |. Refused unless NFC (two spellings that
    look the same would be two inboxes), and `.` and `..` (they mean something in paths).
    """
    if _NAME.fullmatch(text) is None or text in (".", ".."):
        raise WaypostError("bad_name", f"not a name: {text[:40]!r}")
    if not text.isascii():
        if not unicodedata.is_normalized("NFC", text):
            raise WaypostError("bad_name", f"not in Unicode NFC: {text[:40]!r}")
        # `\w` also matches numerals such as ½ and combining marks; only letters (L*) and digits (Nd) are names.
        for char in text:
            category = unicodedata.category(char)
            if not (char.isascii() or category[0] == "L" or category == "Nd"):
                raise WaypostError("bad_name", f"neither letter nor digit: {char!r}")
    return text


def user_stream(user: str) -> str:
    """The stream that is the inbox of `user`."""
    return f"user:{user}"


def group_stream(group: str) -> str:
    """The stream of `group`."""
    return f"group:{group}"


@lru_cache(KNOWN_STREAMS)
def parse_stream(text: str) -> tuple[str, str]:
    """`(kind, name)` of a stream: `("user", id)`, `("group", id)` or `("all", "")`. Raises `bad_stream`, `bad_name`."""
    if text == ALL:
        return ALL, ""
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("user", "group"):
        raise WaypostError("bad_stream", f"not a stream: {text[:60]!r}")
    return kind, check_name(name)


def is_stream(text: str) -> bool:
    """Whether `text` names a stream."""
    try:
        parse_stream(text)
    except WaypostError:
        return False
    return True


def may_be_read(stream: str, user: str) -> bool:
    """Whether `user` may look into `stream` as far as its name tells: the own inbox, `all`, and of groups the store
    knows the members. Raises `bad_stream`, `bad_name`.
    """
    kind, name = parse_stream(stream)
    return kind != "user" or name == user


def group_of(stream: str) -> str | None:
    """The group whose stream this is, None for an inbox or `all`."""
    return stream[6:] if stream.startswith("group:") else None
