"""Sockets that say nothing, or too slowly, keep nobody out: bounded in number and in time, with TLS and without."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.certificates import CERTIFICATES
from tests.integration.doors.raw import UPGRADE, Raw
from tests.integration.http.web import fetch
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

FEW: dict[str, object] = {
    "limits_silent": 20,
    "head_timeout_s": 1.5,
    "hello_timeout_s": 1,
    "idle_close_s": 1,
    "limits_strangers": 50,
}
TLS: dict[str, object] = {"ssl_certfile": CERTIFICATES.server, "ssl_keyfile": CERTIFICATES.server_key}
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(params=["plain", "tls"])
def few(request: pytest.FixtureRequest, start_node: StartNode) -> NodeProcess:
    return start_node(**FEW, **(TLS if request.param == "tls" else {}))


@pytest.fixture(autouse=True)
async def phones() -> AsyncIterator[None]:
    yield
    await Phone.hang_up_all()


async def silent(node: NodeProcess, count: int) -> list[Raw]:
    """Sockets that are open, and that is all: over TLS they do not even begin the handshake."""
    return [Raw(*await asyncio.open_connection("127.0.0.1", node.port)) for _ in range(count)]


async def test_hundreds_of_them_keep_nobody_out(few: NodeProcess, alice: str) -> None:
    """The oldest goes for each that comes. Who talks is gone from among them long before it would be their turn."""
    phone = await Phone.dial(few.url, alice, ssl=few.trust)
    await phone.say(type="hello")
    await phone.wait("live")
    sockets: list[Raw] = []
    longest = 0.0
    for nth in range(15):
        sockets += await silent(few, 20)
        begun = time.monotonic()
        assert (await fetch(few, "/livez")).status == 200
        assert (await phone.send(f"user:{alice}", nth))["type"] == "sent"
        longest = max(longest, time.monotonic() - begun)
    assert longest < 1, "honest clients waited for silent ones"
    await asyncio.sleep(0.8)  # half of the time that each has, and some: none of them is young any more
    sockets += await silent(few, 1)
    assert (await fetch(few, "/livez")).status == 200
    await asyncio.sleep(0.05)  # for what was cut to be seen here
    gone = [one.reader.at_eof() or one.reader.exception() is not None for one in sockets]
    assert sum(gone) >= len(sockets) - 25  # what is left is the limit
    newcomer = await Phone.dial(few.url, alice, ssl=few.trust)
    await newcomer.say(type="hello", device="newcomer")
    await newcomer.wait("live")
    for one in sockets:
        await one.close()


async def test_a_head_has_a_time(few: NodeProcess) -> None:
    """A byte now and then does not help, nor does a request before."""
    nothing, slow, second = [await Raw.open(few) for _ in range(3)]
    await second.say(GET)
    assert (await second.answer()).status == 200
    begun = time.monotonic()

    async def drip(raw: Raw) -> None:
        for byte in GET:
            await raw.say(bytes((byte,)))
            await asyncio.sleep(0.2)

    dripping = [asyncio.create_task(drip(raw)) for raw in (slow, second)]
    assert await asyncio.gather(*(raw.ends(5) for raw in (nothing, slow, second))) == [b"", b"", b""]
    assert 1 < time.monotonic() - begun < 4
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    for raw in (nothing, slow, second):
        await raw.close()


async def test_an_upgrade_without_a_hello_has_a_time(start_node: StartNode) -> None:
    node = start_node(dev=0, jwt_secrets="s" * 32, **FEW)
    raw = await Raw.open(node)
    await raw.say("\r\n".join(("GET /v1/connect HTTP/1.1", *UPGRADE, "", "")).encode())
    assert (await raw.answer()).status == 101
    async with asyncio.timeout(5):
        assert b'"type":"error"' in await raw.reader.readuntil(b"hello_timeout")
    await raw.close()


async def test_who_does_not_take_its_answers_ends_too(few: NodeProcess, alice: str) -> None:
    """Answers to a client that asks and reads nothing would lie in memory for ever."""
    phone = await Phone.dial(few.url, alice, ssl=few.trust)
    await phone.say(type="hello")
    await phone.wait("live")
    await phone.send_all(f"user:{alice}", ["x" * 60_000] * 5)
    raw = await Raw.open(few)
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    path = f"/v1/streams/user:{alice}/messages?user={alice}"
    await raw.say(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 60)
    async with asyncio.timeout(10):
        while not raw.writer.transport.is_closing():  # which is only seen by writing on
            await raw.say(b"G")
            await asyncio.sleep(0.05)
    assert phone.closed is None
    await raw.close()
