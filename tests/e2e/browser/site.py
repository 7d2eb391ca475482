"""A site of the test's own before a node: it serves the bare page, and does to connections what networks do."""

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from tests.service import free_port

Direction = Literal["up", "down"]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_BOOK = b'<!doctype html><meta charset="utf-8"><title>a book</title><link rel="icon" href="data:,">'
_HERE = Path(__file__).parent
_FILES = {
    "/test/page": (_HERE / "page.html", "text/html"),
    "/test/page.js": (_HERE / "page.js", "text/javascript"),
    "/test/book": (None, "text/html"),
    "/client/waypost.js": (Path(__file__).parents[3] / "service" / "web" / "waypost.js", "text/javascript"),
}


class Site:
    """`/test/…` and the client are files of its own. All else goes to the port `target`, whatever it is at the moment.
    What begins with `/v1/` meets with what the network is like; pages and their files always come.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.blocks_sockets = False  # as some company's proxy does: plain HTTP passes
        self.is_severed = False  # no connection is made
        self.bytes_per_s = 0  # how much comes down a connection; 0: as much as there is
        self.next_token: Callable[[], str] = str  # what `/test/token` answers
        self.tokens_given = 0
        self.asked: list[str] = []  # method and path of everything that was to go to the node
        self._holes: frozenset[Direction] = frozenset()
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what the network does -----------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Every connection to a node is reset."""
        for line in list(self._lines):
            line.reset()

    def sever(self) -> None:
        """Cuts, and lets nobody through, until `mend`."""
        self.is_severed = True
        self.cut()

    def swallow(self, *directions: Direction) -> None:
        """What goes in these directions vanishes, ends of connections too, until `mend`. New connections are taken, and
        fare the same.
        """
        self._holes = frozenset(directions)

    def mend(self) -> None:
        """All goes through again. Connections that lost something are reset: nobody could make sense of the rest."""
        self.is_severed, self._holes = False, frozenset()
        for line in [line for line in self._lines if line.is_torn]:
            line.reset()

    def block_sockets(self) -> None:
        """No WebSocket any more; those that are there are cut."""
        self.blocks_sockets = True
        for line in [line for line in self._lines if line.is_socket]:
            line.reset()

    def swallows(self, direction: Direction) -> bool:
        """Whether what goes in this direction vanishes now."""
        return direction in self._holes

    @property
    def sockets(self) -> int:
        """How many WebSockets are open."""
        return sum(line.is_socket for line in self._lines)

    @property
    def events(self) -> int:
        """How many streams of Server-Sent Events are open."""
        return sum(line.is_events for line in self._lines)

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.decode().split(" ")[:2]
                if path.partition("?")[0] in _FILES or path == "/test/token":
                    writer.write(self._file(path.partition("?")[0]))
                    await writer.drain()
                    continue
                self.asked.append(f"{method} {path}")
                await self._pass_on(head, path, (reader, writer))
                return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the browser has gone, or the test is over
        finally:
            writer.transport.abort()

    def _file(self, path: str) -> bytes:
        if path == "/test/token":
            self.tokens_given += 1
            content, kind = self.next_token().encode(), "text/plain"
        else:
            file, kind = _FILES[path]
            content = _BOOK if file is None else file.read_bytes()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nCache-Control: no-store\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    async def _pass_on(self, head: bytes, path: str, client: Streams) -> None:
        wants_socket = b"\r\nupgrade: websocket" in head.lower()
        if self.is_severed and path.startswith("/v1/"):
            return
        if wants_socket and self.blocks_sockets:
            client[1].write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await client[1].drain()
            return
        if not wants_socket:  # one request to a connection, so that each can be told from the others
            lines = [line for line in head.strip().split(b"\r\n") if not line.lower().startswith(b"connection:")]
            head = b"\r\n".join([*lines, b"Connection: close", b"", b""])
        node = await asyncio.open_connection("127.0.0.1", self.target)
        line = _Line(self, client, node, is_socket=wants_socket, is_events=path.startswith("/v1/events"))
        self._lines.add(line)
        try:
            await line.carry(head)
        finally:
            self._lines.discard(line)
            node[1].transport.abort()


class _Line:
    """One connection of the browser, and the one to the node that was made for it."""

    def __init__(self, site: Site, client: Streams, node: Streams, *, is_socket: bool, is_events: bool) -> None:
        self._site = site
        self._client = client
        self._node = node
        self._reset = asyncio.Event()
        self.is_socket = is_socket
        self.is_events = is_events
        self.is_torn = False

    def reset(self) -> None:
        """Ends both sides without a goodbye: the browser is sent an RST."""
        for _, writer in (self._client, self._node):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._reset.set()

    async def carry(self, head: bytes) -> None:
        """Carries both ways until one side ends, and that may be seen."""
        ways = [
            asyncio.create_task(self._carry("up", self._client[0], self._node[1], head)),
            asyncio.create_task(self._carry("down", self._node[0], self._client[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self.is_torn:
                await self._reset.wait()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b""
    ) -> None:
        try:
            data = data or await reader.read(self._chunk(direction))
            while data:
                self.is_torn = self.is_torn or self._site.swallows(direction)
                if not self._site.swallows(direction):
                    writer.write(data)
                    await writer.drain()
                if self._is_slow(direction):
                    await asyncio.sleep(len(data) / self._site.bytes_per_s)
                data = await reader.read(self._chunk(direction))
        except OSError:
            pass
        # The end of the connection vanishes as well.
        self.is_torn = self.is_torn or self._site.swallows(direction)

    def _is_slow(self, direction: Direction) -> bool:
        return direction == "down" and self._site.bytes_per_s > 0

    def _chunk(self, direction: Direction) -> int:
        return 4_096 if self._is_slow(direction) else 65_536
