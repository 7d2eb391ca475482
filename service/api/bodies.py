"""Every body that goes over HTTP: what is asked, and what is answered. A field that may be left out has a default.

Ids are `<ms>-<n>`, times RFC 3339 in UTC. `next` and `prev` are path and query of another page, null where there is
none.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from service.core import frames
from service.core.entries import Durability
from service.core.frames import Key
from service.core.problems import Problem
from service.inspection import Audit, Devices, JobsView, Nodes, StreamView, SurveyView, Why
from service.store import Role
from service.trimming import Plan

# -- requests ----------------------------------------------------------------------------------------------------------


class NewMessage(msgspec.Struct, frozen=True):
    """A message to a stream. `body` is any JSON, and is kept as it was sent. `from`: who sends it; a server key must
    say, anybody else may only say themselves.
    """

    to: str
    body: Raw
    key: Key | None = None
    from_: str | None = msgspec.field(name="from", default=None)


class Offsets(msgspec.Struct, frozen=True):
    """Stream → entry id up to which a device has everything. In the answer: what is stored."""

    offsets: dict[str, str]


class GroupSettings(msgspec.Struct, frozen=True):
    """Settings of a group; what is left out stays. `open`: anybody may join. `announce`: members up to which its stream
    tells who joins and leaves.
    """

    open: bool | None = None
    announce: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None


class NewMember(msgspec.Struct, frozen=True):
    """A member of a group. Without `role`: as the member was, else `member`."""

    role: Role | None = None


# -- answers -----------------------------------------------------------------------------------------------------------


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the process or the node is; `reasons` why it is not ready."""

    status: str
    reasons: list[str] | None = None


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Stored. `stream` and `id` are where the sender finds it; for a server key, where the recipient does.

    `duplicate`: it was stored before, with this key.
    """

    stream: str
    id: str
    mid: str
    durability: Durability
    duplicate: bool = False


class Messages(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of history, with what `history` says on the wire."""

    stream: str
    messages: tuple[frames.EntryFrame, ...]
    floor: str
    head: str
    found_oldest: bool
    found_newest: bool
    gaps: tuple[frames.Gap, ...]
    looked_at: int
    next: str | None
    prev: str | None
    first: str | None = None
    last: str | None = None


class Redaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message was taken away: `id` is the `redacted` entry's, absent when it was taken away before, or lies
    beyond the caller's membership.
    """

    stream: str
    target: str
    duplicate: bool
    id: str | None = None


class StreamRow(msgspec.Struct, frozen=True):
    """A stream of a user: `offset` is the device's, `missed` how many numbers lie between it and `head`."""

    stream: str
    head: str
    floor: str
    offset: str
    missed: int


class Streams(msgspec.Struct, frozen=True):
    """A page of a user's streams: inbox, `all`, then groups by name."""

    streams: tuple[StreamRow, ...]
    next: str | None


class Group(msgspec.Struct, frozen=True):
    """A group. `role` and `since` (the id of joining) are the caller's own, null for a server key."""

    group: str
    open: bool
    announce: int
    members: int
    head: str
    floor: str
    role: Role | None
    since: str | None


class Member(msgspec.Struct, frozen=True):
    """A member of a group; `since` is the id of joining."""

    user: str
    role: Role
    since: str


class Members(msgspec.Struct, frozen=True):
    """A page of a group's members, in no order."""

    members: tuple[Member, ...]
    next: str | None


class StreamNames(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of the names of all streams, in no order; one may come twice. `rows`, where they were asked for: how each
    stands; what cannot be told of is left out.
    """

    streams: tuple[str, ...]
    next: str | None
    rows: tuple[StreamView, ...] | None = None


REQUESTS: tuple[type[msgspec.Struct], ...] = (NewMessage, Offsets, GroupSettings, NewMember)
ANSWERS: tuple[type[msgspec.Struct], ...] = (
    Problem,
    Health,
    Sent,
    Messages,
    Redaction,
    Streams,
    Offsets,
    Group,
    Members,
    Member,
    StreamNames,
    Nodes,
    StreamView,
    Devices,
    JobsView,
    Plan,
    Audit,
    Why,
    SurveyView,
)
