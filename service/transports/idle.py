"""Sockets that are full: a client that takes nothing for too long is gone or stuck."""

import asyncio
import time
from collections.abc import Callable

CHECKS = 4  # looks per time-out: how exactly a socket that drains nothing is noticed


class IdleWatch:
    """Looks at a socket while it is full. `buffered` is how many bytes it holds; `expired` is called when it has taken
    none of them for `timeout_s`.
    """

    def __init__(self, timeout_s: float, buffered: Callable[[], int], expired: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._buffered = buffered
        self._expired = expired
        self._least = 0
        self._moved_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The socket is full."""
        self._least, self._moved_at = self._buffered(), time.monotonic()
        self._look_later()

    def end(self) -> None:
        """It has room again, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self.end()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s / CHECKS, self._look)

    def _look(self) -> None:
        now, buffered = time.monotonic(), self._buffered()
        if buffered < self._least:
            self._least, self._moved_at = buffered, now
        if now - self._moved_at >= self._timeout_s:
            self._timer = None
            self._expired()
        else:
            self._look_later()
