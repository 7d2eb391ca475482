"""One client's connection as the node holds it: session and socket joined, what is pushed, and catching up.

The transport makes a `Connection`, feeds it what arrives (`receive`), and tells it how the socket is (`paused`,
`drained`, `closed`). Memory per connection is bounded by construction: a socket that does not drain puts all its
streams behind, and while a stream is behind nothing is queued for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from service.auth import Principal
from service.core import frames
from service.core.bucket import Bucket
from service.core.commands import Stored
from service.core.delivery import Cursor, Place
from service.core.entries import Arrival, Entry
from service.core.frames import ClientFrame, Malformed, ServerFrame
from service.core.names import ZERO, EntryId, user_stream
from service.core.paging import Gap
from service.core.session import Session
from service.errors import WaypostError
from service.log import Whose
from service.store import Outcome, Outgoing

if TYPE_CHECKING:
    from service.node.node import Node

CLOSE_INTERNAL = 1011  # RFC 6455: the server met something that it did not expect
CLOSE_LOST = 1006  # RFC 6455: what an end without a close frame counts as

EncodeEntry = Callable[[str, Entry], bytes]

_COUNTED = frozenset({frames.Error, frames.Live})  # frames that say something to operators, too


def wants_all(_stream: str) -> bool:
    """What a client wants that is told of all its user's streams."""
    return True


class Socket(Protocol):
    """What a connection needs of its transport. Nothing here waits."""

    @property
    def buffered_bytes(self) -> int:
        """What has been written and is not on its way yet."""

    def write(self, data: bytes) -> None:
        """Queues bytes that are ready for the wire."""

    def pause_reading(self) -> None:
        """Stops reading from the client."""

    def resume_reading(self) -> None:
        """Reads again."""

    def close(self, code: int, reason: str) -> None:
        """Says goodbye with a close code, after what has been written."""


class Codec(Protocol):
    """A protocol's spelling: frames and entries as bytes ready for the socket, b"" for what it does not tell."""

    def frame(self, frame: ServerFrame) -> bytes:
        """A frame of the session."""

    def gap(self, stream: str, gap: Gap) -> bytes:
        """An announced gap."""

    @property
    def transport(self) -> str:
        """The protocol's name in the log."""

    @property
    def entry(self) -> EncodeEntry:
        """An entry of a stream: the same bytes for every connection whose codec gives this same function."""


class Item:
    """An arrival on its way to many connections: each spelling is made once."""

    __slots__ = ("_ready", "arrival")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self._ready: dict[EncodeEntry, bytes] = {}

    def ready(self, encode: EncodeEntry) -> bytes:
        """The entry as `encode` spells it."""
        data = self._ready.get(encode)
        if data is None:
            data = self._ready[encode] = encode(self.arrival.stream, self.arrival.entry)
        return data


