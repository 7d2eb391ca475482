"""What operators see: records of what lies in the store, read as it is, and of what operators did."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from service.core.entries import Entry, Redaction, Removal, Stretch
from service.core.names import EntryId
from service.store.records import StreamFacts

SurveyOrder = Literal["entries", "bytes", "rate", "lag", "wait", "devices", "totals"]


class StreamSight(msgspec.Struct, frozen=True):
    """A stream as it stands. `recent`: numbers that it gave out since the moment that was asked about, as far as the
    entries of that time are still there.
    """

    facts: StreamFacts
    recent: int


class DeviceSight(msgspec.Struct, frozen=True):
    """A device as it is kept: Redis ms of when it was first and last seen, None where that cannot be read; the node of
    its latest `hello`; and stream → (offset, epoch that it is of).
    """

    user: str
    device: str
    first_seen: int | None
    last_seen: int | None
    node: str
    offsets: Mapping[str, tuple[EntryId, str]]


class StreamDevice(msgspec.Struct, frozen=True):
    """One device and one stream: the offset that is stored, None for none, and the user's memberships as in
    `StreamBounds`.
    """

    user: str
    device: str
    last_seen: int | None
    offset: EntryId | None
    stretches: tuple[Stretch, ...] | None


class StreamBounds(msgspec.Struct, frozen=True):
    """Head and floor of a stream, and the memberships of the user who was asked about: None where it is no group's,
    () for who never was a member. `nodes` are those on its register.
    """

    stream: str
    head: EntryId
    floor: EntryId
    stretches: tuple[Stretch, ...] | None
    nodes: tuple[str, ...]


class UserSight(msgspec.Struct, frozen=True):
    """A user's devices (`devices_count` in all; those seen last come first), and their streams."""

    user: str
    now_ms: int
    epoch: str
    devices: tuple[DeviceSight, ...]
    devices_count: int
    streams: Mapping[str, StreamBounds]


class EntryEvidence(msgspec.Struct, frozen=True):
    """What the store keeps about one id of a stream. `other`: the id of an entry or a redaction of the same number that
    is not this one. `group_exists` is None where the stream is no group's.
    """

    bounds: StreamBounds
    entry: Entry | None
    redaction: Redaction | None
    other: EntryId | None
    removals: tuple[Removal, ...]
    group_exists: bool | None


class JobSight(msgspec.Struct, frozen=True):
    """Who holds the lease of a job, "" for nobody, and for how many ms yet."""

    holder: str
    lease_ms: int


class Action(msgspec.Struct, frozen=True):
    """Something that an operator did. `id` is that of its line, whose first part is Redis time in ms; "" before it is
    written. `outcome` is `ok`, or a code of the table of errors.
    """

    who: str
    action: str
    target: str
    reason: str = ""
    outcome: str = "ok"
    detail: str = ""
    id: str = ""

    @property
    def at_ms(self) -> int:
        """When it was noted."""
        return int(self.id.partition("-")[0] or 0)


class Kept(msgspec.Struct, frozen=True):
    """A part of the last survey: when it was made (Redis ms), by which run, and its rows."""

    at_ms: int
    run: str
    rows: list[dict[str, Any]]
