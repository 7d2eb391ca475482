"""TLS for the sockets of a node: the handshake is part of the time, and of the number, that silent sockets have.

The loop's own listener gives each handshake a minute, tells nobody how many there are, and lets nobody end one.
"""

import asyncio
import socket
from collections.abc import Callable

from service.log import Log
from service.transports.bounded_http import BoundedHttp, Door

log = Log("tls")

BACKLOG = 2048  # as uvicorn has it
ACCEPTS_AT_ONCE = 100  # between them the loop does something else
PAUSE_S = 1.0  # after a refusal of the system, which mostly has no descriptor left


class TlsListener:
    """What listens on one socket, and closes it in the end. To uvicorn it looks like a server of asyncio's."""

    def __init__(self, listening: socket.socket, door: Door, make_http: Callable[[], BoundedHttp]) -> None:
        self.sockets = (listening,)
        self._listening = listening
        self._door = door
        self._make_http = make_http
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Takes no more connections. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listening)
            self._listening.close()

    async def wait_closed(self) -> None:
        """Returns when no handshake is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("not_accepted", error=str(error), delay_s=PAUSE_S)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(PAUSE_S, self._go_on)
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._shake_hands(accepted), name="handshake")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _go_on(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening, self._accept)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        handshake = _Handshake(accepted)
        self._door.silent.enter(handshake)
        try:
            await self._loop.connect_accepted_socket(
                self._make_http, accepted, ssl=self._door.tls, ssl_handshake_timeout=self._door.silent.seconds
            )
        except (OSError, EOFError):  # an SSLError and a TimeoutError are of the first: anybody can make it fail
            accepted.close()
        finally:
            self._door.silent.leave(handshake)


class _Handshake:
    """A socket that nobody can speak on yet."""

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    def cut(self) -> None:
        """See `silent.Waiting`."""
        try:
            self._accepted.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone

    def is_moving(self) -> bool:
        """See `silent.Waiting`: a handshake has no second term."""
        return False
