"""The uvicorn HTTP protocol that nodes use: h11, with a bound on everything that comes before a request is whole.

A head (request line and headers) has `head_timeout_s` and `head_bytes`; sockets without one are few (`silent.py`). What
is no HTTP is answered like any other refusal, and logged by nobody: who sends it would fill the disk.
"""

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from service.metrics import Numbers
from service.transports.ready_frames import ReadyFrames
from service.transports.refusals import answer_and_end, refusal
from service.transports.silent import Silent

HEADERS_MAX = 100  # browsers send about 20, proxies add a few; websockets takes 128
# websockets reads no longer lines, their ends counted. The largest token fits a header of HTTP, not one of an upgrade.
UPGRADE_LINE_BYTES_MAX = 8190

_quiet = logging.getLogger("uvicorn.error.clients")
_quiet.setLevel(logging.ERROR)  # what clients do wrong is at most a warning there


class Door(msgspec.Struct, frozen=True):
    """What all sockets of a node share: those that ask for nothing, those that take no answer, and the limit of a head.

    `tls` is None where it speaks plain HTTP. `numbers` counts what is refused here.
    """

    silent: Silent
    stuck: Silent
    head_bytes: int
    tls: ssl.SSLContext | None
    numbers: Numbers


class _Bounded(h11.Connection):
    """h11 bounds a head only while it is not whole: one that comes in a single read may be as long as the read."""

    def __init__(self, head_bytes: int, on_request: Callable[[], None]) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self._head_bytes = head_bytes
        self._on_request = on_request

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's, and raises its error for a head above the limits."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = (
                len(event.method) + len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            )
            if size > self._head_bytes or len(event.headers) > HEADERS_MAX:
                raise h11.RemoteProtocolError("head too large", error_status_hint=431)
            self._on_request()
        return event


class BoundedHttp(H11Protocol):
    """One socket, while it speaks HTTP. `door` comes beside what uvicorn gives."""

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self.door = door
        self._unsent = 0
        self._is_refused = False
        self.conn = _Bounded(door.head_bytes, lambda: door.silent.leave(self))
        self.logger = _quiet

    # -- as one of the silent ------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """See `Waiting`."""
        self.transport.abort()

    def is_moving(self) -> bool:
        """See `Waiting`: a large answer may be on its way to a slow phone."""
        before, self._unsent = self._unsent, self._written()
        return 0 < self._unsent < before

    def _written(self) -> int:
        """What has been written and is not on its way yet."""
        try:
            return self.transport.get_write_buffer_size()
        except RuntimeError:  # uvloop's, for a socket that is gone
            return 0

    # -- what uvicorn's protocol is told -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A socket is open, and its TLS handshake done."""
        super().connection_made(transport)
        self.door.silent.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.door.silent.leave(self)
        self.door.stuck.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless it has heard that nothing more is wanted."""
        if not self._is_refused:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """The answer is written, and the next request is waited for; also what takes the last answer too slowly is."""
        if self in self.connections:
            self._unsent = self._written()
            self.door.silent.enter(self)
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the socket over to the WebSocket protocol, if that can read what was asked."""
        if any(len(name) + len(value) + 2 > UPGRADE_LINE_BYTES_MAX for name, value in self.headers):
            self._refuse("head_too_large", f"a header of an upgrade may have {UPGRADE_LINE_BYTES_MAX} bytes")
        elif len(event.target) + 13 > UPGRADE_LINE_BYTES_MAX:
            self._refuse("head_too_large", f"the address of an upgrade may have {UPGRADE_LINE_BYTES_MAX - 13} bytes")
        elif event.method != b"GET" or event.http_version != b"1.1":
            self._refuse("bad_http", "an upgrade is a GET of HTTP/1.1")
        else:
            super().handle_websocket_upgrade(event)
            upgraded = self.transport.get_protocol()
            if isinstance(upgraded, ReadyFrames) and not upgraded.handshake_initiated:
                self.transport.set_protocol(self)
                self.connections.discard(upgraded)
                self.connections.add(self)
                self._refuse("bad_http", "an upgrade has no body, and its headers are plain text")

    def pause_writing(self) -> None:
        """The client takes its answers more slowly than they come; whether it takes any is looked at from now on."""
        super().pause_writing()
        self._unsent = self._written()
        self.door.stuck.enter(self)

    def resume_writing(self) -> None:
        """It has taken most of them."""
        self.door.stuck.leave(self)
        super().resume_writing()

    def shutdown(self) -> None:
        """The node ends."""
        if self._is_refused:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or too much of it; called where h11's error is at hand."""
        error = sys.exc_info()[1]
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            limits = f"{self.door.head_bytes} bytes and {HEADERS_MAX} headers"
            self._refuse("head_too_large", f"a request may have {limits} with its first line")
        else:
            self._refuse("bad_http", "this is not HTTP/1.1 that can be read")

    def _refuse(self, code: str, detail: str) -> None:
        self.door.silent.leave(self)
        if self._is_refused:
            return
        self._is_refused = True
        self._unset_keepalive_if_required()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()  # in the middle of another answer nothing can be said
            return
        self.door.numbers.error(code)
        answer_and_end(self.transport, refusal(code, detail))
