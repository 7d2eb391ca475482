"""What every test of a fault has: a proxy in front of the database, through which its nodes reach it."""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from tests.integration.store.kit import Server
from tests.proxy import Proxy
from tests.service import NodeProcess


class StartNodes(Protocol):
    """Starts nodes that reach the store through the test's proxy, or through another one."""

    def __call__(self, *names: str, through: Proxy | None = None, **settings: object) -> list[NodeProcess]: ...


@pytest.fixture
def proxy(database: Server) -> Iterator[Proxy]:
    """The address of the store, as far as nodes know."""
    with Proxy(database.url) as proxy:
        yield proxy


@pytest.fixture
async def start_nodes(proxy: Proxy) -> AsyncIterator[StartNodes]:
    """Nodes, all started at once, ended with the test."""
    nodes: list[NodeProcess] = []

    def start(*names: str, through: Proxy | None = None, **settings: object) -> list[NodeProcess]:
        begun = [NodeProcess((through or proxy).url, name, **settings) for name in names]
        nodes.extend(begun)
        NodeProcess.start_all(begun)
        return begun

    yield start
    for node in nodes:
        node.remove()
