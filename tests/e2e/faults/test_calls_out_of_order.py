"""Answers and calls overtake each other: mailbox and pages come over different sockets, and a call may be late."""

import pytest

from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, mailboxes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server, key_of, numbers_in
from tests.integration.wire.kit import join, leave, n_of, stored_offset
from tests.proxy import Proxy, Rule
from tests.service import Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]


async def hits(rule: Rule, count: int = 1) -> None:
    """Waits until a rule has happened to so many calls."""
    await true(lambda: rule.hits >= count, f"{rule.word!r} has come by")


async def away_with(alice: Phone, url: str, stream: str, count: int) -> None:
    """Bob's phone has acknowledged what there is and is away; then `count` messages go to the stream."""
    bob = await Phone.open(url, "bob", "phone")
    if stream == "group:g":
        await join(bob, "g")
        await bob.wait("joined", stream="user:bob")
    await bob.acknowledge(bob.last_ids())
    await bob.leave()
    await alice.send_all(stream, range(count))


# -- the page and the mailbox ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["user:bob", "group:g"])
async def test_what_the_reader_dispatched_while_a_page_was_on_its_way_is_not_missing(
    proxy: Proxy, start_nodes: StartNodes, stream: str
) -> None:
    [node] = start_nodes("a")
    alice = await Phone.open(node.url, "alice")
    await join(alice, "g")
    stays = await Phone.open(node.url, "bob", "stays")  # the position moves with what is pushed to it
    await away_with(alice, node.url, stream, 50)
    await stays.wait("message", body=49)
    for _ in range(3):
        page = proxy.hold_answers("page_v1")
        phone = await Phone.dial(node.url, "bob")
        await phone.say(type="hello", device="phone")
        await hits(page)  # it ends at the head of this moment
        had = len(stays.messages())
        await alice.send_all(stream, [f"meanwhile {n}" for n in range(10)])
        await stays.until(lambda had=had: len(stays.messages()) == had + 10, "the reader is ahead")  # type: ignore[misc]
        page.release()
        await phone.wait("live")
        assert phone.bodies() == stays.bodies()
        await alice.send_all(stream, ["after"])
        for device in (phone, stays):
            await device.wait("message", body="after")
        assert phone.bodies() == stays.bodies()
        assert phone.gaps() == []
        phone.cut()


