"""A phone that can only listen: it gets Server-Sent Events, and whatever it says it asks over HTTP."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Self, cast
from urllib.parse import quote, urlencode, urlsplit

from websockets.asyncio.client import ClientConnection

from tests.service import ENTRY_TYPES, Frame, Misdelivered, Phone

CLOSED = (1000, "")


class Refused(Exception):
    """Another answer than a stream of events."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status} {body!r}")
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


class EventPhone(Phone):
    """As `Phone`, over `GET /v1/events`. Answers to what it asks are kept beside the frames: they come another way.

    `bookmark` is the id of the last event that has one; `retry_ms` the last time for coming back.
    """

    def __init__(self, url: str, user: str, **query: str) -> None:
        self.url = url
        self.query = {"user": user, **query} if user else query
        self.device = query.get("device", "default")
        self.headers: dict[str, str] = {}
        self.bookmark = ""
        self.retry_ms = 0
        self.comments = 0
        self.asked_with: dict[str, str] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        super().__init__(cast("ClientConnection", None), user)

    @classmethod
    async def dial(cls, url: str, user: str | None, **options: Any) -> Self:  # noqa: ANN401 - as the other phone's
        """Says nothing yet: `hello` is the request."""
        assert not options
        return cls(url, user or "")

    @classmethod
    async def open(cls, url: str, user: str, device: str = "default", **how: Any) -> Self:  # noqa: ANN401 - see `listen`
        """Listens, and waits until everything missed has come."""
        phone = cls(url, user, device=device)
        await phone.listen(**how)
        await phone.wait("live")
        return phone

    async def listen(
        self,
        bookmark: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int = 0,
        accept: str = "text/event-stream",
    ) -> Self:
        """Asks for the stream, from this bookmark on. Raises `Refused`."""
        where = urlsplit(self.url)
        own = socket.socket()
        if receive_buffer:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, (where.hostname, where.port))
        reader, writer = await asyncio.open_connection(sock=own)
        said = {"Host": where.netloc, "Accept": accept, **(headers or {})}
        if bookmark:
            said["Last-Event-ID"] = bookmark
        lines = [f"GET /v1/events?{urlencode(self.query)} HTTP/1.1", *(f"{k}: {v}" for k, v in said.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        self._writer = writer
        async with asyncio.timeout(20):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.strip().split("\r\n")
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}
        status = int(first.split()[1])
        if status != 200:
            body = await reader.readexactly(int(self.headers.get("content-length", 0)))
            writer.close()
            raise Refused(status, self.headers, body)
        self._reader = reader
        self._reading = asyncio.create_task(self._read_events(reader))
        return self

    async def _read(self) -> None:
        """Nothing is read before `listen`."""

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        try:
            while self.closed is None:
                rest = self._take(rest + await self._part(reader))
                async with self._news:
                    self._news.notify_all()
                await self._may_read.wait()
        except EOFError:  # the response has ended
            self.closed = CLOSED
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Misdelivered as problem:
            self._problem = problem
        finally:
            self.closed = self.closed or (1006, "")
            assert self._writer is not None
            self._writer.close()
            async with self._news:
                self._news.notify_all()

    async def _part(self, reader: asyncio.StreamReader) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return await self._whole(reader)
        length = int(await reader.readuntil(b"\r\n"), 16)
        data = await reader.readexactly(length + 2)
        if not length:
            raise EOFError
        return data[:-2]

    async def _whole(self, reader: asyncio.StreamReader) -> bytes:
        left = int(self.headers["content-length"])
        self.headers["content-length"] = "0"
        if not left:
            raise EOFError
        return await reader.readexactly(left)

    def _take(self, data: bytes) -> bytes:
        """Takes whole events, as WHATWG's standard has it; returns what is left."""
        *events, rest = data.split(b"\n\n")
        for event in events:
            said, has_id = [], False
            for line in event.decode().split("\n"):
                name, _, value = line.partition(": ")
                if name == "data":
                    said.append(value)
                elif name == "id":
                    self.bookmark, has_id = value, True
                elif name == "retry":
                    self.retry_ms = int(value)
                elif line.startswith(":"):
                    self.comments += 1
                elif line:
                    raise Misdelivered(f"not of an event: {line!r}")
            if said:
                frame = json.loads("\n".join(said))
                if has_id != (frame["type"] in (*ENTRY_TYPES, "gap")):
                    raise Misdelivered(f"an id with {frame}: {has_id}")
                if len(self.bookmark) > 4096 or "ref" in frame or frame["type"] == "sent":
                    raise Misdelivered(f"{frame}, at {self.bookmark}")
                self._check(frame)
        return rest

    # -- what it says --------------------------------------------------------------------------------------------------

    async def say(self, **frame: object) -> None:
        """A frame of the wire, as a request over HTTP; its answer is kept by `ref`."""
        kind, ref = frame["type"], frame.get("ref")
        if kind == "hello":
            self.query["device"] = self.device = str(frame.get("device", "default"))
            await self.listen()
            return
        if kind == "send":
            body = {name: value for name, value in frame.items() if name in ("to", "body", "key")}
            answer = await self.ask("POST", "/v1/messages", body)
            self._answer(ref, {"type": "sent", "duplicate": False, **answer})
        elif kind == "ack":
            answer = await self.ask("PUT", f"/v1/devices/{quote(self.device)}/offsets", {"offsets": frame["offsets"]})
            self._answer(ref, {"type": "acked", **answer})
        elif kind in ("join", "leave"):
            path = f"/v1/groups/{quote(str(frame['group']))}/members/{quote(self.user)}"
            before = len(self._own_lefts(frame["group"]))
            answer = await self.ask("PUT" if kind == "join" else "DELETE", path, {} if kind == "join" else None)
            what = {"stream": f"group:{frame['group']}", "user": self.user, "group": frame["group"]}
            if "since" in answer:
                what["id"] = answer["since"]
            elif "status" in answer:
                what |= answer
            else:  # there is no body; the own entry comes as an event
                await self.until(lambda: len(self._own_lefts(frame["group"])) > before, "the own left")
                what["id"] = self._own_lefts(frame["group"])[-1]
            self._answer(ref, {"type": "joined" if kind == "join" else "left", **what})
        else:
            raise AssertionError(f"cannot be said over HTTP: {frame}")
        async with self._news:
            self._news.notify_all()

    def _own_lefts(self, group: object) -> list[str]:
        own = {"type": "left", "stream": f"group:{group}", "user": self.user}
        return [frame["id"] for frame in self.frames if own.items() <= frame.items()]

    def _answer(self, ref: object, answer: Frame) -> None:
        if "status" in answer:
            answer = {**answer, "type": "error"}
        if ref is not None:
            self._answers[ref] = {**answer, "ref": ref}

    async def ask(self, method: str, path: str, body: object = None) -> Frame:
        """What a node answers to a request."""
        return await asyncio.to_thread(self._ask, method, path, body)

    def _ask(self, method: str, path: str, body: object) -> Frame:
        query = urlencode({name: value for name, value in self.query.items() if name in ("user", "token")})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}?{query}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return cast("Frame", json.loads(answer.read() or b"{}"))
        except urllib.error.HTTPError as refusal:
            with refusal:
                return cast("Frame", json.loads(refusal.read()))

    async def leave(self) -> None:
        """Hangs up."""
        self.cut()
        await self._reading

    def cut(self) -> None:
        """Loses the network: no goodbye."""
        if self._writer is not None:
            self._writer.transport.abort()
