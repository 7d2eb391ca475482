"""Keeping messages in flight, and counting what comes: every number to every receiver once, in order.

A sender has `window` messages in flight: the next one goes when one of them has been delivered to everybody it is for
(and, where the system answers sends, answered).
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence

from tests.bench.clients import Client
from tests.bench.sample import Sample
from tests.bench.systems import System, cpu_s

QUIET_S = 5.0  # without anything coming: what is still missing then is lost
LOOK_S = 0.03  # between two looks whether everything has come
ACK_S = 1.0  # how often a client acknowledges


class Channel:
    """One sender and those it writes to."""

    __slots__ = ("missing", "next", "open_answers", "receivers", "remaining", "sender", "sent_at", "to", "wanted")

    def __init__(self, to: str, sender: Client, receivers: Sequence[Client]) -> None:
        self.to = to
        self.sender = sender
        self.receivers = receivers
        self.next = 1
        self.wanted = dict.fromkeys(receivers, 1)  # the number that has to come to each next
        self.missing: dict[Client, set[int]] = {}  # what was passed over
        self.remaining: dict[int, int] = {}  # of each number in flight: how many it has not come to
        self.sent_at: dict[int, float] = {}
        self.open_answers = 0

    def lost(self) -> int:
        """How many deliveries of what was sent have not come."""
        behind = sum(self.next - wanted for wanted in self.wanted.values())
        return behind + sum(len(numbers) for numbers in self.missing.values())


class Meter:
    """Keeps `window` messages in flight on every channel: `flows` has, for each name written to, who writes and who
    has to hear it.
    """

    def __init__(
        self,
        system: System,
        clients: Sequence[Client],
        flows: dict[str, tuple[Client, Sequence[Client]]],
        window: int,
    ) -> None:
        self._system = system
        self._clients = clients
        self._window = window
        self._is_sending = True
        self._took: list[float] = []  # seconds from sending to the last receiver
        self._deliveries = 0
        self._doubled = 0
        self._unordered = 0
        self._channels: list[Channel] = []
        self._by_client: dict[Client, Channel] = {}
        self._problems = {client: len(client.problems) for client in clients}  # those that are not of this flow
        for to, (sender, receivers) in flows.items():
            channel = Channel(to, sender, receivers)
            self._channels.append(channel)
            for client in (sender, *receivers):
                self._by_client[client] = channel
                client.heard = self._heard
                client.answered = self._answered

    async def measure(self, seconds: float, *, warm_s: float, quiet_s: float = QUIET_S) -> Sample:
        """The flow for so long, after a warm-up, and until everything has come. Does not raise for what is strange."""
        acknowledging = asyncio.create_task(self._acknowledge())
        for channel in self._channels:
            for _ in range(self._window):
                self._send(channel)
        await asyncio.sleep(warm_s)
        self._took.clear()
        server, redis = cpu_s(self._system.server_pids), cpu_s(self._system.redis_pids)
        deliveries, began = self._deliveries, time.perf_counter()
        await asyncio.sleep(seconds)
        server = cpu_s(self._system.server_pids) - server
        redis = cpu_s(self._system.redis_pids) - redis
        deliveries, took_s = self._deliveries - deliveries, time.perf_counter() - began
        took = list(self._took)
        self._is_sending = False
        await self._drain(quiet_s)
        acknowledging.cancel()
        cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
        each = 1e6 / max(1, deliveries)
        return Sample(
            {
                "server_us": server * each,
                "redis_us": redis * each,
                "us": (server + redis) * each,
                "per_s": deliveries / took_s,
                "p50_ms": cuts[49] * 1e3,
                "p99_ms": cuts[98] * 1e3,
            },
            lost=sum(channel.lost() for channel in self._channels),
            doubled=self._doubled,
            unordered=self._unordered,
            problems=[problem for client in self._clients for problem in client.problems[self._problems[client] :]],
        )

    async def _drain(self, quiet_s: float) -> None:
        """Until everything has come, and every send is answered; or until nothing has come for so long."""
        seen, since = self._deliveries, time.monotonic()
        while any(channel.remaining or (channel.sender.ANSWERS and channel.open_answers) for channel in self._channels):
            await asyncio.sleep(LOOK_S)
            if self._deliveries != seen:
                seen, since = self._deliveries, time.monotonic()
            elif time.monotonic() - since > quiet_s:
                return
        await asyncio.sleep(LOOK_S)  # what comes twice may come a moment later

    def _send(self, channel: Channel) -> None:
        number = channel.next
        channel.next += 1
        channel.remaining[number] = len(channel.receivers)
        channel.sent_at[number] = time.perf_counter()
        channel.open_answers += 1
        channel.sender.send(channel.to, number)

    def _heard(self, client: Client, number: int) -> None:
        channel = self._by_client[client]
        wanted = channel.wanted.get(client)
        if wanted is None:
            return  # one's own message: whoever is behind sees it in its pages, beside `sent`
        self._deliveries += 1
        if number != wanted and not self._is_strange(channel, client, number, wanted):
            return
        channel.wanted[client] = max(wanted, number + 1)
        left = channel.remaining[number] - 1
        if left:
            channel.remaining[number] = left
            return
        del channel.remaining[number]
        self._took.append(time.perf_counter() - channel.sent_at.pop(number))
        self._go_on(channel)

    def _is_strange(self, channel: Channel, client: Client, number: int, wanted: int) -> bool:
        """Not the number that was to come next. Returns whether it is one that still had to come."""
        if number >= channel.next:
            client.complain(f"heard {number}, which nobody has sent yet")
            return False
        missing = channel.missing.setdefault(client, set())
        if number > wanted:  # what is passed over here is lost, unless it comes later
            missing.update(range(wanted, number))
        elif number in missing:
            missing.remove(number)
            self._unordered += 1
        else:
            self._doubled += 1
            return False
        return True

    def _answered(self, client: Client) -> None:
        channel = self._by_client[client]
        channel.open_answers -= 1
        self._go_on(channel)

    def _go_on(self, channel: Channel) -> None:
        in_flight = len(channel.remaining)
        if channel.sender.ANSWERS:
            in_flight = max(in_flight, channel.open_answers)
        if self._is_sending:
            for _ in range(self._window - in_flight):
                self._send(channel)

    async def _acknowledge(self) -> None:
        """Every client once in `ACK_S`, spread over the time."""
        slices = 20
        for turn in itertools.count():
            await asyncio.sleep(ACK_S / slices)
            for client in self._clients[turn % slices :: slices]:
                client.acknowledge()


def order_of(numbers: Iterable[int], first: int, last: int) -> tuple[int, int, int]:
    """What came of the numbers from `first` to `last`: how many are lost, doubled, and out of order."""
    seen: set[int] = set()
    doubled = unordered = highest = 0
    for number in numbers:
        if number in seen:
            doubled += 1
        elif number < highest:
            unordered += 1
        seen.add(number)
        highest = max(highest, number)
    return len(set(range(first, last + 1)) - seen), doubled, unordered
