"""Storing alone, without nodes and connections: Waypost's publish beside pipelined XADD."""

import itertools
import time
from typing import ClassVar, Literal, Self

import redis.asyncio

from migrations import __main__ as migrations
from service.core.names import group_stream
from service.store import Outgoing, Store, StoreOptions
from tests.bench.clients import text_of
from tests.bench.flows import in_turns
from tests.bench.sample import Sample
from tests.bench.scenario import Scenario, Stage
from tests.bench.systems import Waypost, cpu_s
from tests.integration.store.kit import Admin, Server

WRITER = "writer"
# Copying memory while the log is written anew is a cost of its own, that would hit one measurement of many.
NO_REWRITE = ("--auto-aof-rewrite-percentage", "0")
_numbers = itertools.count(1)


def to_group(group: str) -> Outgoing:
    """The next message, to a group."""
    return _message("group", WRITER, group_stream(group))


def to_user(sender: str, to: str) -> Outgoing:
    """The next message, from one to another."""
    return _message("direct", sender, f"user:{to}")


def _message(kind: Literal["direct", "group"], sender: str, to: str) -> Outgoing:
    number = next(_numbers)
    body = f'"{text_of(number)}"'.encode()
    return Outgoing(kind, sender, to, f"m{number}", body, "phone", None, None)


class Place:
    """A server of its own, as durable as it can be, and a store on it. Made by `open`."""

    def __init__(self, server: Server, store: Store) -> None:
        self.server = server
        self.store = store

    @classmethod
    async def open(cls, stage: Stage) -> Self:
        """A new server with an empty store."""
        server = Server(stage.product, *NO_REWRITE)
        try:
            server.start()
            assert server.process is not None
            stage.settle([server.process.pid])
            await migrations.up(server.url)
            store = await Store.connect(server.url, options=StoreOptions(announce=0))
            await store.check_server()
        except BaseException:
            server.remove()
            raise
        return cls(server, store)

    async def close(self) -> None:
        await self.store.close()
        self.server.remove()

    @property
    def admin(self) -> Admin:
        return self.server.admin

    async def publish(self, batch: list[Outgoing]) -> None:
        """Stores messages, in one call; all of them must succeed."""
        outcomes = await self.store.publish(batch, "")
        wrong = [outcome for outcome in outcomes if outcome.code is not None]
        assert not wrong, wrong[0]

    def cpu_s(self) -> float:
        """CPU that the server has used so far."""
        assert self.server.process is not None
        return cpu_s([self.server.process.pid])


class Publish(Scenario):
    """Batch after batch to groups that nobody listens to, and the same bodies by XADD."""

    name = "publish"
    title = "Publishing alone, in batches of 50; CPU per message"
    columns: ClassVar[dict[str, str]] = {
        "client_us": "client, µs",
        "redis_us": "Redis, µs",
        "us": "CPU, µs",
        "per_s": "messages/s",
    }
    compared = "us"
    XADD: ClassVar[str] = "pipelined XADD"

    async def start(self) -> list[str]:
        if not self.stage.wants(Waypost):
            return []
        self._place = await Place.open(self.stage)
        self._plain = redis.asyncio.Redis(unix_socket_path=str(self._place.server.socket), protocol=2)
        groups = [f"g{number}" for number in range(self.sizes.groups)]
        await in_turns(self._place.store.join(WRITER, group, mailbox="", origin=None) for group in groups)
        self._groups = itertools.cycle(groups)
        return [Waypost.name, self.XADD]

    async def stop(self) -> None:
        if hasattr(self, "_plain"):
            await self._plain.aclose()
            await self._place.close()

    async def measure(self, contestant: str) -> dict[str, Sample]:
        send = self._by_xadd if contestant == self.XADD else self._by_store
        await send()  # warm
        client, server, began = time.process_time(), self._place.cpu_s(), time.perf_counter()
        count = 0
        while (took := time.perf_counter() - began) < self.sizes.seconds:
            count += await send()
        client, server = time.process_time() - client, self._place.cpu_s() - server
        figures = {
            "client_us": client / count * 1e6,
            "redis_us": server / count * 1e6,
            "us": (client + server) / count * 1e6,
            "per_s": count / took,
        }
        return {"": Sample(figures)}

    async def _by_store(self) -> int:
        await self._place.publish([to_group(next(self._groups)) for _ in range(self.sizes.batch)])
        return self.sizes.batch

    async def _by_xadd(self) -> int:
        pipe = self._plain.pipeline(transaction=False)
        for _ in range(self.sizes.batch):
            made = to_group(next(self._groups))
            pipe.xadd(f"plain:{made.to}", {"b": made.body})
        return len(await pipe.execute())
