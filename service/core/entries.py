"""What stands in a stream, as records: entries, and what a page of them says about the moment it was read."""

from typing import Literal

import msgspec

from service.core.names import EntryId

Durability = Literal["memory", "fsynced", "replicated"]
GapKind = Literal["trimmed", "lost", "epoch"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a stream.

    `type` is `message`, `joined`, `left`, `redacted`, or a type that this release does not know (delivered as
    it is). `sender` is the user it comes from, `to` the stream it was sent to, `mid` the message id (the
    sender's key where one was given). `body` is the JSON text as it was sent, None where there is none.
    `target` is the entry id that a `redacted` entry speaks of. `is_redacted` marks a message whose body was
    taken away: it keeps its place without one. `extra` are stored fields that this release has no name for.
    """

    id: EntryId
    type: str
    sender: str
    to: str
    mid: str = ""
    body: bytes | None = None
    device: str = ""
    target: str = ""
    trace: str = ""
    is_redacted: bool = False
    extra: dict[str, str] | None = None


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An entry as it comes out of a mailbox: where it belongs, and which send of this node caused it.

    `origin` is `(connection number, send number)` when a connection of the reading node sent it.
    `entry.body` is None with `by_reference` when the body was too large for mailboxes: read it from the stream.
    """

    stream: str
    entry: Entry
    origin: tuple[int, int] | None = None
    by_reference: bool = False


class Redaction(msgspec.Struct, frozen=True):
    """A message whose body was removed: its id and what is left of it. `at` is Redis time in ms."""

    id: EntryId
    by: str
    at: int
    sender: str
    to: str
    mid: str


class Removal(msgspec.Struct, frozen=True):
    """A line of a stream's ledger: everything above `after` up to `to` is gone.

    `count` is how many entries were removed; `at` is Redis time in ms; `policy` and `limit` name what fired.
    """

    after: EntryId
    to: EntryId
    count: int
    kind: GapKind
    at: int
    policy: str = ""
    limit: str = ""
    run: str = ""


class Stretch(msgspec.Struct, frozen=True):
    """A time of membership: from the own `joined` entry (or the head at that moment) to the own `left` entry.

    `left` is None while the user is a member.
    """

    joined: EntryId
    left: EntryId | None = None


class Page(msgspec.Struct, frozen=True):
    """A stretch of a stream, all of one moment.

    `entries` lie above `after`, oldest first. `before` is the last existing entry at or below `after`, None
    when there is none. `is_last` says that nothing follows the last entry up to `head`. `redactions` and
    `removals` are those that touch the stretch from `after` on. `stretches` holds, for a group's stream, the
    membership of each user the page was asked for (an empty tuple: never a member); None for other streams.
    """

    stream: str
    after: EntryId
    head: EntryId
    floor: EntryId
    before: EntryId | None
    entries: tuple[Entry, ...]
    is_last: bool
    redactions: dict[int, Redaction]
    removals: tuple[Removal, ...]
    stretches: dict[str, tuple[Stretch, ...]] | None
