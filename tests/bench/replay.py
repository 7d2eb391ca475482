"""Devices that come back at once, each with messages that it has missed, beside the plainest loop over the same data.

Nothing is acknowledged, so the same messages are missed again in the next repetition.
"""

import asyncio
import itertools
from typing import ClassVar

from service.core.names import ZERO, EntryId, group_stream, user_stream
from service.store import Commit, Outgoing, Store, StoreOptions
from tests.bench.clients import Client, text_of
from tests.bench.flows import CLOSED_S, all_at_once, in_turns
from tests.bench.meter import order_of
from tests.bench.peers.plain_replay import MISSED
from tests.bench.sample import Sample
from tests.bench.scenario import Scenario, Sizes, Stage
from tests.bench.systems import PlainReplay, System, Waypost
from tests.integration.store.kit import LAYOUT, Server

JOINING = 32  # calls at once
BATCH = 200  # messages of a call
SHARED, OWN = "streams shared", "streams of its own"
PLAIN = "plain loop"


class Replay(Scenario):
    """Everybody misses the same streams, or each has streams that nobody else reads."""

    name = "replay"
    title = "200 devices come back at once, 500 missed messages each, over 20 streams"
    columns: ClassVar[dict[str, str]] = {
        "per_s": "messages/s",
        "all_ms": "all live, ms",
        "us": "CPU, µs a message",
        "p50_ms": "p50 to live, ms",
    }
    compared = "per_s"

    def __init__(self, stage: Stage, sizes: Sizes) -> None:
        super().__init__(stage, sizes)
        self._systems: dict[str, System] = {}
        self._plain: PlainReplay | None = None

    async def start(self) -> list[str]:
        waypost = await self.stage.system(Waypost, purpose=self.name)
        if waypost is None:
            return []
        assert isinstance(waypost, Waypost)
        self._systems[Waypost.name] = waypost
        plain = PlainReplay(self.stage.product, waypost.store)
        if await self.stage.started(plain) is not None:
            self._plain = self._systems[PLAIN] = plain
        await stock(waypost.store, self.sizes)
        return list(self._systems)

    async def stop(self) -> None:
        if self._plain is not None:
            self._plain.stop()

    async def measure(self, contestant: str) -> dict[str, Sample]:
        system = self._systems[contestant]
        return {case: await come_back(system, self.sizes, case) for case in (SHARED, OWN)}


def users_of(sizes: Sizes, case: str) -> list[str]:
    """Those who come back."""
    return [f"{'common' if case == SHARED else 'own'}{number}" for number in range(sizes.devices)]


def groups_of(sizes: Sizes, case: str, user: str) -> list[str]:
    """The groups of which somebody has missed messages."""
    return [f"{'common' if case == SHARED else user}.{number}" for number in range(sizes.streams)]


async def come_back(system: System, sizes: Sizes, case: str) -> Sample:
    """Everybody connects at once; until all are live. Every stream is to come whole and in order."""
    users = users_of(sizes, case)
    heard: dict[str, list[int]] = {user: [] for user in users}

    def note(client: Client, number: int) -> None:
        heard[client.user].append(number)

    clients, took, cpu = await all_at_once(system, users, heard=note)
    took.sort()
    await asyncio.sleep(CLOSED_S)  # what comes twice may come a moment later
    for client in clients:
        client.close()
    await asyncio.sleep(CLOSED_S)
    messages = len(users) * sizes.missed
    sample = Sample(
        {
            "per_s": messages / took[-1],
            "all_ms": took[-1] * 1e3,
            "p50_ms": took[len(took) // 2] * 1e3,
            "us": cpu / messages * 1e6,
        },
        problems=[problem for client in clients for problem in client.problems],
    )
    each = sizes.missed // sizes.streams
    for numbers in heard.values():
        for stream in range(sizes.streams):
            first, last = stream * each + 1, (stream + 1) * each
            lost, doubled, unordered = order_of([n for n in numbers if first <= n <= last], first, last)
            sample.lost += lost
            sample.doubled += doubled
            sample.unordered += unordered
    return sample


async def stock(server: Server, sizes: Sizes) -> None:
    """Members of groups whose devices have everything, and then the messages that they miss."""
    store = await Store.connect(server.url, options=StoreOptions(announce=0, connections_max=JOINING))
    await store.check_server()
    try:
        for case in (SHARED, OWN):
            users = users_of(sizes, case)
            await in_turns((_join(store, user, groups_of(sizes, case, user)) for user in users), at_once=JOINING)
            await _publish(store, sizes, case)
    finally:
        await store.close()
    _tell_plain(server, sizes)


async def _join(store: Store, user: str, groups: list[str]) -> None:
    """Joins, and has one device that has seen the inbox up to there."""
    for group in groups:
        await store.join(user, group, mailbox="", origin=None)
    opened = await store.open_session(user, Client.DEVICE, "bench", {}, is_foreign=False)
    heads = {stream.stream: stream.head for stream in opened}
    await store.commit([Commit(user, Client.DEVICE, {user_stream(user): heads[user_stream(user)]})])


async def _publish(store: Store, sizes: Sizes, case: str) -> None:
    """Message after message, the streams in turn, as they come in life."""
    users = users_of(sizes, case)
    writers = users[:1] if case == SHARED else users
    each = sizes.missed // sizes.streams
    messages = (
        Outgoing("group", user, group_stream(group), f"m{number}", f'"{text_of(number)}"'.encode(), "other", None, None)
        for at in range(each)
        for user in writers
        for stream, group in enumerate(groups_of(sizes, case, user))
        for number in [stream * each + at + 1]
    )
    while batch := list(itertools.islice(messages, BATCH)):
        outcomes = await store.publish(batch, "")
        assert all(outcome.code is None for outcome in outcomes)


def _tell_plain(server: Server, sizes: Sizes) -> None:
    """What the plain loop has to know: each user's streams, missed from their beginning."""
    start: EntryId = ZERO
    pipe = server.admin.pipeline(transaction=False)
    for case in (SHARED, OWN):
        for user in users_of(sizes, case):
            keys = (LAYOUT.stream(group_stream(group)) for group in groups_of(sizes, case, user))
            pipe.hset(f"{MISSED}{user}", mapping=dict.fromkeys(keys, str(start)))
    pipe.execute()
