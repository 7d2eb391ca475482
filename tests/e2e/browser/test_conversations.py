"""Two people chat in browsers, and the service fails under them: none lost, none twice, in order."""

import asyncio

import pytest

from tests.e2e.browser.conftest import Arrive
from tests.e2e.browser.kit import Tab, in_order
from tests.e2e.conftest import StartNodes
from tests.integration.store.kit import Server, wait_until

pytestmark = pytest.mark.anyio


async def both_have(tabs: list[Tab], *said: list[str]) -> None:
    """Both inboxes have all that both said; every send was answered once."""
    count = sum(map(len, said))
    for tab, own in zip(tabs, said, strict=True):
        stream = f"user:{tab.person.name}"
        await tab.has(stream, count)
        await tab.answered(len(own))
        in_order(tab.check(stream), *said)
        assert sorted(tab.answers()) == sorted(own)
        assert tab.of("refused") == []
        assert await tab.outbox() == []


async def test_two_people_on_two_nodes_have_everything_in_order_and_once(
    start_nodes: StartNodes, arrive: Arrive
) -> None:
    first, second = start_nodes("a", "b")
    alice, bob = await arrive("alice", first), await arrive("bob", second)
    tabs = [await alice.tab(), await bob.tab()]
    for tab in tabs:
        await tab.live()
    said = [[f"{tab.person.name} {n}" for n in range(150)] for tab in tabs]
    await tabs[0].chat("user:bob", said[0], 10)
    await tabs[1].chat("user:alice", said[1], 10)
    await both_have(tabs, *said)
    for tab in tabs:
        entries = {note["mid"]: (note["stream"], note["id"]) for note in tab.of("message")}
        for answer in tab.of("answer"):
            sent = answer["sent"]
            assert (sent["stream"], sent["id"]) == entries[sent["mid"]]
            assert (sent["durability"], sent["duplicate"]) == ("fsynced", False)


async def test_a_group_hears_everybody_in_one_order(start_nodes: StartNodes, arrive: Arrive) -> None:
    first, second = start_nodes("a", "b")
    tabs = [await (await arrive(name, node)).tab() for name, node in (("alice", first), ("bob", second))]
    for tab in tabs:
        joined = await tab.call("client.join('g')")
        assert (joined["stream"], joined["user"]) == ("group:g", tab.person.name)
    said = [[f"{tab.person.name} {n}" for n in range(100)] for tab in tabs]
    for tab, bodies in zip(tabs, said, strict=True):
        await tab.chat("group:g", bodies, 10)
    for tab in tabs:
        await tab.has("group:g", 200)
        in_order(tab.bodies("group:g"), *said)
        assert tab.of("gap") == []
    assert tabs[0].bodies("group:g") == tabs[1].bodies("group:g")


async def test_the_node_and_the_database_are_killed_in_mid_conversation(
    database: Server, start_nodes: StartNodes, arrive: Arrive
) -> None:
    first, second = start_nodes("a", "b")
    alice, bob = await arrive("alice", first), await arrive("bob", second)
    tabs = [await alice.tab(), await bob.tab()]
    for tab in tabs:
        await tab.live()
    said = [[f"{tab.person.name} {n}" for n in range(300)] for tab in tabs]
    await tabs[0].chat("user:bob", said[0], 20)
    await tabs[1].chat("user:alice", said[1], 20)

    async def has(count: int) -> None:
        await tabs[0].until(lambda: len(tabs[0].bodies("user:alice")) >= count, f"has {count}")

    await has(60)
    await asyncio.to_thread(first.kill)
    await tabs[0].until(lambda: tabs[0].state not in ("live", "catching-up"), "knows that it is alone")
    await asyncio.to_thread(first.start)
    await has(200)
    await asyncio.to_thread(database.kill)
    # What is sent meanwhile is refused.
    away = "both nodes know that the store is away"
    await asyncio.to_thread(wait_until, lambda: not (first.is_ready() or second.is_ready()), away, 10)
    await asyncio.to_thread(database.start)
    await both_have(tabs, *said)