class Connection:
    """One client. `number` is unique within the node's life and names the connection in the origin of its sends."""

    TRANSPORT: ClassVar[str] = "websocket"  # what it is counted as
    TELLS_ALIKE: ClassVar[bool] = True  # what a connection of this kind tells does not depend on whose it is

    __slots__ = (
        "__weakref__",
        "_behind",
        "_catching_up",
        "_kept",
        "_kept_bytes",
        "_node",
        "codec",
        "cursors",
        "encode_entry",
        "inbox_head",
        "is_closed",
        "is_leaving",
        "is_paused",
        "is_reading",
        "number",
        "out",
        "principal",
        "send",
        "sends",
        "session",
        "since",
        "socket",
        "spelling",
        "user",
        "wants",
    )

    def __init__(
        self,
        node: "Node",
        number: int,
        session: Session,
        principal: Principal,
        *,
        socket: Socket,
        codec: Codec,
        wants: Callable[[str], bool],
        sends: Bucket | None,
    ) -> None:
        self._node = node
        self.number = number
        self.session = session
        self.principal = principal  # another one when the client renews its token
        self.sends = sends  # how fast it may send, None: not limited
        self.socket = socket
        self.codec = codec
        self.wants = wants  # which of the user's streams the client is told of; see `follow`
        self.user = session.user
        self.encode_entry = codec.entry
        self.spelling: EncodeEntry | None = self._usual_spelling()
        self.send = socket.write  # at hand: a fan-out looks it up a thousand times
        self.out: bytes | None = None  # what is to be written at the end of this turn; see `Turn`
        self.cursors: dict[str, Cursor[Connection]] = {}
        self.inbox_head = ZERO  # when the session was opened
        self.is_paused = False
        self.is_closed = False  # it has ended, by either side
        self.is_reading = True
        self.is_leaving = False  # the node ends, and this client is about to be told
        self.since = time.monotonic()
        self._behind: deque[str] = deque()
        self._catching_up: asyncio.Task[None] | None = None
        self._kept: deque[bytes | Item] = deque()
        self._kept_bytes = 0

    @property
    def is_keeping(self) -> bool:
        """Whether some of what passed this connection is kept back, and not written yet."""
        return bool(self._kept)

    # -- in ------------------------------------------------------------------------------------------------------------

    def receive(self, received: list[ClientFrame | Malformed]) -> None:
        """Takes frames that the client sent."""
        self.session.receive(received)
        self.flush()
        self.read_or_not()

    async def prepare(self, starts: Mapping[str, EntryId]) -> None:
        """What has to be done before `welcome`, once it is known where each stream starts. Raises what the store
        raises.
        """

    def flush(self) -> None:
        """Writes what the session has to say, and has the node do what it asks for."""
        if self.is_closed:
            return
        if self._kept:
            self._release()
        while True:
            written, commands = self.session.flush()
            for frame in written:
                if type(frame) in _COUNTED:
                    self._count(frame)
                self.write(self.codec.frame(frame))
            for command in commands:
                self._node.carry_out(self, command)
            if written:  # less is unanswered than before
                self.read_or_not()
            if not commands:  # which may have been answered at once
                break

    def _count(self, frame: ServerFrame) -> None:
        if isinstance(frame, frames.Error):
            self._node.numbers.error(frame.code)
        elif isinstance(frame, frames.Live) and frame.stream is None:
            self._node.numbers.caught_up_connections += 1

    def stored(self, number: int, message: Outgoing, outcome: Outcome, *, is_read: bool) -> None:
        """The call stored a send of this connection; `is_read`: its entry went into a mailbox that is read."""
        assert outcome.id is not None
        stream = user_stream(message.sender) if message.kind == "direct" else message.to
        is_coming = is_read and not outcome.is_duplicate
        stored = Stored(stream, outcome.id, outcome.is_duplicate, outcome.durability, is_coming)
        self.session.answered(number, stored)

    def failed(self, number: int, problem: WaypostError) -> None:
        """A send of this connection was refused, or its call failed."""
        self.session.failed(number, problem)

    def read_or_not(self) -> None:
        """A client that has too much unanswered, or does not take the answers, is not read: its sends wait with it."""
        should_read = not (self.session.is_congested or self.is_paused or self.is_leaving)
        if should_read != self.is_reading and not self.is_closed:
            self.is_reading = should_read
            if should_read:
                self.socket.resume_reading()
            else:
                self.socket.pause_reading()

    def take_no_more(self) -> None:
        """The node ends: what the client sends from now on is for another node."""
        self.is_leaving = True
        self.read_or_not()

    def paused(self) -> None:
        """The socket's buffer is full: nothing more is pushed until it has drained."""
        self.is_paused = True
        self.read_or_not()
        self._node.stalled(self)

    def drained(self) -> None:
        """The socket takes more: go on reading pages."""
        self.is_paused = False
        self.read_or_not()
        self._go_on()

    def closed(self, code: int = CLOSE_LOST, reason: str = "") -> None:
        """The socket is gone, or as good as gone. `reason`: why we ended it, where we did. May be called again."""
        if not self.is_closed:
            self.is_closed = True
            self._node.numbers.closed(code if reason else None)
            self.out = None
            if self._catching_up is not None:
                self._catching_up.cancel()
            self._node.disconnected(self, code, reason)

    def who(self) -> Whose:
        """Whose it is, for a line of the log."""
        who: Whose = {"connection": self.number, "user": self.user}
        if self.session.device:
            who["device"] = self.session.device
        return who

    def hang_up(self, code: int, reason: str) -> None:
        """Ends the connection after what has been said, what is kept back included."""
        self.pour()
        for said in self._kept:
            if isinstance(said, bytes):
                self.send(said)
        self._kept.clear()
        self.socket.close(code, reason)
        self.closed(code, reason)

    def break_off(self) -> None:
        """Ends a connection that cannot be served: it resumes when it comes back, from what it has."""
        self.out = None
        self.socket.close(CLOSE_INTERNAL, "internal")
        self.closed(CLOSE_INTERNAL, "internal")

    # -- out -----------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Writes bytes that are ready for the wire, after all that was written before."""
        if self._kept:
            self._keep(data)
        elif self._node.turn.is_open or self.out is not None:
            self._node.turn.add(self, data)
        else:
            self.send(data)

    def pour(self) -> None:
        """Hands the socket what was written in this turn, before its end."""
        out, self.out = self.out, None
        if out is not None:
            self.send(out)

    # -- out: live -----------------------------------------------------------------------------------------------------

    def _usual_spelling(self) -> EncodeEntry | None:
        """How every entry of every stream is spelt for it, while all it does with them is to write them. None: it is
        asked each time, by `push`.
        """
        return self.encode_entry if self.wants is wants_all and self.TELLS_ALIKE else None

    def push(self, item: Item) -> None:
        """An entry of a stream that this connection is live on."""
        if self.wants(item.arrival.stream):
            self._node.numbers.pushed += 1
            self.write(item.ready(self.encode_entry))

    def push_own(self, item: Item) -> None:
        """An entry that this connection itself caused: the answer to its send, in its place among the pushes."""
        arrival = item.arrival
        assert arrival.origin is not None
        if self._node.settings.wait_replicas and self.session.hold(arrival.origin[1]):
            self._keep(item)
        elif self.session.own_entry(arrival.origin[1], arrival.stream, arrival.entry.id, self._node.store.durability):
            self.flush()
        else:
            self.push(item)

    # -- out: kept back until the answer to an own send says how many replicas have it -------------------------------

    def _keep(self, kept: "bytes | Item") -> None:
        """Keeps back an own entry whose answer is to come, and whatever is written after it."""
        self._kept.append(kept)
        self.spelling = None
        self._kept_bytes += len(kept) if isinstance(kept, bytes) else 0
        if self._kept_bytes > self._node.settings.limits.write_buffer_bytes:
            self._node.stalled(self)  # pushed no more; what was kept is written when the answer is there

    def _release(self) -> None:
        """Writes what was kept back, up to the next own entry whose answer is still to come."""
        kept, self._kept, self._kept_bytes = self._kept, deque(), 0
        self.spelling = self._usual_spelling()
        while kept:
            first = kept[0]
            if isinstance(first, bytes):
                self.write(first)
            elif first.arrival.origin is not None and self.session.is_held(first.arrival.origin[1]):
                for later in kept:
                    self._keep(later)
                return
            else:
                self.push_own(first)
            kept.popleft()
        self._go_on()

    # -- out: behind ---------------------------------------------------------------------------------------------------

    def read_on(self, stream: str) -> None:
        """A stream is behind: its pages are to be read."""
        if stream not in self._behind:
            self._behind.append(stream)
        self.catch_up()

    def catch_up(self) -> None:
        """Begins to read pages, unless it does already, or has nothing to read, or nowhere to write it."""
        if self._behind and self._catching_up is None and self.has_room():
            self._catching_up = self._node.spawn(self._catch_up(), self)

    def _go_on(self) -> None:
        """There is room again, for what was waiting for it."""
        self.catch_up()
        self._node.histories.go_on(self)

    async def _catch_up(self) -> None:
        """One page at a time, the streams in turn, until nothing is behind or the socket is full."""
        try:
            while self._behind and self.has_room():
                await self._node.may_read()
                cursor = self.cursors.get(self._behind.popleft())
                if cursor is not None and cursor.place is Place.BEHIND:
                    await self._node.pages.feed(self, cursor)
        except Exception as error:  # noqa: BLE001 - a bug: the client comes back, and is served again
            self._node.log.error("catch_up_failed", traceback=error, connection=self.number)
            self.break_off()
        finally:
            self._catching_up = None
        self.catch_up()

    def has_room(self) -> bool:
        """Whether pages and answers about the past have somewhere to go."""
        limit = self._node.settings.limits.write_buffer_bytes
        return not self.is_paused and not self.is_closed and self._kept_bytes <= limit

    def deliver(self, stream: str, laid: tuple[Entry | Gap, ...], items: dict[EntryId, Item]) -> None:
        """Writes what a page brought, in order. `items` keeps what is spelt, for all who share the page."""
        if not self.wants(stream):
            return
        ready = self.spell(stream, laid, items)
        if laid and not self.is_closed:  # a protocol that has no text for them is told that they passed
            self.write(ready)

    def spell(self, stream: str, laid: tuple[Entry | Gap, ...], items: dict[EntryId, Item]) -> bytes:
        """What `deliver` writes."""
        encode = self.encode_entry
        parts = []
        for part in laid:
            if isinstance(part, Gap):
                parts.append(self.codec.gap(stream, part))
                continue
            item = self.item_of(stream, part, items)
            if self.hears(part):
                parts.append(item.ready(encode))
        return b"".join(parts)

    def heard_of(self, stream: str, laid: tuple[Entry | Gap, ...]) -> int:
        """How many entries of a page are written to it."""
        return sum(isinstance(part, Entry) for part in laid) if self.wants(stream) else 0

    @staticmethod
    def item_of(stream: str, entry: Entry, items: dict[EntryId, Item]) -> Item:
        """The entry of a page among the `items` that all share who share the page."""
        item = items.get(entry.id)
        if item is None:
            item = items[entry.id] = Item(Arrival(stream, entry))
        return item

    def hears(self, entry: Entry) -> bool:
        """Whether the protocol tells this connection of such an entry."""
        return True

    def follow(self, cursor: Cursor["Connection"], offset: EntryId) -> None:
        """The connection follows a stream from now on; `offset` is what the device has of it.

        A stream that it does not want (its user's inbox, followed for the hints in it) it only overhears: nothing of it
        is written, it is none of the session's streams, and nothing of it can be acknowledged.
        """
        self.cursors[cursor.stream] = cursor
        if self.wants(cursor.stream):
            self.session.follow(cursor.stream, offset)

    def passed(self, stream: str) -> EntryId | None:
        """Up to where a stream has passed this connection, None when the client does not follow it."""
        cursor = self._told(stream)
        return None if cursor is None else self._node.delivery.tracks[stream].passed(cursor)

    def is_live(self, stream: str) -> bool:
        """Whether new entries of the stream are pushed to this connection."""
        cursor = self._told(stream)
        return cursor is not None and cursor.place is Place.LIVE

    def _told(self, stream: str) -> Cursor["Connection"] | None:
        """The cursor on a stream that the client is told of."""
        return self.cursors.get(stream) if self.wants(stream) else None

    def end(self, code: str) -> None:
        """Ends the connection with an error that has a close code."""
        self.session.end(code)
        self.flush()


