"""What a node counts: plain ints and lists, raised where it happens.

Where something happens a thousand times in a turn of the loop, the caller counts in a local variable, or by length, and
adds once. Names and labels are put to the numbers when somebody asks (`counted`).
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeAlias

from service.core.entries import GapKind
from service.metrics.snapshot import Buckets
from service.metrics.table import METRICS, DoubtKind, RateLimit

Values: TypeAlias = dict[str, dict[str, float]]  # metric → label values, joined with commas → number


class Histogram:
    """How often something was within each of some bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """`value` was observed, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> Buckets:
        """The numbers so far, as a copy."""
        return Buckets(self.counts.copy(), self.sum)


def _of(metric: str) -> Histogram:
    return Histogram(METRICS[metric].bounds)


def _zeros(metric: str) -> dict[str, int]:
    """A count for each value of the metric's one label."""
    [values] = METRICS[metric].labels.values()
    return dict.fromkeys(values, 0)


class StoreCalls:
    """The calls that one process makes to the store."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}  # function, outcome
        self.durations: dict[str, Histogram] = {}

    def count(self, function: str, outcome: str, seconds: float) -> None:
        """A call is over. `outcome`: a value of the label, see `table.py`."""
        key = function, outcome
        self.counts[key] = self.counts.get(key, 0) + 1
        durations = self.durations.get(function)
        if durations is None:
            durations = self.durations[function] = _of("waypost_store_call_seconds")
        durations.observe(seconds)


class Numbers:
    """All that a node counts, but for its calls to the store."""

    def __init__(self) -> None:
        self.pushed = 0  # entries written to live connections
        self.paged = 0  # entries written to connections from pages
        self.caught_up_connections = 0
        self.caught_up_streams = 0
        self.store_doubts = 0
        self.epoch_changes = 0
        self.sends = _zeros("waypost_sends_total")
        self.gaps = _zeros("waypost_gaps_total")
        self.gap_entries = _zeros("waypost_gap_entries_total")
        self.mailbox_doubts = _zeros("waypost_mailbox_doubts_total")
        self.errors = _zeros("waypost_errors_total")
        self.closes = _zeros("waypost_closes_total")
        self.rate_limited = _zeros("waypost_rate_limited_total")
        self.connections = _zeros("waypost_connections")
        self.stored_s = _of("waypost_send_stored_seconds")
        self.written_s = _of("waypost_delivery_written_seconds")
        self.batches = _of("waypost_publish_batch_messages")

    # What happens seldom has a method. What happens for every message or entry is counted by whoever does it.

    def refused_send(self, code: str) -> None:
        """A message was not stored, for this reason."""
        self.sends[code if code in self.sends else "other"] += 1

    def gap(self, kind: GapKind, missed: int | None) -> None:
        """A gap was written to a connection."""
        self.gaps[kind] += 1
        self.gap_entries[kind] += missed or 0

    def doubt(self, kind: DoubtKind) -> None:
        """The mailbox is not believed any more."""
        self.mailbox_doubts[kind] += 1

    def error(self, code: str) -> None:
        """A client was told an error of the table."""
        self.errors[code] += 1

    def closed(self, code: int | None) -> None:
        """A connection has ended with this close code. None: by its client."""
        spelt = "client" if code is None else str(code)
        if spelt in self.closes:
            self.closes[spelt] += 1

    def too_fast(self, limit: RateLimit) -> None:
        """Something came faster than a limit allows."""
        self.rate_limited[limit] += 1

    def counted(self, calls: StoreCalls) -> tuple[Values, dict[str, dict[str, Buckets]]]:
        """All of it by the names of the metrics, copied: values, and histograms."""
        labelled: dict[str, Mapping[str, float]] = {
            "waypost_sends_total": self.sends,
            "waypost_deliveries_total": {"live": self.pushed, "paged": self.paged},
            "waypost_replays_total": {"connection": self.caught_up_connections, "stream": self.caught_up_streams},
            "waypost_gaps_total": self.gaps,
            "waypost_gap_entries_total": self.gap_entries,
            "waypost_connections": self.connections,
            "waypost_mailbox_doubts_total": self.mailbox_doubts,
            "waypost_store_doubts_total": {"": self.store_doubts},
            "waypost_epoch_changes_total": {"": self.epoch_changes},
            "waypost_store_calls_total": {",".join(key): count for key, count in calls.counts.items()},
            "waypost_errors_total": self.errors,
            "waypost_closes_total": self.closes,
            "waypost_rate_limited_total": self.rate_limited,
        }
        histograms = {
            "waypost_send_stored_seconds": {"": self.stored_s.buckets()},
            "waypost_delivery_written_seconds": {"": self.written_s.buckets()},
            "waypost_publish_batch_messages": {"": self.batches.buckets()},
            "waypost_store_call_seconds": {name: one.buckets() for name, one in calls.durations.items()},
        }
        return {name: dict(samples) for name, samples in labelled.items()}, histograms
