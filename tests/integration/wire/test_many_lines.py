"""A message may hold thousands of lines: what their answers cost a node is bounded, also when nobody takes them."""

import asyncio
import json
import socket
from asyncio import BaseTransport
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.app import make_app
from service.config import Settings
from service.node import Node
from service.store import Store, StoreOptions
from service.transports.ready_frames import ReadyFrames
from tests.integration.store.kit import Server
from tests.integration.wire.kit import CLOSE, TEXT, BareSocket, eventually

pytestmark = pytest.mark.anyio

LINES = 10_000  # of twelve bytes; each is answered with some eighty


class Watched(ReadyFrames):
    """Remembers how much was written at once, and how much has waited to be sent."""

    largest = 0
    waited = 0

    def connection_made(self, transport: BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        super().connection_made(transport)
        write = self.write

        def watched(data: bytes) -> None:
            write(data)
            self.largest = max(self.largest, len(data))
            self.waited = max(self.waited, self.buffered_bytes)

        self.write = watched


@pytest.fixture
def settings() -> Settings:
    return Settings(node="lines", dev=True)


@pytest.fixture
def served() -> list[Watched]:
    """The connections to `url`, as the server has them."""
    return []


@pytest.fixture
async def url(database: Server, settings: Settings, served: list[Watched]) -> AsyncIterator[str]:
    """A node in this process. It is not run: nothing here goes further than its connection."""
    store = await Store.connect(database.url, options=StoreOptions())
    config = uvicorn.Config(
        make_app(Node(store, settings), settings), ws_per_message_deflate=False, lifespan="off", log_config=None
    )
    config.load()

    def protocol() -> Watched:
        served.append(Watched(config, ServerState(), app_state={}))
        return served[-1]

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await store.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[BareSocket]:
    client = await BareSocket.open(url, "/v1/connect?user=alice")
    yield client
    client.cut()


async def test_a_client_that_takes_no_answers_is_read_no_further_in_mid_message(
    client: BareSocket, served: list[Watched], settings: Settings
) -> None:
    client.pause()
    said = [b'{"type":""}'] * LINES
    client.write(TEXT, b"\n".join([*said, b'{"type":"ping","ref":"the last line"}']))
    client.write(TEXT, b'{"type":"ping","ref":"the next message"}')
    [server] = served
    await eventually(lambda: server.read_paused, "its socket is not read")
    client.resume()
    answers = [json.loads(await answer(client)) for _ in range(LINES + 2)]
    assert {one["code"] for one in answers[:LINES]} == {"unknown_type"}
    assert [one["ref"] for one in answers[LINES:]] == ["the last line", "the next message"]
    assert server.largest < 16_384
    assert server.waited < settings.limits.write_buffer_bytes + 16_384


async def test_all_lines_are_taken_of_a_client_that_says_goodbye_right_after(
    client: BareSocket, served: list[Watched]
) -> None:
    client.write(TEXT, b"\n".join([b'{"type":"ping","ref":%d}' % number for number in range(LINES // 3)]))
    client.write(CLOSE, b"\x03\xe8")
    answers = [json.loads(await answer(client)) for _ in range(LINES // 3)]
    assert [one["ref"] for one in answers] == list(range(LINES // 3))
    assert (await client.read())[0] == CLOSE


async def answer(client: BareSocket) -> bytes:
    opcode, payload = await client.read()
    assert opcode == TEXT, (opcode, payload)
    return payload
