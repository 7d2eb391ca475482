"""`GET /v1/connect`: the wire `waypost.v1` over a WebSocket."""

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.auth import Principal, check_origin, credentials_of
from service.config import Settings
from service.core import frames
from service.core.entries import Entry
from service.core.frames import ClientFrame, Malformed, ServerFrame
from service.core.paging import Gap
from service.errors import WaypostError
from service.node.connection import EncodeEntry, gap_frame
from service.node.sign_ins import SignIns
from service.transports.conversation import Conversation, refuse
from service.transports.ready_frames import protocol_of, text_frame

SUBPROTOCOL = "waypost.v1"
LINES_AT_ONCE = 64  # of one message: their answers are written before more is taken, and may fill the socket's buffer


def entry_frame(stream: str, entry: Entry) -> bytes:
    """An entry, ready for the wire."""
    return text_frame(frames.encode_entry(stream, entry))


class WireCodec:
    """JSON objects, one in each WebSocket frame."""

    transport = "websocket"
    entry: EncodeEntry = staticmethod(entry_frame)

    def frame(self, frame: ServerFrame) -> bytes:
        """A frame of the session."""
        return text_frame(frames.encode(frame))

    def gap(self, stream: str, gap: Gap) -> bytes:
        """An announced gap."""
        return text_frame(frames.encode(gap_frame(stream, gap)))


WIRE = WireCodec()


class WireConversation(Conversation):
    """One client of the wire."""

    def decode(self, data: bytes) -> list[ClientFrame | Malformed]:
        """The frames in one WebSocket message; of many lines the first, so that a full socket stops the others."""
        taken, rest = frames.decode_some(data, LINES_AT_ONCE)
        if rest:
            self.protocol.put_back(rest)
        return taken


async def connect(websocket: WebSocket) -> None:
    """One client, from the upgrade to the end of its connection."""
    node, settings = websocket.app.state.node, websocket.app.state.settings
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    conversation = WireConversation(protocol_of(websocket.scope), settings)
    try:
        check_origin(websocket, settings)
        principal, first = await _meet(websocket, node.sign_ins, settings)
        connection = node.connect(conversation.protocol, WIRE, principal)
    except WaypostError as problem:
        await refuse(websocket, WIRE.frame(frames.error_frame(problem)), problem)
        return
    except WebSocketDisconnect:
        return
    await conversation.hold(connection, begin=lambda: conversation.received(first) if first else None)


async def _meet(websocket: WebSocket, sign_ins: SignIns, settings: Settings) -> tuple[Principal, bytes]:
    """Who it is. Who shows nothing at the upgrade says `hello` with a token: then its first message comes along."""
    principal = await sign_ins.door.by(credentials_of(websocket))
    if principal is not None:
        if not principal.user:
            raise WaypostError("unauthorised", "whom does it act as? A server key names the user: ?user=<id>")
        return principal, b""
    try:
        with sign_ins.stranger():
            async with asyncio.timeout(settings.hello_timeout_s):
                first = await _first_message(websocket)
    except TimeoutError:
        raise WaypostError("hello_timeout") from None
    if len(first) > settings.limits.frame_bytes:
        raise WaypostError("too_large")
    hello = frames.decode(first)[0]
    if isinstance(hello, Malformed) and hello.code == "bad_frame":
        raise WaypostError("bad_frame", hello.detail)
    if not isinstance(hello, frames.Hello) or not hello.token:
        raise WaypostError("unauthorised", "no sign-in was given")
    return await sign_ins.door.by_token(hello.token), first


async def _first_message(websocket: WebSocket) -> bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    data: bytes = message.get("bytes") or (message.get("text") or "").encode()
    return data
