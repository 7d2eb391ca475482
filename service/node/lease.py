"""That this node lives: its line in the list of nodes, renewed with every beat, gone when it leaves.

Now and then it also looks whether the server is still one to be used: an operator may change `appendfsync` or
`maxmemory-policy` under way, and an answer must say no more than is true.
"""

import asyncio
from typing import TYPE_CHECKING

from service.config import Settings
from service.errors import WaypostError
from service.node.vitals import Vitals
from service.store import Store

if TYPE_CHECKING:
    from service.node.node import Node

BEATS_PER_LOOK = 5  # at the server's configuration: a few cheap commands, so every few seconds will do


class Presence:
    """The node's line in `wp:nodes`, and how many others there are."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._period_s = settings.beat_s
        self._has_left = False
        self._beats = 0
        self._vitals = Vitals(node)
        self._turn = asyncio.Lock()  # a renewal that is under way must not come after the leaving

    async def run(self) -> None:
        """Renews the line for as long as the node lives."""
        while not self._has_left:
            await self._node.fence.wait_until_open()
            async with self._turn:
                await self._renew()
            await asyncio.sleep(self._period_s)

    async def _renew(self) -> None:
        if self._has_left:
            return
        try:
            live = await self._store.heartbeat(self._node.name, self._vitals.facts())
            self._node.nodes_alive = max(1, len(live))
            self._beats += 1
            if self._beats % BEATS_PER_LOOK == 0:
                await self._store.check_server()
        except WaypostError as problem:
            self._node.out_of_reach(problem)

    async def leave(self) -> None:
        """Takes the line away, for good."""
        self._has_left = True
        async with self._turn:
            try:
                await self._store.forget_node(self._node.name)
            except WaypostError:
                pass  # it runs out by itself
