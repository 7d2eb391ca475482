"""What is sent without a network waits, over reloads and the death of the browser, and is stored once, in order."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.browser.conftest import Arrive, Reopen
from tests.e2e.browser.kit import Tab, are_kept, in_order
from tests.e2e.conftest import StartNode
from tests.integration.store.kit import Server
from tests.service import Phone

pytestmark = pytest.mark.anyio


async def outbox_has(tab: Tab, count: int) -> None:
    """Waits until the outbox has so many messages, which the device keeps."""
    async with asyncio.timeout(20):
        while len(await tab.outbox()) != count:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.02)


async def test_what_is_sent_offline_outlives_reloads_and_goes_out_once_in_order(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await Phone.open(node.url, "bob")
    tab = await alice.tab()
    await tab.live()
    alice.site.sever()
    said = [f"m{n}" for n in range(30)]
    for begin in range(0, 30, 10):
        await tab.say("user:bob", *said[begin : begin + 10])
        await are_kept(tab.page, begin + 10)
        assert await tab.outbox() == said[: begin + 10]
        await tab.reload()
        await outbox_has(tab, begin + 10)
    assert await tab.outbox() == said
    alice.site.mend()
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 30, "bob has everything")
    assert bob.bodies("user:bob") == said
    await outbox_has(tab, 0)
    await tab.live()
    await tab.until(lambda: len(tab.bodies("user:alice")) >= 30, "has the own ones")
    assert tab.check("user:alice") == said
    sent = {note["key"] for note in tab.of("outbox") if note["state"] == "sent"}
    assert sent == {note["mid"] for note in tab.of("message")}
    assert tab.answers() == []  # they were promised to pages that are gone


@pytest.mark.parametrize("to", ["user:bob", "group:g", "all"])
@pytest.mark.parametrize("days_pass", [False, True], ids=["at once", "after days"])
async def test_killed_between_sending_and_the_answer_it_is_stored_once(
    database: Server, start_node: StartNode, arrive: Arrive, to: str, *, days_pass: bool
) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await Phone.open(node.url, "bob")
    tab = await alice.tab()
    await tab.live()
    if to == "group:g":
        await bob.say(type="join", ref="j", group="g")
        await bob.wait("joined", ref="j")
        await tab.call("client.join('g')")
    await tab.say(to, "before")
    await tab.until(lambda: tab.answers() == ["before"], "all is well")
    said = [f"m{n}" for n in range(20)]
    alice.site.swallow("down")
    await tab.say(to, *said)
    await are_kept(tab.page, 20)
    await bob.until(lambda: len(bob.bodies(to)) >= 2, "some are stored")
    await tab.kill()
    if days_pass:  # so many that the store has forgotten the keys
        keys = list(database.admin.scan_iter("wp:{*}:k:*", count=1000))
        assert keys
        database.admin.delete(*keys)
    alice.site.mend()
    await tab.open()
    await tab.live()
    await outbox_has(tab, 0)
    await tab.say(to, "after")
    await bob.until(lambda: "after" in bob.bodies(to), "goes on")
    assert bob.bodies(to) == ["before", *said, "after"]
    own = "user:alice" if to.startswith("user:") else to
    await tab.until(lambda: "after" in tab.bodies(own), "has the own ones")
    assert tab.bodies(own) == ["before", *said, "after"]
    assert tab.of("refused") == []


async def test_the_whole_browser_is_killed_with_messages_to_send(
    start_node: StartNode, reopen: Reopen, tmp_path: Path
) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob")
    alice = await reopen("alice", node, tmp_path / "profile")
    tab = await alice.tab()
    await tab.live()
    device = await tab.call("client.device")
    alice.site.sever()
    said = [f"m{n}" for n in range(20)]
    await tab.say("user:bob", *said)
    await are_kept(tab.page, 20)
    await alice.killed()
    await tab.open()
    await tab.page.wait_for_function("client.device")
    assert await tab.call("client.device") == device
    await outbox_has(tab, 20)
    alice.site.mend()
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 20, "bob has everything")
    assert bob.bodies("user:bob") == said
    await outbox_has(tab, 0)


async def test_what_is_refused_for_good_does_not_hold_up_the_rest(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice, bob = await arrive("alice", node), await Phone.open(node.url, "bob")
    tab = await alice.tab()
    await tab.live()
    await tab.say("user:bob", "one")
    await tab.say("group:not-mine", "two")
    await tab.say("user:bob", "x" * 70_000)
    await tab.say("user:bob", "four")
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 2, "bob has what could be sent")
    assert bob.bodies("user:bob") == ["one", "four"]
    await tab.until(lambda: len(tab.of("refused", "answer")) >= 4, "has every answer")
    # What the client refuses itself may be told before what the node does.
    assert sorted(note["code"] for note in tab.of("refused")) == ["body_too_large", "not_member"]
    assert [item["state"] for item in await tab.call("client.outbox()")] in ([], ["failed", "failed"])
    in_order(tab.answers(), ["one", "four"])
    await tab.reload()
    await tab.live()
    await tab.say("user:bob", "five")
    await bob.until(lambda: "five" in bob.bodies("user:bob"), "goes on")
    assert bob.bodies("user:bob") == ["one", "four", "five"]


async def test_what_the_outbox_has_told_of_is_kept(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    alice = await arrive("alice", node)
    tab = await alice.tab()
    await tab.live()
    alice.site.sever()
    said = [f"m{n}" for n in range(50)]
    await tab.say("user:bob", *said)
    await tab.until(lambda: len(tab.of("outbox")) >= 50, "they were put there")
    await tab.reload()
    await outbox_has(tab, 50)
    assert await tab.outbox() == said
