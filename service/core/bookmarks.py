"""Bookmarks: where one client stands in all of its user's streams, short enough for a header of HTTP.

A **base** says of every stream up to where it has passed the client; it is kept in the store, under a name. A bookmark
is that name and what has moved since: `3f9c01d2aa.0~1f4~2.5~1f9~1` is the base 3f9c01d2aa, with its stream 0 now 1f4 ms
and 2 numbers further (in base 36), and its stream 5 1f9 ms and 1. A stream that the base does not have is spelt whole,
behind a tilde: `~YWxs~…~…`. So a bookmark alone tells all, and yet is as long as what moved, not as what there is.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

import msgspec

from service.core.names import PART_MAX, ZERO, EntryId, is_stream

NAME_BYTES = 5  # of a base: it is looked for among the few of one device, so it is to be unlikely twice, no secret
TEXT_MAX = 4096  # characters of a bookmark; servers and proxies take 8 KB of headers, and there are others
LONG = 320  # characters of moves from which on a new base is worth its price
FULL = 1536  # and from which on nothing more may move before there is one

_BOOKMARK = re.compile(r"([0-9a-f]{%d})((?:\.[^.]+)*)" % (2 * NAME_BYTES))
_NUMBER = re.compile(r"-?[0-9a-z]{1,12}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Mangled(ValueError):
    """Not a bookmark, or not one of this base."""


class Base(msgspec.Struct, frozen=True):
    """Up to where every stream has passed, in this order; ids are of `epoch`."""

    name: str
    epoch: str
    streams: dict[str, EntryId]

    def encode(self) -> str:
        """As the store keeps it: JSON, `[epoch, [[stream, ms, n], …]]`."""
        return msgspec.json.encode((self.epoch, [(stream, *at) for stream, at in self.streams.items()])).decode()


def new_base(epoch: str, streams: Mapping[str, EntryId]) -> Base:
    """A base under a name of its own."""
    return Base(secrets.token_hex(NAME_BYTES), epoch, dict(streams))


def decode_base(name: str, kept: bytes) -> Base:
    """The base that was kept under this name. Raises `Mangled`."""
    try:
        epoch, rows = msgspec.json.decode(kept, type=tuple[str, list[tuple[str, int, int]]])
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise Mangled("a base that cannot be read") from problem
    return Base(name, epoch, {stream: EntryId(ms, n) for stream, ms, n in rows})


def split(text: str) -> tuple[str, str]:
    """The name of the base, and the moves. Raises `Mangled`."""
    found = _BOOKMARK.fullmatch(text) if len(text) <= TEXT_MAX else None
    if found is None:
        raise Mangled("not a bookmark")
    return found[1], found[2]


def resolve(base: Base, moves: str) -> dict[str, EntryId]:
    """Where the client of a bookmark stands. Raises `Mangled`."""
    at = dict(base.streams)
    listed = list(base.streams)
    for move in moves.split(".")[1:]:
        parts = move.split("~")
        if len(parts) == 4 and not parts[0]:
            stream = _name(parts[1])
        elif len(parts) == 3 and _number(parts[0]) in range(len(listed)):
            stream = listed[_number(parts[0])]
        else:
            raise Mangled("a stream that the base does not have")
        ms, n = parts[-2:]
        since = base.streams.get(stream, ZERO)
        moved = EntryId(since.ms + _number(ms), since.n + _number(n))
        if not (0 <= moved.ms <= PART_MAX and 0 <= moved.n <= PART_MAX):
            raise Mangled("no id")
        at[stream] = moved
    return at


def spent(order: str, name: str) -> list[str]:
    """Which bases nobody can come back with, once somebody has come back with the base `name`.

    `order` is how the store lists a device's bases, oldest first: `<name><<base it goes on from>`, with blanks between.
    Those that `name` goes on from are spent, and those that go on from it: their bookmarks never arrived.
    """
    origins: dict[str, str] = {}
    for row in order.split():
        one, _, origin = row.partition("<")
        origins[one] = origin
    before: list[str] = []
    at = origins.get(name, "")
    while at and at not in (name, *before):
        before.append(at)
        at = origins.get(at, "")
    after = {name}
    for one, origin in origins.items():
        if origin in after:
            after.add(one)
    return [*before, *(after - {name, *before})]


class Bookmark:
    """The bookmark of one connection, as it moves."""

    __slots__ = ("_moves", "_numbers", "at", "base", "has_unlisted", "size")

    def __init__(self) -> None:
        self.base = Base("", "", {})
        self.at: dict[str, EntryId] = {}  # stream → up to where it has passed the client
        self.size = 0  # characters of the moves
        self.has_unlisted = False  # some stream has moved that the base does not have
        self._numbers: dict[str, str] = {}
        self._moves: dict[str, str] = {}

    def rest_on(self, base: Base) -> None:
        """The store has this base, of what passed some time ago or just now."""
        self.base = base
        self._numbers = {stream: _spell(number) for number, stream in enumerate(base.streams)}
        self._moves, self.size, self.has_unlisted = {}, 0, False
        for stream, at in list(self.at.items()):
            if at != base.streams.get(stream):
                self.move(stream, at)

    def move(self, stream: str, at: EntryId) -> None:
        """Everything of the stream up to `at` has passed the client."""
        self.at[stream] = at
        since = self.base.streams.get(stream, ZERO)
        number = self._numbers.get(stream)
        if number is None:
            self.has_unlisted = True
            which = "~" + base64.urlsafe_b64encode(stream.encode()).decode().rstrip("=")
        else:
            which = number
        move = f".{which}~{_spell(at.ms - since.ms)}~{_spell(at.n - since.n)}"
        self.size += len(move) - len(self._moves.get(stream, ""))
        self._moves[stream] = move

    def text(self) -> str:
        """The bookmark."""
        return self.base.name + "".join(self._moves.values())

    def standing(self, followed: Collection[str], ended_max: int) -> dict[str, EntryId]:
        """What a new base is to say. Of streams that are followed no longer the last `ended_max` are remembered: the
        client may come back once more with what passed of them.
        """
        ended = [stream for stream in self.at if stream not in followed]
        for stream in islice(ended, max(0, len(ended) - ended_max)):
            del self.at[stream]
            self.size -= len(self._moves.pop(stream, ""))
        return dict(self.at)


def _spell(number: int) -> str:
    """A number in base 36, which `int` reads."""
    if number < 0:
        return "-" + _spell(-number)
    return "".join(_digits(number))[::-1] or "0"


def _digits(number: int) -> Iterator[str]:
    while number:
        number, digit = divmod(number, 36)
        yield _DIGITS[digit]


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise Mangled("not a number")
    return int(text, 36)


def _name(text: str) -> str:
    try:
        stream = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as problem:
        raise Mangled("not a name") from problem
    if not is_stream(stream):
        raise Mangled("not a stream")
    return stream
