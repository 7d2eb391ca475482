"""The scenarios, in the order in which they are told; those of connections are here."""

import asyncio
import statistics
import time
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.bench import flows
from tests.bench.flows import all_at_once, connected
from tests.bench.growth import Bytes, Growth
from tests.bench.replay import Replay
from tests.bench.sample import Sample
from tests.bench.scenario import Scenario
from tests.bench.storing import Publish
from tests.bench.systems import System, cpu_s

FLOW_COLUMNS = {
    "server_us": "server, µs",
    "redis_us": "Redis, µs",
    "us": "CPU, µs",
    "per_s": "deliveries/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
}


class _Flows(Scenario):
    """Messages that flow, with different numbers of them in flight."""

    columns = FLOW_COLUMNS
    compared = "us"
    nodes: ClassVar[int] = 1

    async def start(self) -> list[str]:
        self.systems = await self.stage.systems(self.nodes)
        return list(self.systems)

    async def measure(self, contestant: str) -> dict[str, Sample]:
        found = await self.flow(self.systems[contestant])
        return {f"w {window}": sample for window, sample in found.items()}

    @abstractmethod
    async def flow(self, system: System) -> dict[int, Sample]:
        """What was measured with each number of messages in flight."""


class FanOut(_Flows):
    """One writes to a group of a thousand."""

    name = "fan-out"
    title = "Fan-out to 1000, CPU per delivery"

    async def flow(self, system: System) -> dict[int, Sample]:
        return await flows.fan_out(system, (1, 4), self.sizes)


class Direct(_Flows):
    """A hundred write to one other each."""

    name = "direct"
    title = "Direct messages of 100 pairs on one node, CPU per delivery"

    async def flow(self, system: System) -> dict[int, Sample]:
        return await flows.direct(system, (1, 32), self.sizes)


class DirectOnTwo(Direct):
    """The same, and whom they write to is on another node."""

    name = "direct-2"
    title = "Direct messages of 100 pairs from one node to another, CPU per delivery"
    nodes = 2


class Reconnect(Scenario):
    """Everybody is dropped, and back at once."""

    name = "reconnect"
    title = "2,000 connections dropped and back at once"
    columns: ClassVar[dict[str, str]] = {
        "p50_ms": "p50 to live, ms",
        "p99_ms": "p99 to live, ms",
        "all_ms": "all, ms",
        "us": "CPU, µs a connection",
    }
    compared = "p99_ms"

    async def start(self) -> list[str]:
        self.systems = await self.stage.systems(purpose=self.name)
        return list(self.systems)

    async def measure(self, contestant: str) -> dict[str, Sample]:
        system = self.systems[contestant]
        users = [f"storm{number}" for number in range(self.sizes.dropped)]
        async with connected(system, [(system.ports[0], user) for user in users]):
            pass
        clients, took, cpu = await all_at_once(system, users)
        for client in clients:
            client.close()
        await asyncio.sleep(flows.CLOSED_S)
        cuts = statistics.quantiles(took, n=100)
        figures = {
            "p50_ms": cuts[49] * 1e3,
            "p99_ms": cuts[98] * 1e3,
            "all_ms": max(took) * 1e3,
            "us": cpu / len(took) * 1e6,
        }
        return {"": Sample(figures, problems=[problem for client in clients for problem in client.problems])}


class Idle(Scenario):
    """Connections that say nothing, on a node that has done nothing else."""

    name = "idle"
    title = "5,000 connections that say nothing"
    columns: ClassVar[dict[str, str]] = {
        "kib": "KiB a connection",
        "rest_percent": "CPU at rest, % of a core",
        "redis_kib": "KiB in Redis a connection",
    }
    compared = "kib"
    repetitions_max = 1

    async def start(self) -> list[str]:
        return [name for name in await self.stage.systems() if name in self.sizes.idlers]

    async def measure(self, contestant: str) -> dict[str, Sample]:
        kept = (await self.stage.systems())[contestant]
        system = await self.stage.fresh(type(kept))
        assert system is not None
        try:
            return {"": await self._of(system)}
        finally:
            system.stop()

    async def _of(self, system: System) -> Sample:
        async with connected(system, [(system.ports[0], f"warm{number}") for number in range(20)]):
            pass
        before, redis_before = resident_kib(system.server_pids), resident_kib(system.redis_pids)
        count = self.sizes.idle
        async with connected(system, [(system.ports[0], f"idle{number}") for number in range(count)]) as clients:
            kib = (resident_kib(system.server_pids) - before) / count
            redis_kib = (resident_kib(system.redis_pids) - redis_before) / count
            cpu, began = cpu_s(system.pids), time.perf_counter()
            await asyncio.sleep(self.sizes.rest_s)
            rest = (cpu_s(system.pids) - cpu) / (time.perf_counter() - began)
            problems = [problem for client in clients for problem in client.problems]
        return Sample({"kib": kib, "rest_percent": rest * 100, "redis_kib": redis_kib}, problems=problems)


def resident_kib(pids: list[int]) -> int:
    """The memory of processes that is in RAM (Linux)."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


SCENARIOS: tuple[type[Scenario], ...] = (
    FanOut,
    Direct,
    DirectOnTwo,
    Replay,
    Reconnect,
    Idle,
    Publish,
    Growth,
    Bytes,
)
