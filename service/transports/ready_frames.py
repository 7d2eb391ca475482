"""The uvicorn WebSocket protocol that Waypost's transports use: frames that are ready, pongs, and draining.

uvicorn's own `websockets-sansio` protocol accepts the connection, parses and closes. What ASGI cannot show is added
here, and reaches the transport through the scope's extensions as `READY_FRAMES`:

- `write` takes bytes that are WebSocket frames already. A server's frame is the same for every receiver, so it is built
  once, and written a thousand times for the price of the system call.
- what arrives is handed to the listener at once, instead of through a queue and a task;
- the listener hears of pongs, and when the socket's buffer is full and empty again.
"""

import logging
from asyncio import BaseTransport
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from service.node.connection import CLOSE_LOST
from service.transports.security_headers import HEADERS

_quiet = logging.getLogger("uvicorn.error.clients")  # see bounded_http.py

READY_FRAMES = "waypost.ready_frames"  # the name in `scope["extensions"]`
# Of a message before anybody listens, which is before its sender is known: twice the largest `hello`.
STRANGER_BYTES_MAX = 262_144
CLOSE_WAIT_S = 5.0  # how long a client has to read what was written and to answer a close frame
LOW_WATER_SHARE = 4  # a socket counts as drained at a quarter of its buffer, so that it does not flap


def text_frame(payload: bytes) -> bytes:
    """A whole WebSocket text frame from server to client (RFC 6455 §5.2: unmasked, one fragment)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


class SocketListener(Protocol):
    """Who a socket tells how it is. Nothing here may wait or raise."""

    def paused(self) -> None:
        """The buffer is full."""

    def drained(self) -> None:
        """The buffer has room again."""

    def lost(self) -> None:
        """The socket is gone: nothing may be written any more."""


class Listener(SocketListener, Protocol):
    """The same of a WebSocket, which also brings something."""

    def received(self, data: bytes) -> None:
        """A text or binary message has arrived, whole."""

    def ponged(self, payload: bytes) -> None:
        """A pong has arrived."""


class _Handshake(ServerProtocol):
    """websockets' own, whose refusals have the headers that all our answers have."""

    def reject(self, status: int, text: str) -> Response:
        """An answer that is no upgrade."""
        response = super().reject(status, text)
        response.headers.update([(name.decode(), value.decode()) for name, value in HEADERS])
        return response


