"""How fast one client and one user may go on this node. What one user sends on all nodes together the store counts."""

import time
from typing import Literal

from service.config import Limits
from service.core.bucket import Bucket
from service.errors import WaypostError
from service.metrics import Numbers

Kind = Literal["joins", "histories", "requests"]

# Who comes back for each single token opens a session for each: that costs more than what is limited.
RETRY_AFTER_LEAST_S = 1.0
SWEEP_AT_LEAST = 1000  # buckets; fewer are not worth looking through


class Rates:
    """The buckets of a node: one for each user and kind of request, made when needed and forgotten when full again."""

    def __init__(self, limits: Limits, numbers: Numbers) -> None:
        self._numbers = numbers
        self._sends = limits.connection_sends_per_s, limits.connection_sends_burst
        self._of: dict[Kind, tuple[float, int]] = {
            "joins": (limits.user_joins_per_s, limits.user_joins_burst),
            "histories": (limits.user_histories_per_s, limits.user_histories_burst),
            "requests": (limits.user_requests_per_s, limits.user_requests_burst),
        }
        self._buckets: dict[tuple[Kind, str], Bucket] = {}
        self._sweep_at = SWEEP_AT_LEAST

    def for_sends(self) -> Bucket | None:
        """A bucket for what a new connection sends, None where that is not limited."""
        rate, burst = self._sends
        return Bucket(rate, burst, time.monotonic()) if rate else None

    def count(self, kind: Kind, user: str) -> None:
        """One more request of `user`. Raises `rate_limited`, with how long to wait, and then does not count it."""
        rate, burst = self._of[kind]
        if not rate:
            return
        now = time.monotonic()
        bucket = self._buckets.get((kind, user))
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._sweep(now)
            bucket = self._buckets[kind, user] = Bucket(rate, burst, now)
        wait_s = bucket.take(now)
        if wait_s:
            self._numbers.too_fast(kind)
            raise too_fast(kind, wait_s)

    def give_back(self, kind: Kind, user: str) -> None:
        """A request of `user` that was counted has changed nothing, and cost little."""
        bucket = self._buckets.get((kind, user))
        if bucket is not None:
            bucket.give_back()

    def _sweep(self, now: float) -> None:
        self._buckets = {whose: bucket for whose, bucket in self._buckets.items() if not bucket.is_full(now)}
        self._sweep_at = max(SWEEP_AT_LEAST, 2 * len(self._buckets))


def too_fast(what: str, wait_s: float) -> WaypostError:
    """The refusal of what comes too fast; `wait_s`: when the next one would be taken."""
    return WaypostError("rate_limited", f"too many {what}", retry_after=round(max(wait_s, RETRY_AFTER_LEAST_S), 3))
