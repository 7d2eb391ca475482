"""The plain loop: whoever connects gets what lies in the user's streams, read by XRANGE, each entry's body as a frame.
No pages, no limits, no order of asking, no check of anything.

python -m tests.bench.peers.plain_replay PORT REDIS_SOCKET

A hash `bench:<user>` of the same Redis has the keys of the user's streams and the ids above which entries are missed.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import hiredis
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

BACKLOG = 4096  # connections that come at once
MISSED = "bench:"
LIVE = b"live"


class Redis(asyncio.Protocol):
    """A connection to Redis that can do no more than is needed here: commands out, answers in, in the same order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.WriteTransport", transport).write  # uvloop's are of another class

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(answer)

    async def call(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All in one write."""
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in commands]
        self._waiting.extend(answers)
        self._write(b"".join(hiredis.pack_command(command) for command in commands))
        return [await answer for answer in answers]


class Peer(WSListener):
    """One client, which says nothing."""

    def __init__(self, redis: Redis, user: str) -> None:
        self._redis = redis
        self._user = user
        self._replay: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._replay = asyncio.create_task(self._tell(transport))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._replay is not None:
            self._replay.cancel()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        pass

    async def _tell(self, transport: WSTransport) -> None:
        [flat] = await self._redis.call([("HGETALL", f"{MISSED}{self._user}")])
        streams = zip(flat[0::2], flat[1::2], strict=True)
        ranges = await self._redis.call([("XRANGE", key, b"(" + after, "+") for key, after in streams])
        text = WSMsgType.TEXT
        for entries in ranges:
            for _, fields in entries:
                transport.send(text, fields[fields.index(b"b") + 1])
        transport.send(text, LIVE)


async def main(port: int, socket: str) -> None:
    _, redis = await asyncio.get_running_loop().create_unix_connection(Redis, socket)

    def peer(request: WSUpgradeRequest) -> Peer:
        return Peer(redis, parse_qs(urlsplit(request.path.decode()).query)["user"][0])

    server = await ws_create_server(peer, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
