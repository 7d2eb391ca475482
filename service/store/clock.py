"""What the server's clock says, as far as this process can know, for calls that must not be carried out late.

A call that was given up may lie in a buffer, of a proxy or of a server that stands still, and be carried out seconds
later. Joining and leaving are told in which span of the server's time they are meant, and are refused outside of it.
"""

import time
from collections import deque

from service.errors import Unavailable

# By how much this machine's clock may run ahead of the server's from one look to the next. A server's clock that is
# further behind was set back, and then nobody can say how late a call is.
DRIFT_MS = 250
# Answers by which `now_ms` goes, of a minute: each is late by its own way here, and the least late is the best.
ANSWERS_KEPT = 12


class Clock:
    """The server's time, reckoned from the last one that it told. Never ahead of it, but for drift and a step back."""

    def __init__(self) -> None:
        self._ahead_ms: int | None = None
        self._told: deque[float] = deque(maxlen=ANSWERS_KEPT)
        self._best_ms: float | None = None  # of these

    def told(self, server_ms: int) -> None:
        """The server told its time: that was it before the answer came, so the reckoning is a little behind."""
        self._ahead_ms = server_ms - time.monotonic_ns() // 1_000_000
        ahead_ms = server_ms - time.monotonic_ns() / 1e6
        if self._told and abs(ahead_ms - self._told[-1]) > DRIFT_MS:  # it was set, or is another server's
            self._told.clear()
        self._told.append(ahead_ms)
        self._best_ms = max(self._told)

    def now_ms(self) -> float | None:
        """What the server's clock says now, for measuring: a millisecond or two too little, and in no promise. None
        before the server has told its time.
        """
        return None if self._best_ms is None else time.monotonic() * 1000 + self._best_ms

    def span(self, seconds: float) -> dict[str, int]:
        """From when until when (ms of the server) a call may be carried out that is to be so within `seconds`.

        Whatever the reckoning is behind makes the end earlier, and where the call is not refused it is ahead by
        `DRIFT_MS` at most: so the span is over when `seconds` and that have passed here. Raises `Unavailable` before
        the server has told its time.
        """
        if self._ahead_ms is None:
            raise Unavailable("the store was not reached yet")
        now = time.monotonic_ns() // 1_000_000 + self._ahead_ms
        return {"not_before": now - DRIFT_MS, "not_after": now + int(seconds * 1000)}
