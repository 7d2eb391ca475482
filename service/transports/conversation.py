"""What every transport over a WebSocket does alike: time limits, pings, and telling the connection how its socket is.

The protocols differ in how they spell (`decode`, the codec) and in what a pong means (`ponged`); see `websocket.py`
and `chat.py`.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from starlette.websockets import WebSocket

from service.config import Settings
from service.core.frames import ClientFrame, Malformed
from service.core.session import Life
from service.errors import CLOSE_TRY_AGAIN, ERRORS, WaypostError
from service.log import Log, bind
from service.metrics import Numbers
from service.node.connection import CLOSE_LOST, Connection
from service.transports.idle import IdleWatch
from service.transports.ready_frames import ReadyFrames, protocol_of

log = Log("transports")


class Conversation(ABC):
    """One accepted WebSocket, as a `Listener` of its protocol object. Made by `accept`."""

    def __init__(self, protocol: ReadyFrames, settings: Settings) -> None:
        self.protocol = protocol
        self.settings = settings
        self.connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._heard_at = time.monotonic()
        self._idle = IdleWatch(settings.idle_close_s, lambda: protocol.buffered_bytes, self._is_slow)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @abstractmethod
    def decode(self, data: bytes) -> list[ClientFrame | Malformed]:
        """The frames that a message of this protocol stands for."""

    # -- life ----------------------------------------------------------------------------------------------------------

    async def hold(self, connection: Connection, begin: Callable[[], None] = lambda: None) -> None:
        """Serves the connection until it ends; `begin` is called once it can be written to."""
        self.connection = connection
        bind(**connection.who())
        self._timers["hello"] = self._loop.call_later(self.settings.hello_timeout_s, self._check_hello)
        self._timers["ping"] = self._loop.call_later(self.settings.ping_s, self._ping)
        try:
            self.protocol.listen(self, self.settings.limits.write_buffer_bytes)
            begin()
            await self.protocol.closed()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._idle.end()
            connection.closed(self.protocol.ended_with)

    # -- what the socket tells -----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """A message has arrived, whole."""
        self._heard_at = time.monotonic()
        connection = self.connection
        if connection is None or connection.is_closed:
            return
        try:
            if len(data) > self.settings.limits.frame_bytes:
                connection.end("too_large")
            else:
                connection.receive(self.decode(data))
        except Exception as error:  # noqa: BLE001 - a bug: this connection ends, the others go on
            log.error("frame_failed", traceback=error, **connection.who())
            connection.break_off()

    def ponged(self, payload: bytes) -> None:
        """A pong has arrived."""
        self._heard_at = time.monotonic()

    def paused(self) -> None:
        """The socket's buffer is full."""
        self._idle.begin()
        if self.connection is not None:
            self.connection.paused()

    def drained(self) -> None:
        """The socket's buffer has room again."""
        self._idle.end()
        self._heard_at = time.monotonic()
        if self.connection is not None:
            self.connection.drained()

    def lost(self) -> None:
        """The socket is gone."""
        if self.connection is not None:
            self.connection.closed(self.protocol.ended_with)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _check_hello(self) -> None:
        connection = self.connection
        if connection is not None and connection.session.life in (Life.NEW, Life.COLLECTING):
            connection.end("hello_timeout")

    def _ping(self) -> None:
        """The server pings this often; who says nothing for two periods is gone."""
        connection = self.connection
        assert connection is not None
        may_speak = connection.is_reading and not connection.is_paused
        if may_speak and time.monotonic() - self._heard_at > 2 * self.settings.ping_s:
            connection.closed(CLOSE_LOST, "silent")
            self.protocol.transport.abort()
            return
        if not connection.is_paused:
            self.protocol.ping(b"")
        self._timers["ping"] = self._loop.call_later(self.settings.ping_s, self._ping)

    def _is_slow(self) -> None:
        """A full socket has drained nothing for `idle_close_s`: 4001; the client resumes when it comes back."""
        if self.connection is not None:
            self.connection.end("slow")


async def refuse(websocket: WebSocket, text: bytes, problem: WaypostError) -> None:
    """Who may not in: browsers see no HTTP status, so the refusal is said in a frame and a close code."""
    protocol = protocol_of(websocket.scope)
    close_code = ERRORS[problem.code].close or (CLOSE_TRY_AGAIN if problem.retry else 4105)
    numbers: Numbers = websocket.app.state.node.numbers
    numbers.error(problem.code)
    numbers.closed(close_code)
    if not protocol.close_sent:  # the node ends, and has said so
        protocol.transport.write(text)
    log.debug("connection_refused", code=problem.code, close_code=close_code)
    protocol.close(close_code, problem.code)
    await protocol.closed()