async def test_what_a_page_brought_before_the_reader_came_to_it_is_not_pushed_again(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", beat_s=2, not_ready_s=10, mailbox_ttl_s=20)  # the reader may be late without doubt
    alice = await Phone.open(node.url, "alice")
    await away_with(alice, node.url, "user:bob", 10)
    stays = await Phone.open(node.url, "bob", "stays")
    reading = proxy.hold_answers("XREAD")
    await alice.send_all("user:bob", [10])  # ends the read that is under way
    await hits(reading)
    for number in range(11, 20):
        await alice.say(type="send", ref=number, to="user:bob", body=number)
    await true(lambda: len(numbers_in(database.admin, "user:bob")) == 20, "all are stored")
    phone = await Phone.open(node.url, "bob", "phone")
    assert phone.bodies() == list(range(20))
    assert stays.bodies() == list(range(11))
    reading.release()
    await alice.send_all("user:bob", ["after"])
    for device in (phone, stays):
        await device.wait("message", body="after")
        assert device.bodies() == [*range(20), "after"]


# -- attach and detach -------------------------------------------------------------------------------------------------


async def test_messages_and_a_second_attach_during_the_first_are_not_missed(
    proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice = await Phone.open(node.url, "alice")
    first = proxy.hold_answers("attach_v1")
    phone = await Phone.dial(node.url, "bob")
    await phone.say(type="hello", device="phone")
    await hits(first)  # carried out, and not answered
    await alice.send_all("user:bob", range(5))
    tablet, carol = await Phone.dial(node.url, "bob"), await Phone.dial(node.url, "carol")
    await tablet.say(type="hello", device="tablet")
    await carol.say(type="hello")
    for new in (tablet, carol):
        await new.wait("welcome")
    await alice.send_all("user:bob", range(5, 10))
    await alice.send_all("user:carol", ["carol"])
    first.release()
    for new, sent in ((phone, list(range(10))), (tablet, list(range(10))), (carol, ["carol"])):
        await new.wait("live")
        assert new.bodies() == sent
    await alice.send_all("user:bob", ["after"])
    await alice.send_all("user:carol", ["after"])
    for device in (phone, tablet):
        await device.wait("message", body="after")
        assert device.bodies() == [*range(10), "after"]
    await carol.wait("message", body="after")
    assert carol.bodies() == ["carol", "after"]
    assert "mailbox_doubted" not in node.said()


async def test_a_detach_that_is_carried_out_late_leaves_nobody_deaf(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", detach_linger_s=0.2)
    alice = await Phone.open(node.url, "alice")
    late = proxy.hold_calls("detach_v1", cut=True)
    await (await Phone.open(node.url, "bob", "phone")).leave()
    await hits(late)
    known = mailboxes(database, "a")
    await true(lambda: mailboxes(database, "a") - known, "the missing answer put the mailbox in doubt")
    phone = await Phone.open(node.url, "bob", "phone")
    late.release()
    await insist(alice, "user:bob", "after", key="k")
    await phone.wait("message", body="after")
    assert any(b":m:a." in name for name in database.admin.hkeys(key_of("h", "user:bob")))


# -- membership --------------------------------------------------------------------------------------------------------


async def test_leave_and_come_of_two_devices_with_the_calls_swapped_end_the_same_for_both(
    proxy: Proxy, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    await join(alice, "g")
    phone, laptop = await Phone.open(first.url, "bob", "phone"), await Phone.open(second.url, "bob", "laptop")
    joined = await join(phone, "g")
    await alice.send_all("group:g", ["before"])
    for device in (phone, laptop):
        await device.wait("message", body="before")

    swapped = proxy.hold_calls("leave_v4", until="join_v4")
    await phone.say(type="leave", ref="leave", group="g")
    await hits(swapped)
    assert (await join(laptop, "g"))["id"] == joined["id"]  # a member still
    left = await phone.wait("left", ref="leave")
    await laptop.wait("left", id=left["id"], stream="group:g")
    await alice.send_all("group:g", ["not for bob"])
    assert (await laptop.send("group:g", "still in?"))["code"] == "not_member"
    again = await join(laptop, "g")
    assert n_of(again["id"]) == n_of(left["id"]) + 2
    await alice.send_all("group:g", ["again"])
    for device in (phone, laptop):
        await device.wait("message", body="again")
        assert device.bodies("group:g") == ["before", "again"]
        assert device.gaps() == []


@pytest.mark.parametrize("opened", ["before", "after"])
async def test_news_of_a_joining_before_welcome_are_not_followed_before_welcome(
    proxy: Proxy, start_nodes: StartNodes, opened: str
) -> None:
    """`opened`: whether the store opened the session of the phone before or after the user joined by the laptop."""
    [node] = start_nodes("a")
    alice, laptop = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "laptop")
    await join(alice, "g")
    opening = proxy.hold_answers("open_v3") if opened == "before" else proxy.hold_calls("open_v3")
    phone = await Phone.dial(node.url, "bob")
    await phone.say(type="hello", device="phone")
    await hits(opening)
    await join(laptop, "g")
    await laptop.wait("joined", stream="user:bob")  # the node has heard of it
    await alice.send_all("group:g", range(10))
    await laptop.wait("message", body=9)
    assert phone.frames == []
    opening.release()
    await phone.wait("live")
    await alice.send_all("group:g", ["after"])
    await phone.wait("message", body="after")
    assert phone.frames[0]["type"] == "welcome"
    assert phone.bodies("group:g") == [*range(10), "after"]
    assert phone.gaps() == []


@pytest.mark.parametrize("comes_back", [False, True], ids=["for good", "and comes back"])
async def test_a_membership_that_ends_in_the_middle_of_a_replay_ends_the_replay_there(
    proxy: Proxy, start_nodes: StartNodes, *, comes_back: bool
) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    await join(alice, "g")
    await away_with(alice, first.url, "group:g", 250)  # two pages
    laptop = await Phone.open(second.url, "bob", "laptop")
    page = proxy.hold_answers("page_v1")
    phone = await Phone.dial(first.url, "bob")
    await phone.say(type="hello", device="phone")
    await hits(page)  # it was read, as a member
    left = await leave(laptop, "g")
    await alice.send_all("group:g", ["a secret"])
    if comes_back:
        await join(laptop, "g")
        await alice.send_all("group:g", ["no secret"])
    page.release()

    await phone.wait("live")
    await alice.send_all("group:g", ["later"])
    await alice.send_all("user:bob", ["mark"])
    expected = [*range(250), *(["no secret", "later"] if comes_back else [])]
    await phone.until(lambda: {"mark", expected[-1]} <= {*phone.bodies()}, "what was sent last")
    assert phone.bodies("group:g") == expected
    ends = [frame["id"] for frame in phone.frames if frame["type"] == "left" and frame["stream"] == "group:g"]
    assert ends == [left["id"]]
    assert phone.gaps() == []


# -- late writes -------------------------------------------------------------------------------------------------------


async def test_a_send_that_is_carried_out_late_after_its_repeat_is_stored_once(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    late = proxy.hold_calls("publish_v4", cut=True)
    answer = await alice.send("user:bob", "once", key="k")
    assert (answer["code"], answer["retry"]) == ("uncertain", True)
    assert (await insist(alice, "user:bob", "once", key="k"))["duplicate"] is False
    await insist(alice, "user:bob", "after", key="k2")
    late.release()
    await insist(alice, "user:bob", "long after", key="k3")
    await bob.wait("message", body="long after")
    assert bob.bodies() == ["once", "after", "long after"]
    assert numbers_in(database.admin, "user:bob") == [1, 2, 3]
    assert numbers(alice, "user:alice") == [1, 2, 3]


async def test_an_ack_that_is_carried_out_late_takes_no_offset_back(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await alice.send_all("user:bob", range(10))
    await bob.until(lambda: len(bob.messages()) == 10, "ten")
    ids = [message["id"] for message in bob.messages()]
    late = proxy.hold_calls("commit_v2", cut=True)
    await bob.say(type="ack", ref=1, offsets={"user:bob": ids[2]})
    await bob.wait("error", ref=1)
    await true(node.is_ready, "ready again")
    await bob.ack(user_bob=ids[8])
    late.release()
    await insist(alice, "user:bob", "mark", key="k")
    await bob.wait("message", body="mark")
    assert stored_offset(database, "bob", "phone", "user:bob") == ids[8]
    await bob.leave()
    again = await Phone.open(node.url, "bob", "phone")
    assert again.bodies() == [9, "mark"]
