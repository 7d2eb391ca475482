"""The proxy does what tests tell it: it would be a poor witness else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Cut
from redis.exceptions import TimeoutError as NoAnswer

from tests.e2e.kit import true
from tests.integration.store.kit import Admin, Server
from tests.proxy import Proxy

pytestmark = pytest.mark.anyio

MakeClient = Callable[..., Admin]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two servers that are no replicas of each other."""
    pair = Server("valkey"), Server("valkey")
    try:
        for server in pair:
            server.start()
        yield pair
    finally:
        for server in pair:
            server.remove()


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    for one in servers:
        one.admin.flushall()
    return servers[0]


@pytest.fixture(params=["unix", "tcp"])
def proxy(request: pytest.FixtureRequest, server: Server) -> Iterator[Proxy]:
    with Proxy(server.url, over_tcp=request.param == "tcp") as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[MakeClient]:
    """Clients through the proxy, each with a connection of its own, that repeat nothing."""
    clients: list[Admin] = []

    def make(*, patience_s: float = 5) -> Admin:
        retry = Retry(NoBackoff(), 0)
        clients.append(Redis.from_url(proxy.url, protocol=2, retry=retry, socket_timeout=patience_s))
        return clients[-1]

    yield make
    for one in clients:
        await one.aclose()


async def test_it_carries_everything_both_ways(client: MakeClient) -> None:
    one, other = client(), client()
    large = b"x" * 3_000_000
    await one.set("large", large)
    assert await other.get("large") == large
    pipeline = one.pipeline(transaction=False)
    for number in range(1000):
        pipeline.rpush("list", number)
    assert await pipeline.execute() == list(range(1, 1001))
    assert await other.lrange("list", 0, -1) == [b"%d" % number for number in range(1000)]


async def test_a_lost_answer_is_that_of_a_call_that_was_carried_out(
    client: MakeClient, proxy: Proxy, server: Server
) -> None:
    one = client()
    lost = proxy.lose_answers("INCR", times=1)
    with pytest.raises(Cut):
        await one.incr("n")
    assert await one.incr("n") == 2
    assert lost.hits == 1
    proxy.lose_answers("INCR", silently=True)
    with pytest.raises(NoAnswer):
        await client(patience_s=0.1).incr("n")
    assert server.admin.get("n") == b"3"


async def test_a_lost_call_is_not_carried_out(client: MakeClient, proxy: Proxy, server: Server) -> None:
    proxy.lose_calls("INCR")
    with pytest.raises(Cut):
        await client().incr("n")
    assert server.admin.get("n") is None


async def test_answers_and_calls_wait_until_they_are_released(client: MakeClient, proxy: Proxy, server: Server) -> None:
    held = proxy.hold_answers("key")
    asked = asyncio.create_task(client().set("key", 1))
    await true(lambda: server.admin.get("key") == b"1", "it is carried out")
    assert await client().get("other") is None  # others are not held up
    assert not asked.done()
    held.release()
    await asked

    held = proxy.hold_calls("key")
    asked = asyncio.create_task(client().set("key", 2))
    await true(lambda: held.hits, "it is held")
    assert server.admin.get("key") == b"1"
    held.release()
    await asked
    assert server.admin.get("key") == b"2"


async def test_two_calls_are_swapped(client: MakeClient, proxy: Proxy, server: Server) -> None:
    held = proxy.hold_calls("first", until="second")
    first = asyncio.create_task(client().rpush("list", "first"))
    await true(lambda: held.hits, "it is held")
    await client().rpush("list", "second")
    await first
    assert server.admin.lrange("list", 0, -1) == [b"second", b"first"]


async def test_a_held_call_is_carried_out_late_though_its_client_has_gone(
    client: MakeClient, proxy: Proxy, server: Server
) -> None:
    held = proxy.hold_calls("late", cut=True)
    with pytest.raises(Cut):
        await client().rpush("list", "late")
    assert server.admin.exists("list") == 0
    held.release()
    await true(lambda: server.admin.lrange("list", 0, -1) == [b"late"], "it is carried out")


async def test_another_server_is_at_the_address_and_some_stay_with_the_old(
    client: MakeClient, proxy: Proxy, servers: tuple[Server, Server]
) -> None:
    reader, writer = client(), client()
    await reader.get("a")
    await writer.set("a", 1)
    proxy.point_to(servers[1].url, keep="GET")
    with pytest.raises(Cut):
        await writer.set("a", 2)
    await writer.set("a", 3)
    assert await reader.get("a") == b"1"
    assert servers[1].admin.get("a") == b"3"
    assert proxy.cut("GET") == 1
    with pytest.raises(Cut):
        await reader.get("a")
    assert await reader.get("a") == b"3"


async def test_a_severed_store_is_out_of_reach_until_it_is_mended(client: MakeClient, proxy: Proxy) -> None:
    one = client()
    await one.set("a", 1)
    proxy.sever()
    for _ in range(2):
        with pytest.raises(Cut):
            await one.get("a")
    proxy.mend()
    assert await one.get("a") == b"1"


@pytest.mark.parametrize("direction", ["calls", "answers"])
async def test_what_goes_into_a_black_hole_never_comes(
    client: MakeClient, proxy: Proxy, server: Server, direction: str
) -> None:
    one = client()
    await one.set("n", 0)
    proxy.black_hole("calls" if direction == "calls" else "answers")
    asked = asyncio.create_task(one.incr("n"))
    if direction == "answers":
        await true(lambda: server.admin.get("n") == b"1", "it is carried out")
    await true(lambda: any(line.is_torn for line in list(proxy._lines)), "it has vanished")
    assert not asked.done()
    proxy.black_hole()
    with pytest.raises(Cut):
        await asked
    assert await one.incr("n") == (1 if direction == "calls" else 2)
