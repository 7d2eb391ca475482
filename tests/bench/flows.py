"""Fan-out and direct messages: how much CPU a delivery takes, how many there are, and how long one takes.

A sender has `window` messages in flight: the next one goes when one of them has been delivered to everybody it is for
(and, where the system answers sends, answered). Every number must come to every receiver once, in order.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from tests.bench.clients import Client
from tests.bench.systems import System, cpu_s

CONNECTING = 50  # connections that are being made at once
WARM_S = 0.5  # of flow before the clocks are read
DRAIN_S = 20.0  # what is still missing then is lost
ACK_S = 1.0  # how often a client acknowledges
_runs = itertools.count(1)


class Flow(msgspec.Struct, frozen=True):
    """What one repetition measured. CPU in µs per delivery, latencies in ms from sending to the last receiver."""

    server_us: float
    redis_us: float
    per_s: float
    p50_ms: float
    p99_ms: float
    deliveries: int
    lost: int
    doubled: int


async def fan_out(system: System, window: int, seconds: float, receivers: int = 1000) -> Flow:
    """One sender, one group, `receivers` members beside it, spread over the nodes."""
    run = next(_runs)
    users = [f"f{run}.{number}" for number in range(receivers + 1)]
    ports = [system.ports[number % len(system.ports)] for number in range(receivers + 1)]
    group = f"g{run}"
    async with connected(system, zip(ports, users, strict=True)) as clients:
        await in_turns([client.join(group) for client in clients])
        sender, *others = clients
        meter = Meter(system, clients, {f"group:{group}": (sender, others)}, window)
        return await meter.measure(seconds)


async def direct(system: System, window: int, seconds: float, pairs: int = 100) -> Flow:
    """`pairs` senders, each to a receiver of its own: on one node, or from the first node to the last."""
    run = next(_runs)
    senders = [f"s{run}.{number}" for number in range(pairs)]
    receivers = [f"r{run}.{number}" for number in range(pairs)]
    wanted = [(system.ports[0], user) for user in senders] + [(system.ports[-1], user) for user in receivers]
    async with connected(system, wanted) as clients:
        flows = {
            f"user:{receiver.user}": (sender, [receiver])
            for sender, receiver in zip(clients[:pairs], clients[pairs:], strict=True)
        }
        meter = Meter(system, clients, flows, window)
        return await meter.measure(seconds)


async def in_turns(work: Sequence[object]) -> list[object]:
    """Awaits all, so many at a time."""
    gate = asyncio.Semaphore(CONNECTING)

    async def one(awaitable: object) -> object:
        async with gate:
            return await awaitable  # type: ignore[misc]

    return await asyncio.gather(*(one(awaitable) for awaitable in work))


@asynccontextmanager
async def connected(system: System, wanted: Iterable[tuple[int, str]]) -> AsyncIterator[list[Client]]:
    """Clients at these ports with these names, closed at the end."""
    clients: list[Client] = await in_turns([system.client.connect(port, user) for port, user in wanted])  # type: ignore[assignment]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
        await asyncio.sleep(0.1)


class _Channel:
    """One sender and those it writes to."""

    __slots__ = ("begun", "expected", "next", "open_answers", "receivers", "remaining", "sender", "sent_at", "to")

    def __init__(self, to: str, sender: Client, receivers: list[Client]) -> None:
        self.to = to
        self.sender = sender
        self.receivers = receivers
        self.next = 1
        self.expected = dict.fromkeys(receivers, 1)
        self.remaining: dict[int, int] = {}
        self.sent_at: dict[int, float] = {}
        self.open_answers = 0


class Meter:
    """Keeps `window` messages in flight on every channel, and counts what comes."""

    def __init__(
        self, system: System, clients: list[Client], flows: dict[str, tuple[Client, list[Client]]], window: int
    ) -> None:
        self._system = system
        self._clients = clients
        self._window = window
        self._is_sending = True
        self._took: list[float] = []
        self._deliveries = 0
        self._doubled = 0
        self._lost = 0
        self._unordered = 0
        self._done = asyncio.Event()
        self._channels = []
        self._by_client: dict[Client, _Channel] = {}
        for to, (sender, receivers) in flows.items():
            channel = _Channel(to, sender, receivers)
            self._channels.append(channel)
            for client in (sender, *receivers):
                self._by_client[client] = channel
                client.heard = self._heard
                client.answered = self._answered

    async def measure(self, seconds: float) -> Flow:
        """The flow for so long, after a warm-up."""
        acknowledging = asyncio.create_task(self._acknowledge())
        for channel in self._channels:
            for _ in range(self._window):
                self._send(channel)
        await asyncio.sleep(WARM_S)
        self._took.clear()
        server, redis = cpu_s(self._system.server_pids), cpu_s(self._system.redis_pids)
        deliveries, began = self._deliveries, time.perf_counter()
        await asyncio.sleep(seconds)
        server = cpu_s(self._system.server_pids) - server
        redis = cpu_s(self._system.redis_pids) - redis
        deliveries, took_s = self._deliveries - deliveries, time.perf_counter() - began
        took = list(self._took)
        self._is_sending = False
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._done.wait()
        except TimeoutError:
            self._lost = sum(sum(channel.remaining.values()) for channel in self._channels)
        acknowledging.cancel()
        cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
        return Flow(
            server_us=server / max(1, deliveries) * 1e6,
            redis_us=redis / max(1, deliveries) * 1e6,
            per_s=deliveries / took_s,
            p50_ms=cuts[49] * 1e3,
            p99_ms=cuts[98] * 1e3,
            deliveries=deliveries,
            lost=self._lost,
            doubled=self._doubled,
        )

    def _send(self, channel: _Channel) -> None:
        number = channel.next
        channel.next += 1
        channel.remaining[number] = len(channel.receivers)
        channel.sent_at[number] = time.perf_counter()
        channel.open_answers += 1
        channel.sender.send(channel.to, number)

    def _heard(self, client: Client, number: int) -> None:
        channel = self._by_client[client]
        self._deliveries += 1
        expected = channel.expected.get(client)
        if number != expected:
            self._strange(channel, client, number)
            return
        channel.expected[client] = number + 1
        left = channel.remaining[number] - 1
        if left:
            channel.remaining[number] = left
            return
        del channel.remaining[number]
        self._took.append(time.perf_counter() - channel.sent_at.pop(number))
        self._go_on(channel)

    def _strange(self, channel: _Channel, client: Client, number: int) -> None:
        """Not the number that comes next: one that came before, or one that was overtaken or lost on the way."""
        expected = channel.expected.get(client, 0)
        if number < expected:
            self._doubled += 1
        else:
            raise RuntimeError(f"{client.user} got {number} and not {expected}: out of order, or lost")

    def _answered(self, client: Client) -> None:
        channel = self._by_client[client]
        channel.open_answers -= 1
        self._go_on(channel)

    def _go_on(self, channel: _Channel) -> None:
        in_flight = len(channel.remaining)
        if channel.sender.ANSWERS:
            in_flight = max(in_flight, channel.open_answers)
        if self._is_sending:
            for _ in range(self._window - in_flight):
                self._send(channel)
        elif not any(channel.remaining for channel in self._channels):
            self._done.set()

    async def _acknowledge(self) -> None:
        """Every client once in `ACK_S`, spread over the time."""
        slices = 20
        for turn in itertools.count():
            await asyncio.sleep(ACK_S / slices)
            for client in self._clients[turn % slices :: slices]:
                client.acknowledge()
