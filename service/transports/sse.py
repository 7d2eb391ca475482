"""`GET /v1/events`: the wire `waypost.v1` as Server-Sent Events, for who can only listen.

What it says is what it says over a WebSocket, a frame in each event. What a client says there it says here by asking
over HTTP; and by coming back: the `id` of the last event that it got is a bookmark, from which everything goes on.

An `EventSource` of a browser comes back by itself after every end, as it was, unless it is answered with anything else
than 200: then never again. So what passes by itself is told in a stream, to those who say that they take one, and only
what does not pass is a refusal.
"""

import asyncio
import random

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.auth import (
    Principal,
    acting_device,
    acting_user,
    check_may,
    check_origin,
    credentials_of,
    given_once,
    with_cookie,
)
from service.core import frames
from service.core.entries import Entry
from service.core.frames import ServerFrame
from service.core.names import check_name, user_stream
from service.core.paging import Gap
from service.errors import ERRORS, Unavailable, WaypostError
from service.log import Log, bind
from service.node import Node
from service.node.connection import EncodeEntry, gap_frame
from service.node.marked import MarkedConnection, find_return
from service.transports.idle import IdleWatch
from service.transports.ready_events import ReadyEvents, protocol_of

log = Log("events")

CONTENT_TYPE = "text/event-stream"
HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would collect events until they fill a buffer
}
# ms within which a client comes back, by chance: thousands whose node has ended must not come at once.
COMES_BACK_MS = (1000, 3000)
GOODBYE_S = 5.0  # how long a client has to take what was written before the end
LAST = "end."  # before the bookmark of a client that is not to come back as it is
HEARTBEAT = b":\n\n"


def event(frame: bytes) -> bytes:
    """A frame as an event. JSON on one line has no line breaks."""
    return b"data: %b\n\n" % frame


def entry_event(stream: str, entry: Entry) -> bytes:
    """An entry as an event."""
    return event(frames.encode_entry(stream, entry))


def mark(bookmark: str) -> bytes:
    """The line before an event that says where the client stands when it has it."""
    return b"id: %b\n" % bookmark.encode()


def retry(at_least_s: float = 0.0) -> bytes:
    """When to come back."""
    return b"retry: %d\n\n" % (int(at_least_s * 1000) + random.randint(*COMES_BACK_MS))


class EventCodec:
    """JSON objects, one in each event."""

    transport = "events"
    entry: EncodeEntry = staticmethod(entry_event)

    def frame(self, frame: ServerFrame) -> bytes:
        """A frame of the session."""
        return event(frames.encode(frame))

    def gap(self, stream: str, gap: Gap) -> bytes:
        """An announced gap."""
        return event(frames.encode(gap_frame(stream, gap)))


EVENTS = EventCodec()


