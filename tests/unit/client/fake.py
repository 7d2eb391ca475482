"""A server on a free port that does what a test tells it, well or badly."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from service.core import frames
from service.core.names import EntryId
from tests.unit.client.model import message, packed, said, welcome

START = {"user:ann": "1-0", "all": "1-0"}


class Conversation:
    """One connection, from the server's side."""

    def __init__(self, connection: ServerConnection, fake: "Fake") -> None:
        self.connection = connection
        self.fake = fake
        self._heard: list[dict[str, Any]] = []

    async def say(self, *sent: frames.ServerFrame) -> None:
        """Says frames, in one message."""
        await self.connection.send(packed(*sent), text=True)

    async def say_messages(self, count: int, *, after: int = 0, stream: str = "all") -> None:
        """Says `count` messages of a stream that has had `after` of them, each in a message of its own."""
        for n in range(after + 1, after + 1 + count):
            await self.say(message(stream, EntryId(2, n)))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next frame of this type; others are passed over."""
        while True:
            while not self._heard:
                self._heard = said([await self.connection.recv(decode=False)])
                self.fake.heard += self._heard
            frame = self._heard.pop(0)
            if frame["type"] == kind:
                return frame

    async def greet(self, offsets: dict[str, str] | None = None, *, ping: float = 25.0) -> dict[str, Any]:
        """Hears `hello` and says `welcome`: each stream goes on from what was brought. Returns the `hello`."""
        hello = await self.hear("hello")
        await self.say(welcome({**(offsets or START), **hello["offsets"]}, ping=ping))
        return hello

    async def answer_sends(self) -> None:
        """Stores whatever is sent, in `fake.stored`, and confirms what is acknowledged, until the client goes."""
        while True:
            while not self._heard:
                self._heard = said([await self.connection.recv(decode=False)])
                self.fake.heard += self._heard
            frame = self._heard.pop(0)
            if frame["type"] == "send":
                await self.store(frame)
            elif frame["type"] == "ack" and frame["ref"] is not None:
                await self.say(frames.Acked(frame["ref"]))
            elif frame["type"] == "ping":
                await self.say(frames.Pong(frame["ref"]))

    async def store(self, frame: dict[str, Any], *, answers: bool = True) -> None:
        """Stores a send, unless its key is known, and answers."""
        stored, key = self.fake.stored, frame["key"]
        is_duplicate = key in stored
        stored.setdefault(key, frame["body"])
        entry = f"9-{list(stored).index(key) + 1}"
        if answers:
            await self.say(frames.Sent(frame["to"], entry, key, is_duplicate, "fsynced", frame["ref"]))

    def drop(self) -> None:
        """Cuts the connection without a word."""
        self.connection.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


async def serve_well(conversation: Conversation) -> None:
    """A server that does what it should."""
    await conversation.greet()
    await conversation.say(frames.Live())
    await conversation.answer_sends()


class Fake:
    """Runs the scripts, one for each connection that comes; the last one for all further ones too."""

    def __init__(self, *scripts: Script, statuses: list[int] | None = None, port: int = 0) -> None:
        self.scripts = scripts
        self.statuses = statuses or []  # what the first upgrades are refused with
        self.heard: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.stored: dict[str, Any] = {}
        self.connections = 0
        self.port = port
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle, "127.0.0.1", self.port, compression=None, ping_interval=None, process_request=self._look
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def acknowledged(self, stream: str) -> str | None:
        """The last offset that was acknowledged."""
        acks = [frame["offsets"][stream] for frame in self.heard if stream in frame.get("offsets", {})]
        return acks[-1] if acks else None

    def _look(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return connection.respond(HTTPStatus(self.statuses.pop(0)), "no\n") if self.statuses else None

    async def _handle(self, connection: ServerConnection) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            await script(Conversation(connection, self))
        except ConnectionClosed:
            pass


def body(text: str) -> msgspec.Raw:
    """A text as the body of a message."""
    return msgspec.Raw(msgspec.json.encode(text))


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Returns as soon as the condition holds."""
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)
