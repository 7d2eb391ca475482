"""Reading pages for connections that are behind: bounded, in order of asking, and shared.

Connections at the same place of the same stream, put behind by the same event, ask for the same page: it is read once,
and spelt once for all who get the same of it. They are served a few in each turn of the loop, so that a thousand who
fell behind together hold up nobody else.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from service.config import Limits
from service.core.delivery import Cursor, Place
from service.core.entries import Entry, Page
from service.core.names import ZERO, EntryId, user_stream
from service.core.paging import Gap, Layout, is_whole_for, lay_out, up_to
from service.errors import WaypostError
from service.node.connection import Connection, EncodeEntry, Item
from service.store import Store

if TYPE_CHECKING:
    from service.node.node import Node

FAILED_PAUSE_S = 0.2  # before a page that could not be read is asked for again
SERVED_PER_TURN = 16  # connections that are given a page between two looks at the sockets: a few milliseconds


class Reading:
    """A page, and what became of its entries on the way out: each spelling is made once for all who share the page.

    `position` is the stream's when the page was asked for: a head below it was rolled back since.
    """

    __slots__ = ("_common", "_entries", "_ready", "items", "page", "position")

    def __init__(self, page: Page, position: EntryId) -> None:
        self.page = page
        self.position = position
        self.items: dict[EntryId, Item] = {}
        self._common: Layout | None = None  # for all to whom the whole page belongs
        self._entries = 0  # of that layout
        self._ready: dict[EncodeEntry, bytes] = {}  # that layout as the connections' protocols spell it

    def lay_out(self, user: str, resume: EntryId) -> Layout:
        """What the page means for a user; see `service/core/paging.py`."""
        if not is_whole_for(self.page, user):
            return lay_out(self.page, user, resume)
        if self._common is None:
            self._common = lay_out(self.page, user, resume)
        return self._common

    def give(self, connection: Connection, layout: Layout) -> int:
        """Writes to the connection what the page brought; returns how many entries."""
        if layout is not self._common or not connection.TELLS_ALIKE:
            connection.deliver(self.page.stream, layout.items, self.items)
            return connection.heard_of(self.page.stream, layout.items)
        ready = self._ready.get(connection.encode_entry)
        if ready is None:
            ready = connection.spell(self.page.stream, layout.items, self.items)
            self._entries = connection.heard_of(self.page.stream, layout.items)
            self._ready[connection.encode_entry] = ready
        if layout.items:
            connection.write(ready)
        return self._entries


class _Read:
    """One page that was asked for, by all who wait for it."""

    __slots__ = ("after", "answer", "stream", "users")

    def __init__(self, stream: str, after: EntryId, answer: asyncio.Future[Reading]) -> None:
        self.stream = stream
        self.after = after
        self.answer = answer
        self.users: set[str] = set()


class Pages:
    """All page reads of a node."""

    def __init__(self, node: "Node", store: Store, limits: Limits) -> None:
        self._node = node
        self._store = store
        self._limits = limits
        self._waiting: dict[tuple[str, EntryId], _Read] = {}
        self._order: deque[_Read] = deque()
        self._in_flight = 0
        self._served: deque[asyncio.Future[None]] = deque()  # who waits to be given a page, a few in each turn

    async def feed(self, connection: Connection, cursor: Cursor[Connection]) -> None:
        """Reads the next page of a cursor that is behind and writes it; afterwards it is live, or is to be read on."""
        stream, after = cursor.stream, cursor.passed
        track = self._node.delivery.tracks[stream]
        if track.position is None:
            return  # the attach is on its way; its answer asks again
        try:
            reading = await self.read(stream, after, connection.user)
            await self._take_turn()
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            await asyncio.sleep(FAILED_PAUSE_S)
            connection.read_on(stream)
            return
        page = reading.page
        has_moved = cursor.place is not Place.BEHIND or cursor.passed != after
        if has_moved or connection.cursors.get(stream) is not cursor or connection.is_closed:
            return  # an attach made it live meanwhile, or it no longer follows: the page is old news
        if page.head < reading.position:
            self._node.fence.trip("a stream is shorter than it was", was_rolled_back=True)
        layout = reading.lay_out(connection.user, connection.session.streams.get(stream, page.floor))
        due = connection.session.due(stream)
        if due is not None:
            layout = up_to(layout, due, connection.user)
        numbers = self._node.numbers
        numbers.paged += reading.give(connection, layout)
        self._pass_hints(connection, stream, layout.items)
        self._tell_gaps(connection, stream, layout)
        has_caught_up = track.page(cursor, layout.upto, page.head)
        connection.session.passed_on(stream)
        connection.flush()
        is_below = page.is_last and layout.upto == page.head < track.position
        if is_below and not layout.has_ended and not connection.is_paused:
            has_caught_up = self._feed_tail(connection, cursor)
        if layout.has_ended:
            self._node.unfollow(connection, stream)
        elif has_caught_up and connection.is_paused:
            track.fall_behind(connection)  # live again when it has drained
            connection.read_on(stream)
        elif has_caught_up:
            numbers.caught_up_streams += 1
            connection.session.caught_up(stream)
            connection.flush()
        else:
            connection.read_on(stream)

    def _tell_gaps(self, connection: Connection, stream: str, layout: Layout) -> None:
        """What was written to the connection of gaps is counted, and after one of another history so is its offset."""
        for item in layout.items:
            if isinstance(item, Gap):
                if connection.wants(stream):
                    self._node.numbers.gap(item.causes[-1].kind, item.missed)
                if item.missed is None:
                    connection.session.restarted(stream, layout.upto)

    def _feed_tail(self, connection: Connection, cursor: Cursor[Connection]) -> bool:
        """Gives what was dispatched since the page was read, if it is all at hand; returns whether it caught up."""
        track = self._node.delivery.tracks[cursor.stream]
        items = (
            None if track.position is None else self._node.tails.between(cursor.stream, cursor.passed, track.position)
        )
        if items is None or any(_ends_membership(item, connection.user) for item in items):
            return False
        numbers = self._node.numbers
        pushed = numbers.pushed
        for item in items:
            connection.push(item)
        numbers.pushed, numbers.paged = pushed, numbers.paged + numbers.pushed - pushed  # it is no less late for that
        newest = items[-1].arrival.entry.id
        return track.page(cursor, newest, newest)

    def _pass_hints(self, connection: Connection, stream: str, items: tuple[Entry | Gap, ...]) -> None:
        """What the inbox says of groups joined or left elsewhere counts in a page as it does when it is pushed."""
        if stream == user_stream(connection.user):
            for item in items:
                if isinstance(item, Entry) and item.type in ("joined", "left"):
                    self._node.memberships.hint(connection, item)

    async def read(self, stream: str, after: EntryId, user: str) -> Reading:
        """The page above `after`, with the membership of `user`; shared with whoever asks for the same meanwhile.

        Raises what `Store.page` raises.
        """
        read = self._waiting.get((stream, after))
        if read is None:
            read = _Read(stream, after, asyncio.get_running_loop().create_future())
            self._waiting[stream, after] = read
            self._order.append(read)
        read.users.add(user)
        self._begin()
        return await asyncio.shield(read.answer)

    def _begin(self) -> None:
        while self._order and self._in_flight < self._limits.pages_in_flight:
            read = self._order.popleft()
            del self._waiting[read.stream, read.after]
            self._in_flight += 1
            self._node.spawn(self._carry_out(read))

    async def _carry_out(self, read: _Read) -> None:
        limits = self._limits
        track = self._node.delivery.tracks.get(read.stream)
        position = ZERO if track is None or track.position is None else track.position
        try:
            page = await self._store.page(
                read.stream,
                read.after,
                sorted(read.users),
                max_entries=limits.page_entries,
                max_bytes=limits.page_bytes,
            )
        except Exception as problem:  # noqa: BLE001 - whoever asked is told, whatever it was
            read.answer.set_exception(problem)
            read.answer.exception()  # those who asked may all be gone
        else:
            read.answer.set_result(Reading(page, position))
        finally:
            self._in_flight -= 1
            self._begin()

    async def _take_turn(self) -> None:
        """Returns when it is this connection's turn: all who wait for one page would else be served at once."""
        turn = asyncio.get_running_loop().create_future()
        if not self._served:
            asyncio.get_running_loop().call_soon(self._serve)
        self._served.append(turn)
        await turn

    def _serve(self) -> None:
        for _ in range(min(SERVED_PER_TURN, len(self._served))):
            turn = self._served.popleft()
            if not turn.done():  # else its connection has gone
                turn.set_result(None)
        if self._served:
            asyncio.get_running_loop().call_soon(self._serve)


def _ends_membership(item: Item, user: str) -> bool:
    entry = item.arrival.entry
    return entry.type == "left" and entry.sender == user
