"""Sockets that ask for nothing: bounded in number and in time, so that they cannot keep out who has something to say.

A socket waits here from its opening until its first request is whole (TLS handshake, request line, headers), and again
from each answer to the next request. It costs a file descriptor and some kilobytes, and nobody knows whose it is. Of
too many the one that has been here longest goes: an honest client says what it wants within a round trip, and is gone
from here long before. When everybody comes back at once, after a restart, many honest ones are here for a moment: so
none is cut in the first half of its time, unless there is a crowd of them (`crowd`).
"""

import asyncio
from typing import Protocol

YOUNG = 0.5  # of its time: two thousand handshakes that begin at once take seconds


class Waiting(Protocol):
    """A socket that may have to go."""

    def cut(self) -> None:
        """Ends it at once. It is not here any more."""

    def is_moving(self) -> bool:
        """Whether it has taken something of what was written to it since this was asked last: then it may stay."""


class Silent:
    """Those of one node. `most`: how many there may be, `crowd`: for a moment. `seconds`: how long each may take."""

    def __init__(self, most: int, seconds: float, crowd: int) -> None:
        self.most = most
        self.crowd = max(most, crowd)
        self.seconds = seconds
        self._deadlines: dict[Waiting, float] = {}  # all have the same time, so the first is always the next one due
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def enter(self, socket: Waiting) -> None:
        """It has nothing to say now; its time begins. Of too many the oldest are cut."""
        loop = asyncio.get_running_loop()
        self._deadlines.pop(socket, None)
        self._deadlines[socket] = loop.time() + self.seconds
        while len(self._deadlines) > self.most:
            oldest, deadline = next(iter(self._deadlines.items()))
            is_young = deadline - loop.time() > self.seconds * (1 - YOUNG)
            if is_young and len(self._deadlines) <= self.crowd:
                break
            self.leave(oldest)
            oldest.cut()
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look)

    def leave(self, socket: Waiting) -> None:
        """It has said what it wants, or is gone."""
        self._deadlines.pop(socket, None)

    def close(self) -> None:
        """The node ends: so do they."""
        for socket in list(self._deadlines):
            self.leave(socket)
            socket.cut()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [socket for socket, deadline in self._deadlines.items() if deadline <= now]
        for socket in due:
            self.leave(socket)
            if socket.is_moving():
                self.enter(socket)
            else:
                socket.cut()
        first = next(iter(self._deadlines.values()), None)
        self._timer = None if first is None else loop.call_at(first, self._look)
