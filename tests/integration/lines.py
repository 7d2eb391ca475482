"""A client of a node in this very process: no socket, and every frame that the node wrote."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.auth import Principal
from service.core import frames
from service.core.paging import Gap
from service.node import Node
from service.node.connection import Connection, gap_frame
from service.transports.chat import ChatCodec
from service.transports.websocket import WireCodec
from tests.integration.wire.kit import eventually
from tests.service import Frame


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[Node]:
    """The node at work, once it is ready."""
    task = asyncio.create_task(node.run())
    await eventually(lambda: not node.not_ready(), "it is ready")
    yield node
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Line:
    """A connection without a socket: what the node writes, as JSON."""

    def __init__(self, node: Node, user: str, codec: "PlainCodec | None" = None) -> None:
        self.frames: list[Frame] = []
        codec = codec or PlainCodec()
        self.connection: Connection = node.connect(self, codec, Principal(user=user, can_broadcast=True))

    def write(self, data: bytes) -> None:
        self.frames += [json.loads(line) for line in data.splitlines()]

    buffered_bytes = 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))

    def say(self, **frame: object) -> None:
        self.connection.receive(frames.decode(json.dumps(frame).encode()))

    async def until(self, **fields: object) -> Frame:
        """Waits for a frame with these fields."""

        def found() -> Frame | None:
            return next((f for f in self.frames if fields.items() <= f.items()), None)

        await eventually(found, f"{fields}; came: {self.frames}")
        frame = found()
        assert frame is not None
        return frame


class OldLine:
    """A connection of the old protocol without a socket: what the node writes, as texts."""

    def __init__(self, node: Node, user: str) -> None:
        self.written = b""
        self.codec = ChatCodec(user)
        who = Principal(user=user, can_broadcast=True)
        self.connection: Connection = node.connect(self, self.codec, who, hears_itself=False)
        self.connection.receive([frames.Hello("chat")])

    def write(self, data: bytes) -> None:
        self.written += data

    buffered_bytes = 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))

    def join(self, group: str) -> None:
        self.connection.receive([frames.Join(group, self.codec.ref(group))])

    def texts(self) -> list[str]:
        """The texts of the WebSocket frames so far, none of which is longer than 125 bytes."""
        found, rest = [], self.written
        while rest:
            found.append(rest[2 : 2 + rest[1]].decode())
            rest = rest[2 + rest[1] :]
        return found


class PlainCodec(WireCodec):
    """The wire, a line a frame instead of WebSocket frames."""

    entry = staticmethod(lambda stream, entry: frames.encode_entry(stream, entry) + b"\n")

    def frame(self, frame: frames.ServerFrame) -> bytes:
        return frames.encode(frame) + b"\n"

    def gap(self, stream: str, gap: Gap) -> bytes:
        return frames.encode(gap_frame(stream, gap)) + b"\n"
