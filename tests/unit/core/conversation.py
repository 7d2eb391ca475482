"""What the tests of a session share: a client, and the node around its session as far as the session can see."""

import json
from collections.abc import Callable
from typing import Any

from service.core import frames
from service.core.commands import ChangeMembership, Command, Limits, Publish, Started, Stored
from service.core.entries import Durability
from service.core.names import ZERO, EntryId
from service.core.session import Session
from service.errors import ERRORS, WaypostError

INBOX = "user:ann"
GROUP = "group:g"


def at(n: int) -> EntryId:
    return EntryId(1000 + n, n)


class Client:
    """A session, and the node around it as far as the session can see: what has passed, and what is live."""

    def __init__(
        self,
        *,
        permits: Callable[[str, str], bool] = lambda _action, _stream: True,
        tells_absence: bool = False,
        only_device: str | None = None,
        limits: dict[str, int] | None = None,
    ) -> None:
        few = {
            "body_bytes": 100,
            "body_depth": 8,
            "frame_bytes": 200,
            "streams_per_user": 3,
            "unanswered_sends": 8,
            "unanswered_bytes": 1000,
            "welcome_streams": 2,
        }
        self.passed: dict[str, EntryId] = {}
        self.live: set[str] = set()
        self.session = Session(
            user="ann",
            permits=permits,
            limits=Limits(**{**few, **(limits or {})}),
            passed=self.passed.get,
            is_live=self.live.__contains__,
            tells_absence=tells_absence,
            only_device=only_device,
        )
        self.commands: list[Command] = []

    # -- what the client says, and what is written to it

    def says(self, *said: dict[str, Any]) -> list[dict[str, Any]]:
        """Sends objects in one text frame; returns what is written, as JSON."""
        self.session.receive(frames.decode(b"\n".join(json.dumps(one).encode() for one in said)))
        return self.hears()

    def hears(self) -> list[dict[str, Any]]:
        """What has been written since; commands are put aside for `asked`."""
        written, commands = self.session.flush()
        self.commands += commands
        return [json.loads(frames.encode(frame)) for frame in written]

    def asked(self) -> list[Command]:
        """What the node was asked to do since the last call."""
        self.hears_nothing()
        commands, self.commands = self.commands, []
        return commands

    def hears_nothing(self) -> None:
        assert self.hears() == []

    def is_read(self) -> bool:
        """Whether the node would read from this client's socket."""
        return not self.session.is_congested

    def numbers(self) -> list[int]:
        """The numbers of the sends and changes of membership asked for since."""
        return [c.number for c in self.asked() if isinstance(c, Publish | ChangeMembership)]

    # -- what the node does

    def opens(self, **streams: Started) -> list[dict[str, Any]]:
        """The store opens the session with these streams (`_` for the colon)."""
        named = {name.replace("_", ":"): started for name, started in streams.items()}
        self.session.opened("n1", "e1", 25.0, named or {INBOX: begun()})
        return self.hears()

    def catches_up(self, stream: str, upto: EntryId = ZERO) -> list[dict[str, Any]]:
        """The stream becomes live, having passed up to `upto`."""
        self.passed[stream] = upto
        self.live.add(stream)
        self.session.caught_up(stream)
        return self.hears()

    def falls_behind(self, stream: str) -> list[dict[str, Any]]:
        self.live.discard(stream)
        self.session.fell_behind(stream)
        return self.hears()

    def stored(
        self,
        number: int,
        entry: EntryId,
        stream: str = "all",
        *,
        is_coming: bool = True,
        is_duplicate: bool = False,
        durability: Durability = "fsynced",
    ) -> list[dict[str, Any]]:
        """The call answers that a send was stored."""
        self.session.answered(number, Stored(stream, entry, is_duplicate, durability, is_coming))
        return self.hears()

    def dispatches(self, number: int, entry: EntryId, stream: str = "all") -> bool:
        """The reader dispatches our own entry on a live stream; returns whether it became the answer."""
        self.passed[stream] = entry  # the position moves first
        return self.session.own_entry(number, stream, entry, "fsynced")

    def fails(self, number: int, code: str) -> list[dict[str, Any]]:
        self.session.failed(number, WaypostError(code))
        return self.hears()


def begun(stored: EntryId = ZERO, *, head: EntryId = ZERO, start: EntryId | None = None) -> Started:
    return Started(stored, stored if start is None else start, head, ZERO)


def new() -> Client:
    return Client()


def opened(**limits: int) -> Client:
    """A client whose session is open: the inbox, a group and `all`, live and up to date."""
    client = Client(limits=limits)
    client.says({"type": "hello"})
    client.opens(user_ann=begun(), group_g=begun(), all=begun())
    for stream in (INBOX, GROUP, "all"):
        client.catches_up(stream)
    client.commands = []
    return client


def send(ref: int, to: str = "all", **fields: str) -> dict[str, Any]:
    return {"type": "send", "ref": ref, "to": to, "body": ref, **fields}


def join(ref: int, group: str = "g") -> dict[str, Any]:
    return {"type": "join", "ref": ref, "group": group}


def leave(ref: int, group: str = "g") -> dict[str, Any]:
    return {"type": "leave", "ref": ref, "group": group}


def ack(ref: int | None = None, **offsets: str) -> dict[str, Any]:
    named = {name.replace("_", ":"): offset for name, offset in offsets.items()}
    return {"type": "ack", "offsets": named} if ref is None else {"type": "ack", "offsets": named, "ref": ref}


def error(code: str, ref: int | None = None, *, retry: bool | None = None) -> dict[str, Any]:
    """The `error` frame for a code, without its text."""
    frame: dict[str, Any] = {"type": "error", "code": code, "retry": ERRORS[code].retry if retry is None else retry}
    return frame if ref is None else {**frame, "ref": ref}


def bare(written: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Frames without the texts for people."""
    return [{name: value for name, value in frame.items() if name != "message"} for frame in written]


def sent(ref: int, entry: EntryId, stream: str = "all", mid: str = "", **fields: str | bool) -> dict[str, Any]:
    frame: dict[str, Any] = {"type": "sent", "ref": ref, "stream": stream, "id": str(entry), "mid": mid}
    return {**frame, "duplicate": False, "durability": "fsynced", **fields}
