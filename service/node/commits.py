"""Acknowledged offsets on their way into the store: collected for a moment, stored in one call, kept until stored.

Storing an offset twice, or late, is harmless: it only ever moves forward. A commit without offsets says that its
device is there: one that is connected for months and has nothing to acknowledge must not be forgotten as idle.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from service.config import Settings
from service.core import commands
from service.core.frames import Ref
from service.core.names import EntryId
from service.errors import WaypostError
from service.node.connection import Connection
from service.store import Commit, Store

if TYPE_CHECKING:
    from service.node.node import Node

OFFSETS_PER_CALL = 100  # a call holds the server for about a millisecond: what is being sent does not wait for longer
# Between two calls, so that what is being sent finds the store free; and all of them together: a second is promised.
PAUSE_S = 0.01
PAUSES_S = 0.2
SEEN_S_MAX = 86_400  # connected devices are seen at least daily: "last seen" means something to people, too


class Commits:
    """Offsets of a node's devices that are not stored yet."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._interval_s = settings.commit_s
        # Four times before a device would be forgotten: one failure, or a node that starts anew, is no harm.
        self._seen_s = min(settings.retention.device_idle_max / 4, SEEN_S_MAX)
        self._seen_at = time.monotonic()
        self._offsets: dict[tuple[str, str], dict[str, EntryId]] = {}
        self._waiting: list[tuple[Connection, Ref]] = []
        self._now = asyncio.Event()
        self._turn = asyncio.Lock()  # at the end nothing may be left that another task is about to store

    def put(self, connection: Connection, command: commands.Commit) -> None:
        """Takes offsets to be stored within the interval, or at once when the client waits for an answer."""
        self._keep((connection.user, connection.session.device), command.offsets)
        if command.wants_answer:
            self._waiting.append((connection, command.ref))
            self._now.set()

    def _keep(self, device: tuple[str, str], moved: Mapping[str, EntryId]) -> None:
        """Several connections of a device acknowledge: what one has counts for all, so the highest stays."""
        offsets = self._offsets.setdefault(device, {})
        for stream, offset in moved.items():
            offsets[stream] = max(offset, offsets.get(stream, offset))

    def forget(self) -> None:
        """Another history: offsets of the one before mean nothing in it."""
        self._offsets.clear()

    def hurry(self) -> None:
        """Stores what there is at once: a device has gone, and may come back on another node."""
        if self._offsets:
            self._now.set()

    async def run(self) -> None:
        """Stores for as long as the node lives."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            if time.monotonic() - self._seen_at >= self._seen_s:
                self._see()
            await self.store(pauses_s=PAUSES_S)

    def _see(self) -> None:
        """Every device that is connected is seen."""
        self._seen_at = time.monotonic()
        for connection in self._node.connections.values():
            if connection.session.device:  # it has said hello
                self._keep((connection.user, connection.session.device), {})

    async def store(self, *, pauses_s: float = 0.0) -> None:
        """Stores everything there is now, with pauses between calls unless somebody waits. What could not be stored is
        kept for the next time.
        """
        async with self._turn:
            offsets, self._offsets = self._offsets, {}
            waiting, self._waiting = self._waiting, []
            calls = list(_in_calls(offsets))
            problem: WaypostError | None = None
            try:
                for number, commits in enumerate(calls):
                    if number and not waiting:
                        await asyncio.sleep(min(PAUSE_S, pauses_s / len(calls)))
                    await self._store.commit(commits)
            except WaypostError as error:
                self._node.out_of_reach(error)
                problem = error
                for device, moved in offsets.items():
                    self._keep(device, moved)
            for connection, ref in waiting:
                if problem is None:
                    connection.session.committed(ref)
                else:
                    connection.session.not_committed(ref, problem.for_client())
                connection.flush()


def _in_calls(offsets: dict[tuple[str, str], dict[str, EntryId]]) -> Iterator[list[Commit]]:
    """The offsets, cut into calls; those of one device may go in several."""
    call: list[Commit] = []
    count = 0
    for (user, device), moved in offsets.items():
        streams = list(moved)
        for at in range(0, max(1, len(streams)), OFFSETS_PER_CALL):
            some = streams[at : at + OFFSETS_PER_CALL]
            cost = max(1, len(some))
            if call and count + cost > OFFSETS_PER_CALL:
                yield call
                call, count = [], 0
            call.append(Commit(user, device, {stream: moved[stream] for stream in some}))
            count += cost
    if call:
        yield call
