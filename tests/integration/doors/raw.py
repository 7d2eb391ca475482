"""Sockets on which a test says what it likes, byte for byte."""

import asyncio
import json
from typing import Any, NamedTuple, Self

from tests.service import NodeProcess


class Said(NamedTuple):
    """What came back until the end of the socket, or of the answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Raw:
    """One socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, node: NodeProcess) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", node.port, ssl=node.trust))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError:
            pass  # what it has said before may still be read

    async def answer(self, seconds: float = 10) -> Said:
        """The next answer of HTTP."""
        async with asyncio.timeout(seconds):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Said(int(head[0].split()[1]), headers, body)

    async def ends(self, seconds: float = 10) -> bytes:
        """What comes until the other side has ended it."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


async def ask(node: NodeProcess, *lines: str, body: bytes = b"") -> Said:
    """One request of these lines (without the last, empty one), on a socket of its own."""
    raw = await Raw.open(node)
    try:
        await raw.say("\r\n".join((*lines, "", "")).encode("latin-1") + body)
        return await raw.answer()
    finally:
        await raw.close()


UPGRADE = (
    "Host: 127.0.0.1",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
