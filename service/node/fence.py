"""The fence: is this the store whose history we know? If not, tell it what we know before anybody writes.

Every function refuses to work on a server that its epoch key does not name (a restart, a promoted replica, another
server). The node then `reconcile`s: it names the ids it has dispatched and answered, and the store raises heads that
are lower and notes the stretch as lost, so that no number is given out twice. Whoever finds the store out of reach
trips the fence; it opens when the store answers and is whole. Nothing here loads functions or repairs a store that was
reset.
"""

import asyncio
from typing import TYPE_CHECKING

from service.errors import Reset, WaypostError
from service.store import Store, StoreRefused

if TYPE_CHECKING:
    from service.node.node import Node

RETRY_S = 0.1
RETRY_S_MAX = 1.0


class Fence:
    """Whether the store may be used, as far as this node knows."""

    def __init__(self, node: "Node", store: Store) -> None:
        self._node = node
        self._store = store
        self._open = asyncio.Event()
        self._tripped = asyncio.Event()
        self._tripped.set()
        self._told = ""  # the run of the server that has been told the ids this node knows
        self._epoch = ""  # of the history that this node's positions belong to
        self._is_late = False  # the node worked on another server, and this one has not been told yet what it knows
        self.server_run = ""  # of the server that was looked at last: no part of the node is to stay with another
        self.reason = "the store has not been reached yet"

    @property
    def is_open(self) -> bool:
        """Whether the store was found whole, and nothing was heard to the contrary since."""
        return self._open.is_set()

    async def wait_until_open(self) -> None:
        """Returns once the store is whole."""
        await self._open.wait()

    def trip(self, why: str, *, was_rolled_back: bool = False) -> None:
        """The store may not be what it was: look, and reconcile if need be.

        `was_rolled_back`: a head was seen below its position, so the ids are told although the server is the same.
        """
        if self._open.is_set():
            self._node.numbers.store_doubts += 1
            self._node.log.warning("store_doubted", detail=why)
        self.reason = why
        if was_rolled_back:
            self._told = ""
        self._open.clear()
        self._tripped.set()

    async def run(self) -> None:
        """Watches for as long as the node lives."""
        while True:
            await self._tripped.wait()
            self._tripped.clear()
            pause = RETRY_S
            while not await self._try_to_open():
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_S_MAX)
            if not self._tripped.is_set():
                self._open.set()
                self._node.log.info("store_open", run=self._store.run, epoch=self._store.epoch)

    async def _try_to_open(self) -> bool:
        node, store = self._node, self._store
        try:
            await store.check_server()
            state = await store.fence_state()
            if self._epoch and state.epoch != self._epoch:
                node.history_changed()
            self._epoch = state.epoch
            if state.server_run != self.server_run:
                await store.reconnect()
                self._is_late = bool(self.server_run)
                self.server_run = state.server_run
            # One that others have opened already may lack what only this node knows, so it is told all the same.
            if state.is_open and self._told == state.server_run:
                return True
            if not state.is_open:
                node.log.warning("store_differs", detail=self.reason, run=state.server_run, epoch=state.epoch)
            self._told = state.server_run  # unless a rollback is seen meanwhile, or this fails
            known = node.known_ids()
            if state.is_open and not known:  # it has just started, and has nothing to tell
                return True
            live = sorted({node.name, *await store.nodes()})
            if await store.reconcile(node.name, live, known, is_late=self._is_late):
                self._is_late = False
                return True
        except Reset as problem:
            self.reason = f"the store was reset: {problem.detail}"
        except StoreRefused as problem:
            self.reason = str(problem)
        except WaypostError as problem:
            self.reason = problem.detail
        self._told = ""
        return False