class EventStream(Response):
    """A response that is a connection of the node: its `Socket`, and the `Listener` of what it is written to."""

    def __init__(self, protocol: ReadyEvents, node: Node) -> None:
        super().__init__(None, 200, HEADERS, CONTENT_TYPE)
        del self.headers["content-length"]
        self.connection: MarkedConnection | None = None
        self.closed_by: tuple[int, str] | None = None
        self._protocol = protocol
        self._settings = node.settings
        self._early: list[bytes] | None = [retry()]  # what is written before the response has begun
        self._news = asyncio.Event()  # the node has said something
        self._over = asyncio.Event()
        self._is_lost = False
        self._idle = IdleWatch(self._settings.idle_close_s, lambda: protocol.buffered_bytes, self._is_slow)
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, connection: MarkedConnection, hello: frames.Hello) -> None:
        """Opens the session. Raises why it was not opened."""
        self.connection = connection
        bind(**connection.who())
        settings = self._settings
        self._protocol.listen(self, settings.limits.write_buffer_bytes, settings.idle_close_s)
        try:
            connection.receive([hello])
            await self._news.wait()
            self._check_is_open(connection)
        except BaseException:
            self._end()
            raise

    def _check_is_open(self, connection: MarkedConnection) -> None:
        if self.closed_by is not None and not connection.session.streams:
            _, code = self.closed_by
            raise WaypostError(code) if code in ERRORS else Unavailable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the connection until it ends."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            early, self._early = self._early or [], None
            self._part(b"".join(early))
            self._heartbeat_later()
            await self._over.wait()
        finally:
            self._end()
        if not self._is_lost:
            try:
                async with asyncio.timeout(GOODBYE_S):  # uvicorn waits while the socket is full
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                self._protocol.abort()

    def _end(self) -> None:
        self._idle.end()
        if self._timer is not None:
            self._timer.cancel()
        self._protocol.stop_listening()
        if self.connection is not None:
            self.connection.closed()

    # -- the socket, as the connection sees it -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Events, at once."""
        self._news.set()
        if self._early is not None:
            self._early.append(data)
        else:
            self._part(data)

    def _part(self, data: bytes) -> None:
        if not self._is_lost:
            self._protocol.write_part(data)

    @property
    def buffered_bytes(self) -> int:
        """What has been written and is not on its way yet."""
        return self._protocol.buffered_bytes

    def pause_reading(self) -> None:
        """Nothing is ever read."""

    def resume_reading(self) -> None:
        """The same."""

    def close(self, code: int, reason: str) -> None:
        """Ends the response after what has been written, and says to the client when to come back, or that it is not
        to. Whose sign-in holds no more may have another when it comes, so it is asked then.
        """
        if self.closed_by is None:
            self.closed_by = code, reason
            assert self.connection is not None
            is_for_good = 4100 <= code < 4200 and ERRORS[reason].http != 401
            self.write(mark(LAST + self.connection.bookmark.text()) + b"\n" if is_for_good else retry())
            self._over.set()

    # -- what the socket tells -----------------------------------------------------------------------------------------

    def paused(self) -> None:
        """The socket's buffer is full."""
        self._idle.begin()
        if self.connection is not None:
            self.connection.paused()

    def drained(self) -> None:
        """The socket's buffer has room again."""
        self._idle.end()
        if self.connection is not None:
            self.connection.drained()

    def lost(self) -> None:
        """The socket is gone."""
        self._is_lost = True
        self._over.set()
        self._news.set()
        if self.connection is not None:
            self.connection.closed()

    def _is_slow(self) -> None:
        if self.connection is not None:
            self.connection.end("slow")

    # -- time ----------------------------------------------------------------------------------------------------------

    def _heartbeat_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._settings.ping_s, self._heartbeat)

    def _heartbeat(self) -> None:
        """A comment: nobody between may take the connection for dead, and the system notices when it is."""
        connection = self.connection
        if connection is None or connection.is_closed:
            return
        if not connection.is_paused:
            self._part(HEARTBEAT)
        connection.keep_base_alive()
        self._heartbeat_later()


class Passing(Response):
    """A stream that says why there is none now, and when to come back."""

    def __init__(self, problem: WaypostError) -> None:
        told = EVENTS.frame(frames.error_frame(problem))
        super().__init__(retry(problem.retry_after or 0.0) + told, 200, HEADERS, CONTENT_TYPE)


# -- the route ---------------------------------------------------------------------------------------------------------


async def events(request: Request) -> Response:
    """`GET /v1/events`: one client, until its connection ends. Raises why it may not."""
    try:
        return await _serve(request)
    except WaypostError as problem:
        if not (problem.retry and _takes_events(request)):
            raise
        request.app.state.node.numbers.error(problem.code)
        if problem.code != "draining":
            log.warning("request_refused", code=problem.code, status=ERRORS[problem.code].http)
        return Passing(problem)


async def _serve(request: Request) -> Response:
    node: Node = request.app.state.node
    principal = await _meet(request, node)
    device = _device(request, principal)
    bookmark = request.headers.get("last-event-id") or ""
    if bookmark.startswith(LAST):
        return Response(None, 204, HEADERS)
    bookmark = (bookmark or given_once(request, "last_event_id") or "").removeprefix(LAST)
    if request.method == "HEAD":
        return Response(None, 200, HEADERS, CONTENT_TYPE)
    stream = EventStream(protocol_of(request.scope), node)
    connection = node.connect(stream, EVENTS, principal, mark=mark)
    assert isinstance(connection, MarkedConnection)
    try:
        if bookmark:
            connection.returned = await find_return(node, principal.user, device, bookmark)
    except BaseException:
        connection.closed()
        raise
    offsets = {name: str(offset) for name, offset in connection.returned.offsets.items()}
    await stream.open(connection, frames.Hello(device, offsets, epoch=connection.returned.epoch))
    return stream


async def _meet(request: Request, node: Node) -> Principal:
    """Who it is. That they connect counts as a request."""
    check_origin(request, node.settings)
    with node.sign_ins.stranger():
        principal = await node.sign_ins.door.by(with_cookie(request, credentials_of(request)))
    if principal is None:
        raise WaypostError("unauthorised", "no sign-in was given")
    check_may(principal, "read", user_stream(acting_user(principal)))
    return principal


def _device(request: Request, principal: Principal) -> str:
    named = given_once(request, "device") or principal.device or frames.DEVICE_DEFAULT
    return acting_device(principal, check_name(named))


def _takes_events(request: Request) -> bool:
    return CONTENT_TYPE in request.headers.get("accept", "")
