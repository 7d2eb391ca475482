"""How long to wait before the next try: longer each time, and never in step with everybody else."""

from collections.abc import Callable

FIRST_S = 0.2
MOST_S = 10.0


class Backoff:
    """Exponential back-off with full jitter. `jitter` gives numbers from 0 up to 1, evenly."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._tries = 0

    def pause(self, at_least: float | None = None) -> float:
        """Seconds to wait now; `at_least` is what the server asked for, where it did."""
        longest = min(MOST_S, FIRST_S * 2.0 ** min(self._tries, 10))
        self._tries += 1
        return max(self._jitter() * longest, min(at_least or 0.0, MOST_S))

    def reset(self) -> None:
        """It went well: the next pause is a short one again."""
        self._tries = 0
