"""What the figures are to come to. A goal that is missed is said; only what is lost or doubled fails a run."""

import msgspec


class Goal(msgspec.Struct, frozen=True):
    """A figure of Waypost in a case of a scenario: `at_most`, or `at_least`, that of `than`; absolute without it."""

    scenario: str
    case: str
    figure: str
    than: str = ""
    at_most: float | None = None
    at_least: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether this is good enough."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


GOALS = (
    Goal("fan-out", "w 1", "us", "floor", at_most=1.3),
    Goal("fan-out", "w 4", "us", "floor", at_most=0.65),
    Goal("fan-out", "w 1", "p99_ms", "socket.io", at_most=1.0),
    Goal("direct", "w 1", "us", "socket.io", at_most=1.0),
    Goal("direct", "w 32", "us", "socket.io", at_most=0.8),
    Goal("direct", "w 1", "p99_ms", "socket.io", at_most=1.0),
    Goal("direct-2", "w 1", "us", "socket.io", at_most=1.0),
    Goal("direct-2", "w 32", "us", "socket.io", at_most=0.8),
    Goal("direct-2", "w 1", "p99_ms", "socket.io", at_most=1.0),
    Goal("replay", "streams shared", "per_s", "plain loop", at_least=0.5),
    Goal("replay", "streams of its own", "per_s", "plain loop", at_least=0.5),
    Goal("idle", "", "kib", at_most=40),
    *(
        Goal("growth", f"{what}, {size} entries", "times", at_most=1.15)
        for what in ("publish", "replay", "history")
        for size in ("100,000", "1,000,000")
    ),
    Goal("growth", "publish, 100,000 streams", "times", at_most=2.0),
    Goal("bytes", "inbox with 1 entry", "bytes", at_most=1600),
    Goal("bytes", "user with a device and a message", "bytes", at_most=2500),
)
