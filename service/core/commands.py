"""What a session asks its shell to do, and what it needs to know of the answers."""

import msgspec

from service.core.entries import Durability
from service.core.frames import Ref
from service.core.history import Question
from service.core.names import EntryId


class Limits(msgspec.Struct, frozen=True):
    """What a session refuses beyond; told to the client in `welcome`. Reasons stand in `service/config.py`.

    `connection_sends_per_s` and `_burst` are the connection's (0: no limit); the session only tells them.
    """

    body_bytes: int
    body_depth: int
    frame_bytes: int
    streams_per_user: int
    unanswered_sends: int
    unanswered_bytes: int
    welcome_streams: int
    connection_sends_per_s: float = 0
    connection_sends_burst: int = 0


class Open(msgspec.Struct, frozen=True):
    """Open a session for this device. `epoch` is that of the offsets; None: take them as of the current one."""

    device: str
    offsets: dict[str, EntryId]
    epoch: str | None


class Publish(msgspec.Struct, frozen=True):
    """Store a message; answer with `answered` or `failed`. `number` names it within the connection."""

    number: int
    to: str
    body: bytes
    key: str | None


class ChangeMembership(msgspec.Struct, frozen=True):
    """Join or leave a group; answer with `joined`, `left` or `failed`."""

    number: int
    group: str
    is_join: bool


class Commit(msgspec.Struct, frozen=True):
    """Store offsets; with `ref`, answer with `committed`. `wants_answer`: at once, and tell."""

    offsets: dict[str, EntryId]
    ref: Ref
    wants_answer: bool


class LookBack(msgspec.Struct, frozen=True):
    """Look into the past of a stream; answer with `looked_back`."""

    question: Question
    ref: Ref


class Renew(msgspec.Struct, frozen=True):
    """Look at a fresh token; answer with `renewed` or `not_answered`."""

    token: str
    ref: Ref


class Close(msgspec.Struct, frozen=True):
    """End the connection with this WebSocket close code, after what has been written."""

    code: int
    reason: str


Command = Open | Publish | ChangeMembership | Commit | LookBack | Renew | Close


# -- what the store answered, as a session needs it -------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True):
    """One stream of a session: the offset stored for the device, where this connection starts, head and floor."""

    stored: EntryId
    start: EntryId
    head: EntryId
    floor: EntryId


class Stored(msgspec.Struct, frozen=True):
    """A message was stored; `id` is where the sender finds it.

    `is_coming`: the entry comes through the node's mailbox with our number on it, or has come.
    """

    stream: str
    id: EntryId
    is_duplicate: bool
    durability: Durability
    is_coming: bool