class ReadyFrames(WebSocketsSansIOProtocol):
    """One accepted WebSocket. Before `listen` it behaves as uvicorn's own."""

    _listener: Listener | None = None
    _is_releasing = False
    write: Callable[[bytes], None]  # the transport's own: whole frames, queued at once

    def connection_made(self, transport: BaseTransport) -> None:
        """Keeps the transport's own `write` at hand."""
        super().connection_made(transport)
        self.write = self.transport.write
        # Nothing is compressed: a frame is built once for all, and a small one cannot become a large one here.
        self.conn = _Handshake(max_size=min(STRANGER_BYTES_MAX, self.config.ws_max_size), logger=_quiet)
        self._held: deque[bytes] = deque()  # messages that were read in one go with others, and are not wanted yet

    def handle_connect(self, event: Request) -> None:
        """Makes this protocol reachable from the ASGI scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast("dict[str, Any]", self.scope["extensions"])[READY_FRAMES] = self

    def listen(self, listener: Listener, write_buffer_bytes: int) -> None:
        """From now on the listener hears everything, and at most about `write_buffer_bytes` wait to be sent."""
        self._listener = listener
        self.conn.max_message_size = self.config.ws_max_size
        self.transport.set_write_buffer_limits(write_buffer_bytes, write_buffer_bytes // LOW_WATER_SHARE)
        # What a hasty client sent before it was accepted.
        early = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in early:
            if event["type"] == "websocket.receive":
                self._held.append(event.get("bytes") or (event.get("text") or "").encode())
            else:
                self.queue.put_nowait(event)
        if self.read_paused and not self.close_sent:
            self.resume_reading()

    @property
    def buffered_bytes(self) -> int:
        """What has been written and is not on its way yet."""
        return self.transport.get_write_buffer_size()

    @property
    def ended_with(self) -> int:
        """The close code that the client sent, or we sent to one that broke the rules of the protocol."""
        close = self.conn.close_rcvd or self.conn.close_sent
        return CLOSE_LOST if close is None else close.code

    def ping(self, payload: bytes) -> None:
        """Sends a ping; the pong comes to the listener."""
        if not self.close_sent and not self.transport.is_closing():
            self.conn.send_ping(payload)
            self.transport.write(b"".join(self.conn.data_to_send()))

    def pause_reading(self) -> None:
        """Stops reading. What was read already, a thousand small messages perhaps, is held back."""
        self.read_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again, once what was held back has been taken: in a turn of its own, for the listener may be in the
        middle of something that such a message would change.
        """
        self.read_paused = False
        if self._held:
            self._release_soon()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def put_back(self, rest: bytes) -> None:
        """What the listener leaves of a message that it is receiving comes once more, before any other."""
        self._held.appendleft(rest)
        if not self.read_paused:
            self._release_soon()

    def _release_soon(self) -> None:
        if not self._is_releasing:
            self._is_releasing = True
            self.loop.call_soon(self._release)

    def _release(self) -> None:
        while self._held and not self.read_paused and self._listener is not None:
            self._listener.received(self._held.popleft())
        self._is_releasing = False
        if not self._held and not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame after what has been written; a client that does not answer it in time is cut off."""
        if self.close_sent or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return  # in the last case the client's own goodbye is being read: its answer is ready to be sent
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._held.clear()
        if self.read_paused:
            self.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_WAIT_S, self.transport.abort)

    def turn_away(self, code: int, reason: str) -> None:
        """Closes it, if nobody has begun to listen: somebody who has not said yet who they are."""
        if self._listener is None:
            self.close(code, reason)

    # -- what uvicorn's protocol is told -------------------------------------------------------------------------------

    def send_receive_event_to_app(self) -> None:
        """A whole message has arrived: straight to the listener."""
        if self._listener is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text" and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.conn.fail(1007, "not UTF-8")
                self.handle_parser_exception()
                return
        if self.read_paused or self._held:
            self._held.append(bytes(data))
        else:
            self._listener.received(bytes(data))

    def handle_parser_exception(self) -> None:
        """What cannot be parsed ends the connection. What the client is still sending then is thrown away: of a socket
        that is closed with something unread it would hear nothing more, not even the close code.
        """
        if self.close_sent:
            return
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:  # over TLS, which reads on until the client has ended its side too
            self.transport.close()
        self.close_timer = self.loop.call_later(CLOSE_WAIT_S, self.transport.abort)
        self._held.clear()
        self._lose_listener()
        if self.read_paused:
            self.resume_reading()

    def handle_ping(self) -> None:
        """Pings are answered, but those that came in one go with what ended the connection: the end has been sent."""
        if not self.close_sent:
            super().handle_ping()

    def handle_close(self, event: Frame) -> None:
        """The client says goodbye: what it said before that comes first."""
        while self._held and self._listener is not None:
            self._listener.received(self._held.popleft())
        super().handle_close(event)
        if self.close_timer is None and self.transport.is_closing():
            # What was written before may be more than it ever takes.
            self.close_timer = self.loop.call_later(CLOSE_WAIT_S, self.transport.abort)

    def handle_pong(self, event: Frame) -> None:
        """Pongs answer our own pings (uvicorn's are off)."""
        if self._listener is not None:
            self._listener.ponged(bytes(event.data))

    def pause_writing(self) -> None:
        """The transport's buffer is above its limit."""
        super().pause_writing()
        if self._listener is not None:
            self._listener.paused()

    def resume_writing(self) -> None:
        """The transport's buffer is below a quarter of its limit."""
        super().resume_writing()
        if self._listener is not None:
            self._listener.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone. The listener must hear it now, for a closed transport raises when it is written to; the
        waiting ASGI application hears it as `websocket.disconnect`, a loop turn later.
        """
        super().connection_lost(exc)
        # Cycles keep this object until they are looked for: what a client left unfinished is not to wait for that.
        self._held.clear()
        self.frames = []
        self.conn.reader.discard()
        self._lose_listener()

    def _lose_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost()

    async def closed(self) -> None:
        """Returns when the connection has ended, by either side. Call it instead of `receive` after `listen`."""
        while (await self.queue.get())["type"] != "websocket.disconnect":
            pass


def protocol_of(scope: MutableMapping[str, Any]) -> ReadyFrames:
    """The protocol behind an ASGI WebSocket scope. Raises `TypeError` when uvicorn was not told to use it."""
    protocol = scope.get("extensions", {}).get(READY_FRAMES)
    if not isinstance(protocol, ReadyFrames):
        raise TypeError("uvicorn must run with ws=service.transports.ready_frames.ReadyFrames")
    return protocol
