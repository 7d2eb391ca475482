"""A server whose clock is set back: ids rise all the same, and no key is forgotten.

On Valkey alone: Debian's Redis does not start under libfaketime (its allocator asks for the time before that is ready).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from migrations import __main__ as migrations
from service.store import Store, StoreOptions
from tests.clock import Clock, library
from tests.integration.store.kit import Server, direct, head_of, send, stored, to_all

pytestmark = pytest.mark.anyio

BACK_S = -3 * 3600  # more than the windows in which a key is looked for


@pytest.fixture
def clock() -> Iterator[Clock]:
    if library() is None:
        pytest.skip("libfaketime is not on this machine")
    clock = Clock()
    yield clock
    clock.remove()


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Store]:
    store = await Store.connect(server.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


@pytest.fixture
def valkey() -> Iterator[Server]:
    server = Server("valkey")
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def test_after_the_clock_was_set_back_ids_rise_and_a_repeated_key_is_known(valkey: Server, clock: Clock) -> None:
    await migrations.up(valkey.url)
    keyed = [to_all("alice", key="k"), direct("alice", "bob", key="k")]
    async with connected(valkey) as store:
        first = await store.publish(keyed, "")
        [before] = await send(store, to_all("alice"))

    valkey.kill()
    valkey.environ |= clock.environ
    clock.turn(BACK_S)
    valkey.start()
    async with connected(valkey) as store:
        assert await store.reconcile("n1", ["n1"], {})
        again = await store.publish(keyed, "")
        [after] = await send(store, to_all("alice"))

    seconds, _ = valkey.admin.time()
    assert seconds < before.ms / 1000 - 3600, "the clock of the server was not set back"
    assert [outcome.is_duplicate for outcome in again] == [True, True]
    assert [stored(outcome) for outcome in again] == [stored(outcome) for outcome in first]
    assert (after.n, after.ms >= before.ms) == (before.n + 1, True)
    assert head_of(valkey.admin, "all") == after
