"""A connection whose client tells where it stands by one text: before each entry and gap it is written a bookmark.

The bases that bookmarks rest on are kept in the store: one before anything is written, and another when much has moved.
Until that one is there, bookmarks go on with the one before; they cannot outgrow a header, because a connection whose
bookmark is full falls behind, as one does whose socket is.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from service.auth import Principal
from service.core.bookmarks import FULL, LONG, Bookmark, Mangled, new_base, resolve, spent, split
from service.core.bucket import Bucket
from service.core.delivery import Cursor
from service.core.entries import Entry
from service.core.names import EntryId
from service.core.paging import Gap
from service.core.session import Session
from service.errors import WaypostError
from service.node.connection import CLOSE_LOST, Codec, Connection, Item, Socket

if TYPE_CHECKING:
    from service.node.node import Node

Mark = Callable[[str], bytes]  # how a protocol spells a bookmark

# Between two bases of one connection: thousands of busy groups must not write one for every few entries.
PAUSE_S = 1.0
FULL_PAUSE_S = 0.1  # the same while nothing moves for want of one
FAILED_PAUSE_S = 0.2  # before a base that could not be kept is tried again
RENEWALS = 4  # times that a base is kept anew before it would expire


class Return:
    """Where a client that comes back stands: `offsets` of `epoch` (None: none are known). `base`, `spent`: see
    `core.bookmarks`.
    """

    def __init__(
        self,
        offsets: Mapping[str, EntryId] | None = None,
        epoch: str | None = None,
        base: str = "",
        spent_bases: tuple[str, ...] = (),
    ) -> None:
        self.offsets = offsets or {}
        self.epoch = epoch
        self.base = base
        self.spent = spent_bases


async def find_return(node: "Node", user: str, device: str, bookmark: str) -> Return:
    """What a bookmark of this device of this user says. One that is mangled, somebody else's, or of a base that is gone
    says nothing: the device goes on from the offsets that are stored for it. Raises `Unavailable`.
    """
    try:
        name, moves = split(bookmark)
        async with node.calls.one():
            base, order = await node.store.find_base(user, device, name)
        offsets = {} if base is None else resolve(base, moves)
    except Mangled:
        return Return()
    if base is None or len(offsets) > 2 * node.settings.limits.streams_per_user + 2:  # more than `hello` may bring
        return Return()
    return Return(offsets, base.epoch, name, tuple(spent(order, name)))


class MarkedConnection(Connection):
    """A connection with bookmarks. Nothing is ever sent on it."""

    TRANSPORT = "sse"
    TELLS_ALIKE = False

    __slots__ = ("_epoch", "_is_full", "_kept_at", "_mark", "_renewing", "bookmark", "returned")

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
        mark: Mark,
    ) -> None:
        super().__init__(node, number, session, principal, socket=socket, codec=codec, wants=wants, sends=sends)
        self.bookmark = Bookmark()
        self.returned = Return()  # as what the client has come back; set it before `hello`
        self._mark = mark
        self._epoch = ""
        self._kept_at = 0.0
        self._is_full = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    # -- entries, each behind its bookmark -----------------------------------------------------------------------------

    def _marked(self, stream: str, at: EntryId) -> bytes:
        self.bookmark.move(stream, at)
        return self._mark(self.bookmark.text())

    def push(self, item: Item) -> None:
        """An entry of a stream that this connection is live on."""
        arrival = item.arrival
        self._node.numbers.pushed += 1
        self.write(self._marked(arrival.stream, arrival.entry.id) + item.ready(self.encode_entry))
        self._look()

    def deliver(self, stream: str, laid: tuple[Entry | Gap, ...], items: dict[EntryId, Item]) -> None:
        """Writes what a page brought, in order."""
        super().deliver(stream, laid, items)
        self._look()

    def spell(self, stream: str, laid: tuple[Entry | Gap, ...], items: dict[EntryId, Item]) -> bytes:
        """What `deliver` writes."""
        parts: list[bytes] = []
        for part in laid:
            if isinstance(part, Gap):
                parts += self._marked(stream, part.to), self.codec.gap(stream, part)
            else:
                parts += self._marked(stream, part.id), self.item_of(stream, part, items).ready(self.encode_entry)
        return b"".join(parts)

    def has_room(self) -> bool:
        """Whether pages have somewhere to go."""
        return super().has_room() and self.bookmark.size < FULL

    def follow(self, cursor: Cursor[Connection], offset: EntryId) -> None:
        """The connection follows a stream from now on; the next bookmark says so."""
        super().follow(cursor, offset)
        if cursor.stream not in self.bookmark.at:
            self.bookmark.move(cursor.stream, cursor.passed)
            self._look()

    # -- bases ---------------------------------------------------------------------------------------------------------

    async def prepare(self, starts: Mapping[str, EntryId]) -> None:
        """Keeps the first base: where every stream starts. Raises what the store raises."""
        self._epoch = self._node.store.epoch
        self.bookmark.at = dict(starts)
        await self._keep_base(origin=self.returned.base, forget=self.returned.spent)

    def closed(self, code: int = CLOSE_LOST, reason: str = "") -> None:
        """See `Connection`."""
        super().closed(code, reason)
        if self._renewing is not None:
            self._renewing.cancel()

    def keep_base_alive(self) -> None:
        """Call it now and then: a base is kept anew before it expires."""
        if self.bookmark.base.name and self._age_s() > self._keep_s() / RENEWALS:
            self._renew()

    def _keep_s(self) -> float:
        return self._node.settings.events_keep_s

    def _age_s(self) -> float:
        return time.monotonic() - self._kept_at

    def _is_wanted(self) -> bool:
        """Whether another base is worth its price. A stream that the present one does not have is spelt by its name."""
        return self.bookmark.size >= LONG or self.bookmark.has_unlisted

    def _look(self) -> None:
        """Something has moved: perhaps it is time for another base, or nothing more may move before that."""
        if self.bookmark.size >= FULL:
            self._is_full.set()
            self._node.stalled(self)
        if self._is_wanted():
            self._renew()

    def _renew(self) -> None:
        if self._renewing is None and not self.is_closed:
            self._renewing = self._node.spawn(self._keep_another(), self)

    async def _keep_another(self) -> None:
        try:
            is_kept = False
            while not is_kept:
                await self._pause()
                try:
                    await self._keep_base(origin=self.bookmark.base.name)
                    is_kept = True
                except WaypostError as problem:
                    self._node.out_of_reach(problem)
                    await asyncio.sleep(FAILED_PAUSE_S)
                    await self._node.may_read()
        finally:
            self._renewing = None
        self._go_on()
        if self._is_wanted():
            self._renew()

    async def _pause(self) -> None:
        """Returns when it is time for another base."""
        try:
            async with asyncio.timeout(max(0.0, PAUSE_S - self._age_s())):
                await self._is_full.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, FULL_PAUSE_S - self._age_s()))

    async def _keep_base(self, *, origin: str, forget: tuple[str, ...] = ()) -> None:
        ended_max = self._node.settings.limits.streams_per_user
        base = new_base(self._epoch, self.bookmark.standing(self.cursors or self.bookmark.at, ended_max))
        self._kept_at = time.monotonic()
        await self._node.store.keep_base(
            self.user, self.session.device, base, origin=origin, forget=forget, keep_s=self._keep_s()
        )
        self.bookmark.rest_on(base)
        if self.bookmark.size < FULL:
            self._is_full.clear()
