"""The load generator's clients: one connection each, one class for each system, over picows, the fastest there is.

A message of the benchmark is a JSON string of 128 characters that carries its number between two `#`. What stands
around it, each system spells in its own way; the numbers are found in whatever comes, so that receiving costs the same
for all systems. What is not a message goes to `other`.
"""

import asyncio
import json
from collections.abc import Callable
from typing import ClassVar, Self

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

BODY_BYTES = 128
HANDSHAKE_S = 60.0  # a thousand at once, on a slow system


def text_of(number: int) -> str:
    """The message with this number."""
    return f"#{number:012}#".ljust(BODY_BYTES - 2, "x")


class Client(WSListener):
    """One connection. `heard` is called with the number of every message that comes.

    What goes wrong with it stands in `problems`: picows would only log what is raised in its callbacks.
    """

    PATH: ClassVar[str] = "/"
    DEVICE: ClassVar[str] = "bench"
    ANSWERS: ClassVar[bool] = False  # whether a send is answered, so that the sender waits for that too

    def __init__(self, user: str) -> None:
        self.user = user
        self.heard: Callable[[Client, int], None] = _ignore
        self.answered: Callable[[Client], None] = _ignore_answer
        self.transport: WSTransport | None = None
        self.last = b""  # the last message that came
        self.problems: list[str] = []
        self._is_closing = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, port: int, user: str, **fields: object) -> Self:
        """A client whose connection is ready to be used. `fields` are set before anything comes."""
        client = cls(user)
        for name, value in fields.items():
            setattr(client, name, value)
        await ws_connect(
            lambda: client,
            f"ws://127.0.0.1:{port}{cls.PATH.format(user=user)}",
            websocket_handshake_timeout=HANDSHAKE_S,
        )
        async with asyncio.timeout(HANDSHAKE_S):
            await client._ready
        return client

    async def join(self, group: str) -> None:
        """Become one of a group."""
        self._joined = asyncio.get_running_loop().create_future()
        self.say_join(group)
        async with asyncio.timeout(HANDSHAKE_S):
            await self._joined

    def close(self) -> None:
        self._is_closing = True
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def complain(self, problem: str) -> None:
        """Something is wrong with this connection: whoever waits for it is told, and whoever measures finds it."""
        self.problems.append(f"{self.user}: {problem}")
        for future in (self._ready, self._joined):
            if future is not None and not future.done():
                future.set_exception(RuntimeError(self.problems[-1]))
                future.exception()  # whether anybody waits or not

    # -- what each system spells in its own way ------------------------------------------------------------------------

    def greet(self) -> None:
        """The connection is open."""
        self.is_ready()

    def say_join(self, group: str) -> None:
        raise NotImplementedError

    def send(self, to: str, number: int) -> None:
        """`to`: `user:<id>` or `group:<id>`."""
        raise NotImplementedError

    def other(self, payload: bytes) -> None:
        """Something that is no message."""

    def acknowledge(self) -> None:
        """What a client of the system says about what it has heard, from time to time."""

    # -- what the socket tells -----------------------------------------------------------------------------------------

    def is_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def has_joined(self) -> None:
        if self._joined is not None and not self._joined.done():
            self._joined.set_result(None)

    def write(self, text: str) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, text.encode())

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.greet()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.TEXT:
            self.receive(frame.get_payload_as_bytes())
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ended()

    def receive(self, payload: bytes) -> None:
        """A text frame has come. Raises nothing: picows would log it, and nobody would know."""
        try:
            self.take(payload)
        except Exception as problem:  # noqa: BLE001 - see above
            self.complain(repr(problem))

    def take(self, payload: bytes) -> None:
        """What a text frame carries."""
        at = payload.find(b"#")
        if at < 0:
            self.other(payload)
        else:
            self.last = payload
            self.heard(self, int(payload[at + 1 : at + 13]))

    def ended(self) -> None:
        """The connection is no more."""
        if not self._is_closing:
            self.complain("the connection was lost")


def _ignore(_client: Client, _number: int) -> None:
    pass


def _ignore_answer(_client: Client) -> None:
    pass


class FloorClient(Client):
    """The bare writer: `<to> <body>` in, the body out; `+<group> ` joins, and is answered."""

    PATH = "/?user={user}"

    def say_join(self, group: str) -> None:
        self.write(f"+{group} ")

    def other(self, payload: bytes) -> None:
        self.has_joined()

    def send(self, to: str, number: int) -> None:
        self.write(f'{to} "{text_of(number)}"')


class PlainClient(Client):
    """The plain loop of replays: the bodies of what was missed, then a word that it is over."""

    PATH = "/?user={user}"

    def greet(self) -> None:
        pass

    def other(self, payload: bytes) -> None:
        self.is_ready()


class WaypostClient(Client):
    """The wire `waypost.v1`. Acknowledges once a second, as our own client does."""

    PATH = "/v1/connect?user={user}"
    ANSWERS = True

    def greet(self) -> None:
        self.write(json.dumps({"type": "hello", "device": self.DEVICE}))

    def say_join(self, group: str) -> None:
        self.write(json.dumps({"type": "join", "group": group, "ref": 0}))

    def send(self, to: str, number: int) -> None:
        self.write(f'{{"type":"send","ref":{number},"to":"{to}","body":"{text_of(number)}"}}')

    def acknowledge(self) -> None:
        if self.last:
            frame = json.loads(self.last)
            self.write(json.dumps({"type": "ack", "offsets": {frame["stream"]: frame["id"]}}))
            self.last = b""

    def other(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"sent"'):
            self.answered(self)
        elif payload.startswith(b'{"type":"live"'):
            self.is_ready()
        elif payload.startswith(b'{"type":"joined"') and b'"ref":0' in payload:
            self.has_joined()
        elif payload.startswith((b'{"type":"error"', b'{"type":"gap"')):
            self.complain(f"was told {payload.decode()}")


class SocketIoClient(Client):
    """Engine.IO 4 over a WebSocket, and Socket.IO 5 within: both peers speak it."""

    PATH = "/socket.io/?EIO=4&transport=websocket&user={user}"
    ANSWERS = True  # with an acknowledgement: else a sender would not know whether its message got as far as the server

    def say_join(self, group: str) -> None:
        self.write(f'42["join","{group}"]')

    def send(self, to: str, number: int) -> None:
        self.write(f'42{number}["send","{to}","{text_of(number)}"]')

    def other(self, payload: bytes) -> None:
        if payload.startswith(b"43"):
            self.answered(self)
        elif payload == b"2":  # the server's ping
            self.write("3")
        elif payload.startswith(b"0{"):
            self.write("40")
        elif payload.startswith(b"40"):
            self.is_ready()
        elif payload.startswith(b'42["joined"'):
            self.has_joined()
