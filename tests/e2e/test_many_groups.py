"""A user of two thousand groups: twice what is usual, with the limit raised for it."""

import asyncio

import pytest

from service.store import Store, StoreOptions
from tests.e2e.conftest import StartNode
from tests.integration.store.kit import Server
from tests.integration.wire.kit import join, leave
from tests.service import Frame, Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

GROUPS = [f"g{number}" for number in range(2000)]


async def in_every_group(database: Server, user: str) -> None:
    store = await Store.connect(database.url, options=StoreOptions(streams_max=len(GROUPS)))
    await store.check_server()
    for at in range(0, len(GROUPS), 20):
        await asyncio.gather(*(store.join(user, group, mailbox="", origin=None) for group in GROUPS[at : at + 20]))
    await store.close()


async def test_hello_brings_and_welcome_tells_two_thousand_groups_and_one_above_the_limit_is_refused_at_join(
    database: Server, start_node: StartNode
) -> None:
    node = start_node(limits_streams_per_user=len(GROUPS))
    await in_every_group(database, "bob")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    told = [frame for frame in bob.frames if frame["type"] in ("welcome", "streams")]
    streams = {name: state for frame in told for name, state in frame["streams"].items()}
    assert streams.keys() == {"user:bob", "all", *(f"group:{group}" for group in GROUPS)}
    assert [len(frame["streams"]) for frame in told] == [500, 500, 500, 500, 2]  # none outgrows a client's buffer

    refused = await join(bob, "one-too-many")
    assert (refused["code"], refused["retry"]) == ("too_many_streams", False)
    assert (await leave(bob, "g0"))["type"] == "left"
    assert (await join(bob, "one-too-many"))["type"] == "joined"
    for group in ("g1", "g999", "g1999"):
        assert (await join(alice, group))["type"] == "joined"
    await bob.acknowledge(bob.last_ids())
    await bob.leave()

    for group in ("g1", "g999", "g1999"):
        await alice.send_all(f"group:{group}", [f"to {group}"])
    offsets = {name: state["offset"] for name, state in streams.items()} | bob.last_ids()
    names = sorted(offsets)
    parts = [{name: offsets[name] for name in names[at : at + 400]} for at in range(0, len(names), 400)]
    bob = await Phone.dial(node.url, "bob")
    for at, part in enumerate(parts):
        first: Frame = {"type": "hello", "device": "phone"} if at == 0 else {"type": "offsets"}
        await bob.say(**first, offsets=part, more=part is not parts[-1])
    await bob.wait("live")
    assert sorted(bob.bodies()) == ["to g1", "to g1999", "to g999"]
    assert bob.gaps() == []
    await alice.send_all("group:g1999", ["and live"])
    await bob.wait("message", body="and live")
