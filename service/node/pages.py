"""Reading pages for connections that are behind: bounded, in order of asking, and shared.

Connections at the same place of the same stream, put behind by the same event, ask for the same page: it is read once.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from service.config import Limits
from service.core.delivery import Cursor, Place
from service.core.entries import Entry, Page
from service.core.names import EntryId, user_stream
from service.core.paging import Gap, lay_out
from service.errors import WaypostError
from service.node.connection import Connection, Item
from service.store import Store

if TYPE_CHECKING:
    from service.node.node import Node

FAILED_PAUSE_S = 0.2  # before a page that could not be read is asked for again
# A page below the position is usually older than an entry just dispatched: the next one brings it. After this many in a
# row the stream itself must be shorter than it was.
BELOW_POSITION_MAX = 20


class Reading:
    """A page, and what became of its entries on the way out: each spelling is made once for all who share the page."""

    __slots__ = ("is_counted", "items", "page")

    def __init__(self, page: Page) -> None:
        self.page = page
        self.items: dict[EntryId, Item] = {}
        self.is_counted = False  # once for all who share it


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
        self._below: dict[str, int] = {}

    async def feed(self, connection: Connection, cursor: Cursor[Connection]) -> None:
        """Reads the next page of a cursor that is behind and writes it; afterwards it is live, or is to be read on."""
        stream, after = cursor.stream, cursor.passed
        track = self._node.delivery.tracks[stream]
        if track.position is None:
            return  # the attach is on its way; its answer asks again
        try:
            reading = await self.read(stream, after, connection.user)
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            await asyncio.sleep(FAILED_PAUSE_S)
            connection.read_on(stream)
            return
        page = reading.page
        has_moved = cursor.place is not Place.BEHIND or cursor.passed != after
        if has_moved or connection.cursors.get(stream) is not cursor or connection.is_closed:
            return  # an attach made it live meanwhile, or it no longer follows: the page is old news
        layout = lay_out(page, connection.user, connection.session.streams.get(stream, page.floor))
        connection.deliver(stream, layout.items, reading.items)
        self._pass_hints(connection, stream, layout.items)
        if any(isinstance(item, Gap) and item.missed is None for item in layout.items):
            connection.session.restarted(stream, layout.upto)
        has_caught_up = track.page(cursor, layout.upto, page.head)
        is_below = page.is_last and page.head < track.position
        self._watch(stream, reading, is_below=is_below)
        if is_below and not layout.has_ended and not connection.is_paused:
            has_caught_up = self._feed_tail(connection, cursor)
        if layout.has_ended:
            self._node.unfollow(connection, stream)
        elif has_caught_up and connection.is_paused:
            track.fall_behind(connection)  # live again when it has drained
            connection.read_on(stream)
        elif has_caught_up:
            connection.session.caught_up(stream)
            connection.flush()
        else:
            connection.read_on(stream)

    def _feed_tail(self, connection: Connection, cursor: Cursor[Connection]) -> bool:
        """Gives what was dispatched since the page was read, if it is all at hand; returns whether it caught up."""
        track = self._node.delivery.tracks[cursor.stream]
        items = (
            None if track.position is None else self._node.tails.between(cursor.stream, cursor.passed, track.position)
        )
        if items is None or any(_ends_membership(item, connection.user) for item in items):
            return False
        for item in items:
            connection.push(item)
        newest = items[-1].arrival.entry.id
        return track.page(cursor, newest, newest)

    def _pass_hints(self, connection: Connection, stream: str, items: tuple[Entry | Gap, ...]) -> None:
        """What the inbox says of groups joined or left elsewhere counts in a page as it does when it is pushed."""
        if stream == user_stream(connection.user):
            for item in items:
                if isinstance(item, Entry) and item.type in ("joined", "left"):
                    self._node.hint(connection, item)

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
            read.answer.set_result(Reading(page))
        finally:
            self._in_flight -= 1
            self._begin()

    def _watch(self, stream: str, reading: Reading, *, is_below: bool) -> None:
        """A stream whose head stays below its position was rolled back: the fence has to know."""
        if not is_below:
            self._below.pop(stream, None)
        elif not reading.is_counted:
            reading.is_counted = True
            self._below[stream] = self._below.get(stream, 0) + 1
            if self._below[stream] >= BELOW_POSITION_MAX:
                del self._below[stream]
                self._node.fence.trip("a stream is shorter than it was", was_rolled_back=True)


def _ends_membership(item: Item, user: str) -> bool:
    entry = item.arrival.entry
    return entry.type == "left" and entry.sender == user
