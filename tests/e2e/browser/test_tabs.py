"""Tabs are closed, killed, doubled and reloaded in the middle of everything: each entry is handed out once."""

import asyncio

import pytest

from tests.e2e.browser.conftest import Arrive
from tests.e2e.browser.kit import Person, Tab, are_kept, in_order
from tests.e2e.conftest import StartNode
from tests.service import Phone

pytestmark = pytest.mark.anyio
STANDS_STILL = """() => void setTimeout(() => {
  for (const end = performance.now() + 15_000; performance.now() < end; );
  window.stoodStill = true;
})"""
STREAMS = ("user:bob", "group:g")


async def end(tab: Tab, how: str) -> None:
    """Ends this life of a tab, and begins the next."""
    if how == "reloaded":
        await tab.reload()
    else:
        await (tab.kill() if how == "killed" else tab.close())
        await tab.open()


async def messages(tab: Tab, count: int) -> None:
    """Waits until so many messages have come, of whichever stream."""
    await tab.until(lambda: len(tab.of("message")) >= count, f"has {count}")


@pytest.mark.parametrize("how", ["closed", "reloaded", "killed"])
async def test_a_tab_ends_in_the_middle_of_two_thousand_missed_messages(
    start_node: StartNode, arrive: Arrive, how: str
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tab = await bob.tab()
    await tab.live()
    await tab.call("client.join('g')")
    await alice.say(type="join", ref="j", group="g")
    await alice.wait("joined", ref="j")
    await tab.until(lambda: any(note["user"] == "alice" for note in tab.of("joined")), "bob sees alice join")
    await tab.close()
    for begin in range(0, 1_000, 250):
        for stream in STREAMS:
            await alice.send_all(stream, range(begin, begin + 250))

    bob.site.bytes_per_s = 250_000
    await tab.open()
    lives = (250, 900, 1_500)
    for count in lives:
        await messages(tab, count)
        await end(tab, how)
        assert len(tab.of("live")) == 1, "it was to end before it has all"
    for stream in STREAMS:
        await tab.has(stream, 1_000)
    await tab.live()
    may_repeat = 0 if how == "reloaded" else len(lives)  # Chromium ends the process of a closed tab as it likes
    assert tab.check("user:bob", may_repeat=may_repeat) == list(range(1_000))
    first = next(int(note["id"].split("-")[1]) for note in tab.notes if note.get("stream") == "group:g")
    assert tab.check("group:g", first, may_repeat=may_repeat) == list(range(1_000))
    assert tab.of("error") == []


async def two_tabs(bob: Person) -> list[Tab]:
    """Two tabs of one device, both live; the first has the connection."""
    tabs = [await bob.tab("1")]
    await tabs[0].live()
    tabs.append(await bob.tab("2"))
    await tabs[1].live()
    assert [(await tab.call("client.state"))["isLeader"] for tab in tabs] == [True, False]
    return tabs


async def has_last(tab: Tab, stream: str, body: str) -> None:
    """Waits for a message that nothing follows."""
    await tab.until(lambda: tab.bodies(stream)[-1:] == [body], f"has {body}")


async def feed(alice: Phone, count: int, first: int = 0) -> None:
    """Alice says `count` things to bob, steadily."""
    for n in range(first, first + count):
        await alice.send("user:bob", f"a{n}")
        await asyncio.sleep(0.005)  # a pace, not a wait


async def test_two_tabs_share_one_connection_and_both_show_everything(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tabs = await two_tabs(bob)
    assert bob.site.sockets == 1
    said = [[f"{who}{n}" for n in range(100)] for who in ("one ", "two ")]
    for tab, bodies in zip(tabs, said, strict=True):
        await tab.chat("user:alice", bodies, 10)
    await feed(alice, 100)
    for tab, bodies in zip(tabs, said, strict=True):
        await tab.has("user:bob", 300)
        in_order(tab.check("user:bob"), *said, [f"a{n}" for n in range(100)])
        await tab.answered(100)
        assert sorted(tab.answers()) == sorted(bodies)
        assert await tab.outbox() == []
    await alice.until(lambda: len(alice.bodies("user:alice")) >= 200, "alice has everything")
    in_order([body for body in alice.bodies("user:alice") if body[0] != "a"], *said)

    third = await bob.tab("3")
    await third.live()
    await alice.send("user:bob", "to all three")
    for tab in (*tabs, third):
        await has_last(tab, "user:bob", "to all three")
    assert bob.site.sockets == 1
    assert len(third.bodies("user:bob")) == len(set(third.bodies("user:bob")))
    assert len(bob.site.asked) == 1


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_the_tab_with_the_connection_ends_and_the_other_goes_on(
    start_node: StartNode, arrive: Arrive, how: str
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    first, second = await two_tabs(bob)
    said = [f"b{n}" for n in range(150)]
    await second.chat("user:alice", said, 10)
    feeding = asyncio.create_task(feed(alice, 200))
    await second.until(lambda: len(second.bodies("user:bob")) >= 80, "has some")
    await (first.kill() if how == "killed" else first.close())
    await feeding
    await second.until(lambda: len(set(second.bodies("user:bob"))) >= 350, "has everything")
    in_order(second.check("user:bob"), said, [f"a{n}" for n in range(200)])
    await second.until(lambda: len(second.answers()) >= 150, "has every answer")
    assert sorted(second.answers()) == sorted(said)
    assert (await second.call("client.state"))["isLeader"]
    await alice.until(lambda: len([b for b in alice.bodies("user:alice") if b[0] == "b"]) >= 150, "alice has all")
    assert [b for b in alice.bodies("user:alice") if b[0] == "b"] == said
    in_order(first.check("user:bob"), first.bodies("user:bob"))
    assert bob.site.sockets == 1


async def test_a_tab_that_follows_ends_and_nobody_minds(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    first, second = await two_tabs(bob)
    await second.say("user:alice", *(f"b{n}" for n in range(20)))
    await second.kill()
    feeding = asyncio.create_task(feed(alice, 50))
    await first.until(lambda: len([b for b in first.bodies("user:bob") if b[0] == "a"]) >= 50, "has everything")
    await feeding
    bodies = first.check("user:bob")
    said = [body for body in bodies if body[0] == "b"]
    assert said == [f"b{n}" for n in range(len(said))]  # what it had not handed over in time went with it, from the end
    assert await first.outbox() == []


async def test_a_tab_that_stands_still_hands_over_to_one_that_is_looked_at(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    first, second = await two_tabs(bob)
    await second.page.bring_to_front()
    await first.call(STANDS_STILL)
    await feed(alice, 20)
    await second.say("user:alice", *(f"b{n}" for n in range(20)))
    await second.has("user:bob", 40)
    await second.answered(20)
    assert (await second.call("client.state"))["isLeader"]
    assert await first.call("window.stoodStill")
    await feed(alice, 20, 20)
    said = [[f"a{n}" for n in range(40)], [f"b{n}" for n in range(20)]]
    for tab in (first, second):
        await tab.has("user:bob", 60)
        in_order(tab.check("user:bob"), *said)
    assert not (await first.call("client.state"))["isLeader"]
    assert bob.site.sockets == 1


async def test_the_tab_with_the_connection_dies_with_the_answers_to_the_others_sends(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    first, second = await two_tabs(bob)
    said = [f"b{n}" for n in range(40)]
    bob.site.swallow("down")
    await second.say("user:alice", *said[:20])
    await are_kept(second.page, 20)
    await alice.until(lambda: alice.bodies("user:alice"), "one is stored")
    await first.kill()
    await second.say("user:alice", *said[20:])
    bob.site.mend()
    await second.answered(40)
    await second.has("user:bob", 40)
    assert second.check("user:bob") == said
    await alice.until(lambda: len(alice.bodies("user:alice")) >= 40, "alice has everything")
    assert alice.bodies("user:alice") == said
    assert await second.outbox() == []
