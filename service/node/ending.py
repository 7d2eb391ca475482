"""The end of a node, in order: it says so, tells its clients, and leaves the store as if it had never been there.

Clients are told a few at a time. Each goes to another node at once, has its session opened there and catches up; twenty
thousand of them in one moment would be a storm. Who has not been told yet is served as ever.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from service.config import Settings

if TYPE_CHECKING:
    from service.node.node import Node

# What the other nodes take without anybody noticing. As many as this are told within a second, unless there are so many
# that half of the time for draining would not do.
GOODBYES_PER_S = 2000
ROUND_S = 0.05


class Ending:
    """How far the end of a node has come."""

    def __init__(self, node: "Node", settings: Settings) -> None:
        self._node = node
        self._goodbyes_s = settings.drain_s / 2
        self.is_announced = False  # balancers are to send nobody any more; who comes all the same is served
        self.has_begun = False  # nobody is let in
        self.has_left = False
        self._begun = 0.0  # monotonic

    def announce(self) -> None:
        """The node is not ready from now on."""
        if not self.is_announced:
            self.is_announced, self._begun = True, time.monotonic()

    @property
    def took_s(self) -> float:
        """How long it has taken so far, 0 while the node is not ending."""
        return time.monotonic() - self._begun if self.is_announced else 0.0

    async def say_goodbye(self) -> int:
        """Tells every client to go on elsewhere, after the answers to all that it has sent. Returns how many."""
        self.announce()
        self.has_begun = True
        everybody = list(self._node.connections.values())
        rounds = max(1, round(min(self._goodbyes_s, len(everybody) / GOODBYES_PER_S) / ROUND_S))
        size = -(-len(everybody) // rounds)
        begun = time.monotonic()
        for nth in range(rounds):
            await asyncio.sleep(max(0.0, begun + nth * ROUND_S - time.monotonic()))
            some = everybody[nth * size : (nth + 1) * size]
            for connection in some:
                connection.take_no_more()
            await self._node.sends.finish()
            for connection in some:
                connection.end("draining")
        return len(everybody)

    async def leave(self) -> None:
        """Stores what clients have acknowledged, and takes the node off all that the store knows of it. What fails is
        forgotten by the store itself, within `mailbox_ttl_s`.
        """
        await self._node.commits.store()
        await self._node.presence.leave()
        await self._node.reader.leave()
        self.has_left = True
