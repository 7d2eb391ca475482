"""The HTTP protocol of a node, with streams of events: what is written to them goes to the socket at once.

`bounded_http.py` parses, keeps alive and closes. What ASGI cannot show is added here, and reaches the
transport through the scope's extensions as `READY_EVENTS`: a response that has begun through ASGI is written to without
a task between, its listener hears when the socket's buffer is full and empty again, and a client that takes nothing any
more can be cut off. The response ends through ASGI again.
"""

import socket
from asyncio import Transport
from collections.abc import MutableMapping
from typing import Any, cast

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from service.transports.bounded_http import BoundedHttp
from service.transports.ready_frames import LOW_WATER_SHARE, SocketListener

READY_EVENTS = "waypost.ready_events"  # the name in `scope["extensions"]`


class ReadyEvents(BoundedHttp):
    """One HTTP connection. But for a response that somebody listens to it behaves as any."""

    _listener: SocketListener | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Makes this protocol reachable from the ASGI scope."""
        super().connection_made(transport)
        app = self.app

        async def with_extension(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            cast("dict[str, Any]", scope).setdefault("extensions", {})[READY_EVENTS] = self
            await app(scope, receive, send)

        self.app = with_extension

    @property
    def is_streaming(self) -> bool:
        """Whether somebody listens: a response has begun, and nobody knows when it ends."""
        return self._listener is not None

    @property
    def buffered_bytes(self) -> int:
        """What has been written and is not on its way yet."""
        return self.transport.get_write_buffer_size()

    def listen(self, listener: SocketListener, write_buffer_bytes: int, give_up_s: float) -> None:
        """From now on at most about `write_buffer_bytes` wait to be sent, and the listener hears how it is.

        Where the system can, a peer that has confirmed nothing for `give_up_s` counts as gone, however little there is
        to be sent: events may be rare, and heartbeats fill no buffer.
        """
        if self.transport.is_closing():
            listener.lost()
            return
        self._listener = listener
        self.transport.set_write_buffer_limits(write_buffer_bytes, write_buffer_bytes // LOW_WATER_SHARE)
        own = self.transport.get_extra_info("socket")
        if own is not None and own.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(give_up_s * 1000))

    def stop_listening(self) -> None:
        """The response ends, through ASGI."""
        self._listener = None
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()

    def write_part(self, data: bytes) -> None:
        """A part of the body of a response that has begun, in one write: with HTTP/1.1 a chunk of its own."""
        if self.transport.is_closing():
            return
        is_chunked = self.scope["http_version"] == "1.1"
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)

    def abort(self) -> None:
        """Cuts the client off."""
        self.transport.abort()

    # -- what uvicorn's protocol is told -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The transport's buffer is above its limit."""
        super().pause_writing()
        if self._listener is not None:
            self.door.stuck.leave(self)  # the listener looks itself, and has something to say to who takes nothing
            self._listener.paused()

    def resume_writing(self) -> None:
        """The transport's buffer is below a quarter of its limit."""
        super().resume_writing()
        if self._listener is not None:
            self._listener.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        listener, self._listener = self._listener, None
        super().connection_lost(exc)
        if listener is not None:
            listener.lost()


def protocol_of(scope: MutableMapping[str, Any]) -> ReadyEvents:
    """The protocol behind an ASGI HTTP scope. Raises `TypeError` when uvicorn was not told to use it."""
    protocol = scope.get("extensions", {}).get(READY_EVENTS)
    if not isinstance(protocol, ReadyEvents):
        raise TypeError("uvicorn must run with http=service.transports.ready_events.ReadyEvents")
    return protocol
