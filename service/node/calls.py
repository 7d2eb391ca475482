"""Calls to the store that single requests make: few are on their way at once, and what they raise is for clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.config import Limits
from service.errors import Unavailable, Uncertain, WaypostError

if TYPE_CHECKING:
    from service.node.node import Node

# Their detail may name an address, or a key of the store.
NOT_FOR_CLIENTS = frozenset({"unavailable", "storage_full", "internal"})


class Calls:
    """The calls of a node that no connection makes."""

    def __init__(self, node: "Node", limits: Limits) -> None:
        self._node = node
        self._in_flight = asyncio.Semaphore(limits.changes_in_flight)
        self._waiting_max = limits.node_unanswered_sends  # they are small, but they wait like sends
        self._waiting = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One call, which must be harmless when it is made again; within it the store is called once.

        Raises `unavailable` when too much is waiting or the store is away, and what the call raises. After `uncertain`
        the call will not be carried out any more, so that nothing comes after what the client does next.
        """
        self._check_is_open()
        if self._waiting >= self._waiting_max:
            raise Unavailable("too much is waiting for the store")
        self._waiting += 1
        try:
            async with self._in_flight:
                self._check_is_open()
                yield
        except Uncertain as problem:
            self._node.out_of_reach(problem)
            await asyncio.sleep(problem.open_for_s)
            raise WaypostError("uncertain", "no answer from the store; may be done: repeat it", retry=True) from problem
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            if problem.code in NOT_FOR_CLIENTS:
                raise problem.for_client() from problem
            raise
        finally:
            self._waiting -= 1

    def _check_is_open(self) -> None:
        if not self._node.fence.is_open:
            raise Unavailable
