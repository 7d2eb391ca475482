"""`GET /v1/connect`: the wire `waypost.v1` over a WebSocket."""

from starlette.websockets import WebSocket

from service.auth import sign_in
from service.core import frames
from service.core.entries import Entry
from service.core.frames import ClientFrame, Malformed, ServerFrame
from service.core.paging import Gap
from service.errors import WaypostError
from service.node.connection import EncodeEntry, gap_frame
from service.transports.conversation import Conversation, refuse
from service.transports.ready_frames import protocol_of, text_frame

SUBPROTOCOL = "waypost.v1"
LINES_AT_ONCE = 64  # of one message: their answers are written before more is taken, and may fill the socket's buffer


def entry_frame(stream: str, entry: Entry) -> bytes:
    """An entry, ready for the wire."""
    return text_frame(frames.encode_entry(stream, entry))


class WireCodec:
    """JSON objects, one in each WebSocket frame."""

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
        principal = sign_in(websocket.query_params, websocket.headers.get("authorization"), settings)
        connection = node.connect(conversation.protocol, WIRE, principal)
    except WaypostError as problem:
        await refuse(websocket, WIRE.frame(frames.error_frame(problem)), problem)
        return
    await conversation.hold(connection)
