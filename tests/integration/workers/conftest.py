"""A database of each kind for each test, and shifts of workers on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import msgspec
import pytest

from migrations import __main__ as migrations
from service.config import Settings
from service.store import Store, StoreOptions
from tests.integration.store.kit import Server, binary, leaks
from workers.door import Door
from workers.runs import Shift

MakeShift = Callable[..., Awaitable[Shift]]


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A migrated server for one test alone, searched for leaked keys afterwards."""
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    with Server(request.param) as server:
        asyncio.run(migrations.up(server.url))
        yield server
        assert leaks(server.admin) == []


@pytest.fixture
async def make_shift(server: Server) -> AsyncIterator[MakeShift]:
    """What the runs of one worker share, each with a store of its own."""
    stores: list[Store] = []

    async def make(worker: str = "worker:one", **settings: object) -> Shift:
        store = await Store.connect(server.url, options=StoreOptions())
        stores.append(store)
        door = Door(store, worker)
        await door.wait()
        given = msgspec.structs.replace(Settings(redis_url=server.url), **settings)
        return Shift(store, given, worker, door, asyncio.Event())

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
async def shift(make_shift: MakeShift) -> Shift:
    return await make_shift()
