"""What the tests of the wire share: a bare WebSocket, a client of the old protocol, and texts as they came."""

import asyncio
import base64
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import connect

from tests.integration.store.kit import Server, key_of
from tests.service import Frame, NodeProcess, Phone

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PATIENCE_S = 10.0  # for everything that is to happen


class BareSocket:
    """A WebSocket by hand: every byte is ours, nothing is answered by itself, and nothing is read unless asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.headers = ""

    @classmethod
    async def open(cls, url: str, path: str, **headers: str) -> Self:
        """Upgrades, with these headers in place of the usual ones or beside them."""
        where = urlsplit(url)
        # A small window, so that the kernel takes little of what nobody reads.
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        small.connect((where.hostname, where.port))
        reader, writer = await asyncio.open_connection(sock=small)
        key = base64.b64encode(os.urandom(16)).decode()
        given = {
            "Host": where.netloc,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **headers,
        }
        lines = (f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", "")
        writer.write("\r\n".join(lines).encode())
        bare = cls(reader, writer)
        async with asyncio.timeout(PATIENCE_S):
            bare.headers = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert bare.headers.startswith("HTTP/1.1 101"), bare.headers
        return bare

    def write(self, opcode: int, payload: bytes, *, is_last: bool = True) -> None:
        self._writer.write(client_frame(opcode, payload, is_last=is_last))

    async def read(self, seconds: float | None = PATIENCE_S) -> tuple[int, bytes]:
        """The next frame. Raises `IncompleteReadError` or `ConnectionError` when there is none."""
        async with asyncio.timeout(seconds):
            first, second = await self._reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            return first & 0x0F, await self._reader.readexactly(length)

    async def is_cut(self) -> bool:
        """Whether the server ends the connection without a goodbye."""
        try:
            while True:
                opcode, _ = await self.read()
                if opcode == CLOSE:
                    return False
        except (asyncio.IncompleteReadError, ConnectionError):
            return True

    def pause(self) -> None:
        """Stops taking anything from the socket: the kernel's buffers fill, and then the server's."""
        self._reader._transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        self._reader._transport.resume_reading()  # type: ignore[attr-defined]

    def cut(self) -> None:
        self._writer.transport.abort()


def client_frame(opcode: int, payload: bytes, *, is_last: bool = True) -> bytes:
    """A frame as a client sends it: masked, here with a mask of zeros."""
    first = (0x80 if is_last else 0) | opcode
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    return head + bytes(4) + payload


class Chat:
    """A client of the old protocol: the texts that came, in order; it answers pings, or does not."""

    def __init__(self, bare: BareSocket, *, is_ponging: bool) -> None:
        self.bare = bare
        self.texts: list[str] = []
        self.close_code: int | None = None
        self.is_ponging = is_ponging
        self.pings: list[bytes] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while self.close_code is None:
                opcode, payload = await self.bare.read(None)
                if opcode == TEXT:
                    self.texts.append(payload.decode())
                elif opcode == PING:
                    self.pings.append(payload)
                    if self.is_ponging:
                        self.pong(payload)
                elif opcode == CLOSE:
                    self.close_code = int.from_bytes(payload[:2]) if payload else 1005
                async with self._news:
                    self._news.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close_code = 1006
            async with self._news:
                self._news.notify_all()

    def say(self, text: str) -> None:
        self.bare.write(TEXT, text.encode())

    async def until(self, *texts: str) -> None:
        """Waits until these are the texts that came, no more and no less."""
        await self.until_there_are(len(texts))
        assert self.texts == list(texts)

    async def until_there_are(self, count: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: len(self.texts) >= count or self.close_code is not None)
        except TimeoutError:
            pass
        assert len(self.texts) >= count, f"came, of {count}: {self.texts[-10:]}; closed with {self.close_code}"

    async def until_pinged(self, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.pings) >= times)

    def pong(self, payload: bytes) -> None:
        self.bare.write(PONG, payload)

    async def until_closed(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
        assert self.close_code is not None
        return self.close_code

    async def leave(self) -> None:
        """Hangs up politely."""
        self.bare.write(CLOSE, struct.pack("!H", 1000))
        await self.until_closed()
        self.bare.cut()

    async def cut(self) -> None:
        """Loses the network."""
        self.bare.cut()
        await asyncio.gather(self._reading, return_exceptions=True)


def call(method: str, *, group: str | None = None, body: object = None) -> str:
    """A frame of `/chat/channel`, as text."""
    frame: Frame = {"Method": method}
    if group is not None:
        frame["Group"] = group
    if body is not None:
        frame["MsgBody"] = body
    return json.dumps(frame)


def direct(to: str, text: str) -> str:
    return call("One", body={"Id": to, "Msg": text})


def add(user: str, group: str) -> str:
    """What a joiner is told on `/chat/…`."""
    return f"user 【{user}】 add  to group 【{group}】"


async def enter(chat: Chat, user: str, group: str) -> None:
    """Joins on `/chat/channel`, as the first thing that happens there."""
    chat.say(call("UserGroup", group=group))
    await chat.until(add(user, group))


class Net:
    """Opens connections to a node, and hangs up all of them when the test is over."""

    def __init__(self, node: NodeProcess, database: Server) -> None:
        self.node = node
        self._database = database
        self._phones: list[Phone] = []
        self._chats: list[Chat] = []
        self._bare: list[BareSocket] = []

    def at(self, node: NodeProcess) -> "Net":
        """The same for another node."""
        other = Net(node, self._database)
        other._phones, other._chats, other._bare = self._phones, self._chats, self._bare
        return other

    async def dial(self, user: str | None, **options: Any) -> Phone:  # noqa: ANN401 - whatever `connect` takes
        """Connects, and says nothing yet."""
        self._phones.append(await Phone.dial(self.node.url, user, **options))
        return self._phones[-1]

    async def open(self, user: str, device: str = "default", **hello: object) -> Phone:
        """Connects, says hello and waits until everything missed has come."""
        phone = await self.dial(user)
        await phone.say(type="hello", device=device, **hello)
        await phone.wait("live")
        return phone

    async def bare(self, path: str, **headers: str) -> BareSocket:
        self._bare.append(await BareSocket.open(self.node.url, path, **headers))
        return self._bare[-1]

    async def chat(self, *path: str, is_ponging: bool = True) -> "Chat":
        """Connects to `/chat/…`; the last part of `path` is the user. Waits until the store has begun the session,
        which the protocol does not tell: from then on a new device gets what is sent to all.
        """
        bare = await self.bare("/".join(["/chat", *(quote(part, safe="") for part in path)]))
        chat = Chat(bare, is_ponging=is_ponging)
        self._chats.append(chat)
        await eventually(lambda: chat.close_code or stored_offset(self._database, path[-1], "chat", "all"), "it is in")
        return chat

    async def hang_up(self) -> None:
        for chat in self._chats:
            await chat.cut()
        for bare in self._bare:
            bare.cut()
        for phone in self._phones:
            phone.cut()
            await phone.ends()


async def join(phone: Phone, group: str) -> Frame:
    """Joins and returns the answer."""
    ref = f"j{len(phone.frames)}"
    await phone.say(type="join", group=group, ref=ref)
    await phone.until(lambda: phone.answer_to(ref), "an answer to join")
    answer = phone.answer_to(ref)
    assert answer is not None
    return answer


async def leave(phone: Phone, group: str) -> Frame:
    """Leaves and returns the answer."""
    ref = f"l{len(phone.frames)}"
    await phone.say(type="leave", group=group, ref=ref)
    await phone.until(lambda: phone.answer_to(ref), "an answer to leave")
    answer = phone.answer_to(ref)
    assert answer is not None
    return answer


async def raw_texts(url: str, user: str, count: int, *, device: str = "ear") -> list[str]:
    """The text frames of the first `count` messages that a device of `user` gets, as they came."""
    address = url.replace("http://", "ws://") + f"/v1/connect?user={user}"
    async with connect(address, compression=None, max_size=None) as websocket, asyncio.timeout(PATIENCE_S):
        await websocket.send('{"type":"hello","device":"%s"}' % device)
        texts: list[str] = []
        while len(texts) < count:
            lines = str(await websocket.recv()).split("\n")
            texts += [line for line in lines if line.startswith('{"type":"message"')]
        return texts


def stored_offset(database: Server, user: str, device: str, stream: str) -> str | None:
    """The offset that the store has for a device."""
    raw = database.admin.hget(key_of("o", f"user:{user}", f"{user}/{device}"), stream)
    return None if raw is None else raw.decode().split()[0]


async def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    """Waits, without holding up the loop, until a condition comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.01)


def n_of(entry_id: str) -> int:
    """The running number of an entry id."""
    return int(entry_id.split("-")[1])


def types_of(frames: list[Frame]) -> list[str]:
    return [frame["type"] for frame in frames]
