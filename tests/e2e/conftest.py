"""Real processes for every test of the promises: a database of each kind, and nodes on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from migrations import __main__ as migrations
from service.store import Store, StoreOptions
from tests.integration.store.kit import Server, binary
from tests.service import NodeProcess, Phone


class StartNode(Protocol):
    """Starts a node on the test's database."""

    def __call__(self, name: str = "a", **settings: object) -> NodeProcess: ...


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    """No connection outlives its test. Those of other folders' tests are not ours to end."""
    Phone.every.clear()
    yield
    await Phone.hang_up_all()


@pytest.fixture(params=["valkey", "redis"])
def database(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A migrated database for one test, to be killed at will."""
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    with Server(request.param) as server:
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
    for node in nodes:
        node.remove()


class StartNodes(Protocol):
    """Starts nodes on the test's database, all at a time: a process takes half a second to come up."""

    def __call__(self, *names: str, **settings: object) -> list[NodeProcess]: ...


@pytest.fixture
async def start_nodes(database: Server) -> AsyncIterator[StartNodes]:
    """Several nodes at once, ended with the test."""
    nodes: list[NodeProcess] = []

    def start(*names: str, **settings: object) -> list[NodeProcess]:
        begun = [NodeProcess(database.url, name, **settings) for name in names]
        nodes.extend(begun)
        NodeProcess.start_all(begun)
        return begun

    yield start
    for node in nodes:
        node.remove()


@pytest.fixture
async def store(database: Server) -> AsyncIterator[Store]:
    """The store as a scheduled job has it, beside the nodes."""
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()