class DeafConnection(Connection):
    """A connection of the old protocol, in which nobody hears what they said themselves."""

    TRANSPORT = "chat"
    TELLS_ALIKE = False

    __slots__ = ()

    def push(self, item: Item) -> None:
        """An entry of a stream that this connection is live on."""
        if self.wants(item.arrival.stream):
            if is_heard := self.hears(item.arrival.entry):
                self._node.numbers.pushed += 1
            self.write(item.ready(self.encode_entry) if is_heard else b"")

    def hears(self, entry: Entry) -> bool:
        """Whether the protocol tells this connection of such an entry."""
        return entry.sender != self.user

    def heard_of(self, stream: str, laid: tuple[Entry | Gap, ...]) -> int:
        """How many entries of a page are written to it."""
        return sum(isinstance(part, Entry) and self.hears(part) for part in laid) if self.wants(stream) else 0


def gap_frame(stream: str, gap: Gap) -> frames.Gap:
    """How a gap is told on the wire."""
    causes = tuple(frames.cause_of(cause) for cause in gap.causes)
    return frames.Gap(
        stream,
        str(gap.after),
        str(gap.to),
        gap.missed,
        causes[-1],
        next=None if gap.next is None else str(gap.next),
        causes=causes if len(causes) > 1 else (),
    )
