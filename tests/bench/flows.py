"""Fan-out and direct messages: how much CPU a delivery takes, how many there are, and how long one takes."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.bench.clients import Client
from tests.bench.meter import Meter
from tests.bench.sample import Sample
from tests.bench.scenario import Sizes
from tests.bench.systems import System, cpu_s

T = TypeVar("T")
CONNECTING = 50  # connections that are being made at once
CLOSED_S = 0.05  # for a server to see that its clients are gone
_runs = itertools.count(1)


async def fan_out(system: System, windows: Sequence[int], sizes: Sizes) -> dict[int, Sample]:
    """One sender, one group, `sizes.receivers` members beside it, spread over the nodes; window after window."""
    run = next(_runs)
    users = [f"f{run}.{number}" for number in range(sizes.receivers + 1)]
    ports = [system.ports[number % len(system.ports)] for number in range(sizes.receivers + 1)]
    group = f"g{run}"
    async with connected(system, zip(ports, users, strict=True)) as clients:
        await in_turns([client.join(group) for client in clients])
        sender, *others = clients
        return await _through(system, clients, {f"group:{group}": (sender, others)}, windows, sizes)


async def direct(system: System, windows: Sequence[int], sizes: Sizes) -> dict[int, Sample]:
    """`sizes.pairs` senders, each to a receiver of its own: on one node, or from the first node to the last."""
    run = next(_runs)
    senders = [f"s{run}.{number}" for number in range(sizes.pairs)]
    receivers = [f"r{run}.{number}" for number in range(sizes.pairs)]
    wanted = [(system.ports[0], user) for user in senders] + [(system.ports[-1], user) for user in receivers]
    async with connected(system, wanted) as clients:
        flows: dict[str, tuple[Client, Sequence[Client]]] = {
            f"user:{receiver.user}": (sender, [receiver])
            for sender, receiver in zip(clients[: sizes.pairs], clients[sizes.pairs :], strict=True)
        }
        return await _through(system, clients, flows, windows, sizes)


async def _through(
    system: System,
    clients: Sequence[Client],
    flows: dict[str, tuple[Client, Sequence[Client]]],
    windows: Sequence[int],
    sizes: Sizes,
) -> dict[int, Sample]:
    """The same flows with one number of messages in flight after the other."""
    return {
        window: await Meter(system, clients, flows, window).measure(sizes.seconds, warm_s=sizes.warm_s)
        for window in windows
    }


async def in_turns(work: Iterable[Coroutine[Any, Any, T]], at_once: int = CONNECTING) -> list[T]:
    """Awaits all, so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(awaitable: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await awaitable

    return await asyncio.gather(*(one(awaitable) for awaitable in work))


async def all_at_once(
    system: System, users: Sequence[str], **fields: object
) -> tuple[list[Client], list[float], float]:
    """Everybody dials its first node at the same moment, with clients of these `fields`.

    Returns the clients, the seconds until each could be used, and the seconds of CPU that it took the system.
    """
    cpu, began = cpu_s(system.pids), time.perf_counter()

    async def dial(user: str) -> tuple[Client, float]:
        client = await system.client.connect(system.ports[0], user, **fields)
        return client, time.perf_counter() - began

    found = await in_turns((dial(user) for user in users), at_once=len(users))
    cpu = cpu_s(system.pids) - cpu
    return [client for client, _ in found], [seconds for _, seconds in found], cpu


@asynccontextmanager
async def connected(system: System, wanted: Iterable[tuple[int, str]]) -> AsyncIterator[list[Client]]:
    """Clients at these ports with these names, closed at the end."""
    clients = await in_turns(system.client.connect(port, user) for port, user in wanted)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
        await asyncio.sleep(CLOSED_S)
