"""One server of each kind a session; an empty, migrated store for each test; no key leaked by any."""

from collections.abc import AsyncIterator, Iterator

import pytest

from migrations import __main__ as migrations
from service.store import Store, StoreOptions
from tests.integration.store.kit import Admin, Server, binary, leaks


@pytest.fixture(scope="session", params=["valkey", "redis"])
def product(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if binary(name) is None:
        pytest.skip("redis-server is not on the PATH")
    return name


@pytest.fixture(scope="session")
def shared_server(product: str) -> Iterator[Server]:
    with Server(product) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The session's server, emptied (its functions stay), and searched for leaked keys afterwards."""
    shared_server.admin.config_set("maxmemory", 0)
    shared_server.admin.flushall()
    yield shared_server
    shared_server.admin.config_set("maxmemory", 0)
    assert leaks(shared_server.admin) == []


@pytest.fixture
def own_server(product: str) -> Iterator[Server]:
    """A server for one test alone, to be killed or changed."""
    with Server(product) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Admin:
    """The operator's view of the server, past the store."""
    return server.admin


@pytest.fixture
def options() -> StoreOptions:
    """The options of `store`; a test module may override it."""
    return StoreOptions()


@pytest.fixture
async def store(server: Server, options: StoreOptions) -> AsyncIterator[Store]:
    await migrations.up(server.url)
    store = await Store.connect(server.url, options=options)
    await store.check_server()
    yield store
    await store.close()
