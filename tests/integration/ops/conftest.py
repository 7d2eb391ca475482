"""A database and nodes for each test alone: what they count has to be this test's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from migrations import __main__ as migrations
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone


class StartNode(Protocol):
    """Starts a node on the test's database."""

    def __call__(self, name: str = "a", **settings: object) -> NodeProcess: ...


@pytest.fixture
def database() -> Iterator[Server]:
    with Server("valkey") as server:
        asyncio.run(migrations.up(server.url))
        yield server


@pytest.fixture
async def start_node(database: Server) -> AsyncIterator[StartNode]:
    """Nodes, ended with the test."""
    nodes: list[NodeProcess] = []

    def start(name: str = "a", **settings: object) -> NodeProcess:
        nodes.append(NodeProcess(database.url, name, **settings))
        return nodes[-1].start()

    yield start
    await Phone.hang_up_all()
    for node in nodes:
        node.remove()
