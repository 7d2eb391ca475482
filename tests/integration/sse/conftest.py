"""The fixtures of the wire's tests; `net` opens streams of events in place of WebSockets."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from migrations import __main__ as migrations
from tests.integration.sse.kit import EventNet
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import (
    StartNode,
    alice,
    bob,
    database,
    fresh,
    group,
    node,
    shared_node,
    start_node,
    started,
)
from tests.service import NodeProcess, Phone
from tests.tokens import SIGNED

__all__ = ["alice", "bob", "database", "fresh", "group", "node", "shared_node", "start_node", "started"]


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    """No connection outlives its test."""
    Phone.every.clear()
    yield
    await Phone.hang_up_all()


@pytest.fixture
async def net(node: NodeProcess, database: Server) -> AsyncIterator[EventNet]:
    """Streams of the session's node, all ended with the test."""
    net = EventNet(node, database)
    yield net
    await net.hang_up()


@pytest.fixture
def bare_database() -> Iterator[Server]:
    """A database of the test's own, to be killed at will."""
    with Server("valkey") as server:
        asyncio.run(migrations.up(server.url))
        yield server


@pytest.fixture
def signed(start_node: StartNode) -> NodeProcess:
    """A node without dev mode, which takes the tokens of `mint`."""
    return start_node(**SIGNED)
