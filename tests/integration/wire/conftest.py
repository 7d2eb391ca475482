"""One database and one node a session; names that nobody has used before, so that tests do not disturb each other."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import pytest

from migrations import __main__ as migrations
from tests.integration.store.kit import Server
from tests.integration.wire.kit import Net
from tests.service import NodeProcess

_numbers = itertools.count(1)


class StartNode(Protocol):
    """Another node on the session's database, with settings of its own; tests with the same settings share it."""

    def __call__(self, **settings: object) -> NodeProcess: ...


@pytest.fixture(scope="session")
def database() -> Iterator[Server]:
    with Server("valkey") as server:
        asyncio.run(migrations.up(server.url))
        yield server


@pytest.fixture(scope="session")
def shared_node(database: Server) -> Iterator[NodeProcess]:
    node = NodeProcess(database.url, "wire")
    try:
        yield node.start()
    finally:
        node.remove()


@pytest.fixture
def node(shared_node: NodeProcess) -> Iterator[NodeProcess]:
    """The session's node. No test may make it log a traceback."""
    said = len(shared_node.said())
    yield shared_node
    assert_calm(shared_node.said()[said:])


@pytest.fixture
async def net(node: NodeProcess, database: Server) -> AsyncIterator[Net]:
    """Connections to the session's node, all ended with the test."""
    net = Net(node, database)
    yield net
    await net.hang_up()


@pytest.fixture(scope="session")
def started(database: Server) -> Iterator[dict[str, NodeProcess]]:
    """Nodes with settings of their own, by their settings."""
    nodes: dict[str, NodeProcess] = {}
    yield nodes
    for node in nodes.values():
        node.remove()


@pytest.fixture
def start_node(database: Server, started: dict[str, NodeProcess]) -> Iterator[StartNode]:
    said: dict[str, int] = {}

    def start(**settings: object) -> NodeProcess:
        key = repr(sorted(settings.items()))
        if key not in started:
            started[key] = NodeProcess(database.url, f"wire{next(_numbers)}", **settings)
            started[key].start()
        said[key] = len(started[key].said())
        return started[key]

    yield start
    for key, length in said.items():
        assert_calm(started[key].said()[length:])


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name that begins with the given word, and that nobody has used before."""
    return lambda word: f"{word}{next(_numbers)}"


@pytest.fixture
def alice(fresh: Callable[[str], str]) -> str:
    return fresh("alice")


@pytest.fixture
def bob(fresh: Callable[[str], str]) -> str:
    return fresh("bob")


@pytest.fixture
def group(fresh: Callable[[str], str]) -> str:
    return fresh("g")


def assert_calm(said: str) -> None:
    """A node that met something it did not expect says so at level error, or with a traceback."""
    lines = said.splitlines()
    loud = [line for line in lines if "Traceback" in line or line.split(" ")[1:2] in (["error"], ["critical"])]
    assert not loud, said
