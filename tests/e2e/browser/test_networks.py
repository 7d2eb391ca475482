"""The network is cut in every way that networks are: the client comes back by itself, and nothing is lost or twice."""

import pytest

from tests.e2e.browser.conftest import Arrive
from tests.e2e.browser.kit import Tab, in_order
from tests.e2e.browser.site import Direction
from tests.e2e.conftest import StartNode
from tests.service import Phone

pytestmark = pytest.mark.anyio


async def has(tab: Tab, count: int) -> None:
    """Waits for so many different messages in the own inbox."""
    await tab.has(f"user:{tab.person.name}", count)


async def test_connections_are_reset_again_and_again(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await arrive("bob", node)
    at, bt = await alice.tab(), await bob.tab()
    said = [[f"{who} {n}" for n in range(200)] for who in "ab"]
    await at.chat("user:bob", said[0], 15)
    await bt.chat("user:alice", said[1], 15)
    for count in range(30, 400, 60):
        await has(at, count)
        alice.site.cut()
        await has(bt, count)
        bob.site.cut()
    for tab in (at, bt):
        await has(tab, 400)
        await tab.answered(200)
        in_order(tab.check(f"user:{tab.person.name}"), *said)
    assert (sorted(at.answers()), sorted(bt.answers())) == (sorted(said[0]), sorted(said[1]))


async def test_the_browser_is_offline_for_a_while(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await Phone.open(node.url, "bob")
    tab = await alice.tab()
    await tab.live()
    await bob.send_all("user:alice", [f"b{n}" for n in range(20)])
    await has(tab, 20)
    await alice.context.set_offline(True)
    await tab.until(lambda: tab.state != "live", "knows that it is offline")
    await tab.say("user:bob", *(f"a{n}" for n in range(20)))
    await bob.send_all("user:alice", [f"b{n}" for n in range(20, 40)])
    await tab.look()
    assert len(tab.bodies("user:alice")) == 20
    assert await tab.outbox() == [f"a{n}" for n in range(20)]
    await alice.context.set_offline(False)
    await has(tab, 60)
    await tab.live()
    in_order(tab.check("user:alice"), [f"b{n}" for n in range(40)], [f"a{n}" for n in range(20)])
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 20, "bob has everything")
    assert bob.bodies("user:bob") == [f"a{n}" for n in range(20)]
    assert await tab.outbox() == []


@pytest.mark.parametrize("holes", [("up", "down"), ("down",), ("up",)])
async def test_a_connection_that_is_dead_without_a_word_is_noticed(
    start_node: StartNode, arrive: Arrive, holes: tuple[Direction, ...]
) -> None:
    node = start_node(ping_s=1)
    alice, bob = await arrive("alice", node), await Phone.open(node.url, "bob")
    tab = await alice.tab()
    await tab.live()
    await bob.send_all("user:alice", [f"b{n}" for n in range(10)])
    await has(tab, 10)
    alice.site.swallow(*holes)
    await tab.say("user:bob", *(f"a{n}" for n in range(10)))
    await bob.send_all("user:alice", [f"b{n}" for n in range(10, 20)])
    await tab.until(lambda: tab.state != "live", "notices by itself", 10)
    alice.site.mend()
    await has(tab, 30)
    await tab.live()
    in_order(tab.check("user:alice"), [f"b{n}" for n in range(20)], [f"a{n}" for n in range(10)])
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 10, "bob has everything")
    assert bob.bodies("user:bob") == [f"a{n}" for n in range(10)]


async def test_where_websockets_are_blocked_events_and_requests_do(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await arrive("bob", node)
    alice.site.block_sockets()
    at, bt = await alice.tab(), await bob.tab()
    await at.live()
    assert (await at.call("client.state"))["transport"] == "sse"
    assert (alice.site.sockets, alice.site.events) == (0, 1)
    said = [[f"{who} {n}" for n in range(120)] for who in "ab"]
    await at.chat("user:bob", said[0], 20)
    await bt.chat("user:alice", said[1], 20)
    for count in (40, 90, 150):
        await has(at, count)
        alice.site.cut()
    for tab in (at, bt):
        await has(tab, 240)
        await tab.answered(120)
        in_order(tab.check(f"user:{tab.person.name}"), *said)
        assert await tab.outbox() == []
    assert sorted(at.answers()) == sorted(said[0])
    await at.reload()
    await at.live()
    await at.say("user:bob", "again")
    await bt.until(lambda: "again" in bt.bodies("user:bob"), "goes on after a reload")
    await at.until(lambda: "again" in at.bodies("user:alice"), "goes on after a reload")
    in_order(at.check("user:alice"), *said, ["again"])


async def test_websockets_that_are_blocked_in_mid_conversation(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await arrive("bob", node)
    at, bt = await alice.tab(), await bob.tab()
    await at.live()
    assert (await at.call("client.state"))["transport"] == "websocket"
    said = [[f"{who} {n}" for n in range(100)] for who in "ab"]
    await at.chat("user:bob", said[0], 20)
    await bt.chat("user:alice", said[1], 20)
    await has(at, 60)
    alice.site.block_sockets()
    for tab in (at, bt):
        await has(tab, 200)
        await tab.answered(100)
        in_order(tab.check(f"user:{tab.person.name}"), *said)
    assert (await at.call("client.state"))["transport"] == "sse"


async def test_two_thousand_missed_over_a_network_that_is_cut_all_the_time(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    for begin in range(0, 2_000, 500):
        await alice.send_all("user:bob", range(begin, begin + 500))
    bob.site.bytes_per_s = 400_000
    tab = await bob.tab()
    for count in range(200, 2_000, 300):
        await has(tab, count)
        bob.site.cut()
    await has(tab, 2_000)
    await tab.live()
    assert tab.check("user:bob") == list(range(2_000))
