"""The way to the store for a worker: waits until the store is there, whole, and open.

After a restart of the server the store is fenced until its nodes have told it which ids they know (`reconcile`). A
worker knows none, and what it does is not urgent: it waits for the nodes. When none has opened the store for ten
seconds, five times what nodes give each other, no node is alive that could, and limits by age have to be kept all
the same: then the worker reconciles without any ids, which opens the store two seconds later. A node that comes after
that is in the position of any node that comes late.
"""

import asyncio
import time

from service.errors import WaypostError
from service.log import Log
from service.store import Store

log = Log("worker")

RETRY_S = 0.2
RETRY_S_MAX = 2.0
PATIENCE_S = 10.0  # how long nodes have to open the store


class Door:
    """Shared by the jobs of a worker. `worker` is a name that no node has."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._worker = worker
        self._turn = asyncio.Lock()
        self._closed_at: float | None = None
        self._server = ""

    async def wait(self) -> None:
        """Returns once the store may be used. Says once why not."""
        pause = RETRY_S
        said = ""
        async with self._turn:
            while (reason := await self._look()) is not None:
                if not said:
                    log.warning("store_away", worker=self._worker, detail=reason)
                    said = reason
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_S_MAX)
            if said:
                log.info("store_open", worker=self._worker, run=self._store.run, epoch=self._store.epoch)

    async def _look(self) -> str | None:
        """None when the store may be used, else why not."""
        store = self._store
        try:
            await store.check_server()
            state = await store.fence_state()
            if state.server_run != self._server:
                await store.reconnect()
                self._server, self._closed_at = state.server_run, None
            if state.is_open:
                self._closed_at = None
                return None
            now = time.monotonic()
            self._closed_at = now if self._closed_at is None else self._closed_at
            if now - self._closed_at >= PATIENCE_S:
                live = sorted({self._worker, *await store.nodes()})
                if await store.reconcile(self._worker, live, {}):
                    return None
        except WaypostError as problem:
            return problem.detail
        return "the server is another one, and no node has told it yet what it knows"
