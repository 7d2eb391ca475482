"""Promise 4: an inbox is its user's; a group's entries are its members', for the stretches of their membership."""

import pytest

from service.core.names import parse_id
from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.kit import numbers
from tests.service import Frame, NodeProcess, Phone

pytestmark = pytest.mark.anyio


async def change(phone: Phone, what: str, group: str = "g") -> Frame:
    """Joins or leaves; the answer."""
    ref = f"{what}{len(phone.frames)}"
    await phone.say(type=what, ref=ref, group=group)
    await phone.until(lambda: phone.answer_to(ref), what)
    answer = phone.answer_to(ref)
    assert answer is not None
    return answer


async def sees(phone: Phone, sender: Phone, to: str) -> None:
    """Something sent to the stream afterwards has come: whatever was to come before it is there."""
    mark = f"mark {len(sender.frames)} {len(phone.frames)}"
    await sender.send_all(to, [mark])
    await phone.wait("message", body=mark)


async def test_only_members_get_what_goes_to_a_group(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice, eve = await Phone.open(first.url, "alice"), await Phone.open(second.url, "eve")
    await change(alice, "join")
    [secret] = await alice.send_all("group:g", ["secret"])

    refused = await eve.send("group:g", "let me in")
    assert (refused["code"], refused["retry"]) == ("not_member", False)
    absent = await eve.send("group:none", "is it there?")
    assert absent["code"] == refused["code"]  # nobody learns which groups exist
    await eve.say(type="ack", ref="ack", offsets={"group:g": secret["id"]})
    assert (await eve.wait("error", ref="ack"))["code"] == "ack_beyond"
    assert (await change(eve, "leave"))["code"] == "not_member"
    await eve.leave()
    for offset in ("0-0", secret["id"]):
        eve = await Phone.open(first.url, "eve", "fresh", offsets={"group:g": offset, "group:none": offset})
        assert set(eve.welcome()["streams"]) == {"user:eve", "all"}
        await sees(eve, alice, "all")
        assert [f for f in eve.frames if f.get("stream", "").startswith("group:")] == []
        await eve.leave()


async def test_an_inbox_is_its_users_alone(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    eve = await Phone.open(first.url, "eve")
    for at in range(3):  # what the numbers of an inbox would tell: how much others write to it
        assert (await eve.send("user:bob", f"from eve {at}"))["stream"] == "user:eve"
    sent = await alice.send("user:bob", "for bob only")
    received = await bob.wait("message", body="for bob only")
    assert received["id"] != sent["id"]

    for stream in ("user:bob", "user:alice"):
        await eve.say(type="ack", ref=stream, offsets={stream: received["id"]})
        assert (await eve.wait("error", ref=stream))["code"] == "ack_beyond"
    await eve.leave()
    eve = await Phone.open(second.url, "eve", "fresh", offsets={"user:bob": "0-0", "user:alice": "0-0"})
    assert set(eve.welcome()["streams"]) == {"user:eve", "all"}
    await sees(eve, alice, "all")
    assert {m["from"] for m in eve.messages("user:eve")} == {"eve"}
    seen = [frame for phone in (eve, alice) for frame in phone.frames]
    assert received["id"] not in str(seen)
    assert {name for frame in seen if frame["type"] == "message" for name in frame} == {
        "type", "stream", "id", "mid", "from", "to", "body",
    }  # fmt: skip


async def test_who_left_and_came_back_while_away_gets_the_stretches_of_membership_and_no_gap(
    start_nodes: StartNodes,
) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    await change(alice, "join")
    await alice.send_all("group:g", ["before"])
    phone = await Phone.open(first.url, "bob", "phone")
    await change(phone, "join")
    await alice.send_all("group:g", ["member 1"])
    await phone.wait("message", body="member 1")
    await phone.acknowledge(phone.last_ids())
    await phone.leave()

    laptop = await Phone.open(second.url, "bob", "laptop")
    await alice.send_all("group:g", ["member 2"])
    left = await change(laptop, "leave")
    await alice.send_all("group:g", ["stranger 1", "stranger 2"])
    joined = await change(laptop, "join")
    await alice.send_all("group:g", ["member 3"])
    await laptop.wait("message", body="member 3")
    assert parse_id(joined["id"]).n == parse_id(left["id"]).n + 3

    phone = await Phone.open(first.url, "bob", "phone")
    for device in (phone, laptop, await Phone.open(second.url, "bob", "new", offsets={"group:g": "0-0"})):
        bodies = device.bodies("group:g")
        assert [body for body in bodies if "stranger" in body or body == "before"] == []
        assert device.gaps() == []
    assert phone.bodies("group:g") == ["member 2", "member 3"]
    assert laptop.bodies("group:g") == ["member 1", "member 2", "member 3"]
    assert joined["id"] in [f["id"] for f in phone.frames if f["type"] == "joined" and f["stream"] == "group:g"]
    await phone.acknowledge(phone.last_ids())
    await phone.leave()
    assert (await Phone.open(second.url, "bob", "phone")).messages() == []


async def test_who_left_for_good_gets_nothing_of_what_came_after(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    await change(alice, "join")
    phone, tablet = await Phone.open(first.url, "bob", "phone"), await Phone.open(second.url, "bob", "tablet")
    await change(phone, "join")
    await tablet.wait("joined", stream="user:bob")
    await sees(phone, alice, "group:g")
    await sees(tablet, alice, "group:g")
    await phone.acknowledge(phone.last_ids())
    await phone.leave()
    await alice.send_all("group:g", ["still for bob"])
    left = await change(tablet, "leave")
    await alice.send_all("group:g", ["not for bob"])
    await sees(tablet, alice, "all")
    refused = await tablet.send("group:g", "still here?")
    assert refused["code"] == "not_member"

    phone = await Phone.open(second.url, "bob", "phone", offsets={"group:g": "0-0"})
    await sees(phone, alice, "user:bob")
    await sees(phone, alice, "all")
    assert phone.bodies("group:g")[-1] == "still for bob"  # what it missed before is its own
    assert [f["id"] for f in phone.frames if f.get("stream") == "group:g" and f["type"] == "left"] == [left["id"]]
    for device in (phone, tablet):
        assert "not for bob" not in device.bodies()
        assert device.gaps() == []
    await phone.acknowledge({stream: at for stream, at in phone.last_ids().items() if stream != "group:g"})
    await phone.leave()
    new = await Phone.open(first.url, "bob", "new", offsets={"group:g": "0-0"})
    await sees(new, alice, "all")
    assert "group:g" not in new.welcome()["streams"]


async def test_every_device_of_a_user_follows_a_join_and_a_leave(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    await change(alice, "join")
    await alice.send_all("group:g", ["before"])
    phone, tab = await Phone.open(first.url, "bob", "phone"), await Phone.open(first.url, "bob", "phone")
    laptop = await Phone.open(second.url, "bob", "laptop")
    others = (tab, laptop)

    for round_ in range(3):
        answer = await change(phone, "join")
        await alice.send_all("group:g", [f"for bob {round_}"])
        for device in (phone, *others):
            await device.wait("message", body=f"for bob {round_}")
        assert (answer["stream"], answer["user"]) == ("group:g", "bob")
        left = await change(phone, "leave")
        assert parse_id(left["id"]).n == parse_id(answer["id"]).n + 2
        await alice.send_all("group:g", [f"not for bob {round_}"])
        for device in (phone, *others):
            await sees(device, alice, "all")
            await sees(device, alice, "user:bob")
    for device in (phone, *others):
        assert device.bodies("group:g") == [f"for bob {round_}" for round_ in range(3)]
        assert device.gaps() == []
        assert device.closed is None
        hints = [f["type"] for f in device.frames if f.get("stream") == "user:bob" and f["type"] in ("joined", "left")]
        assert hints == ["joined", "left"] * 3


async def test_a_new_device_begins_at_the_start_of_the_inbox_at_joining_and_now(start_node: StartNode) -> None:
    node = start_node()

    async def open_new(url: str = node.url) -> Phone:
        return await Phone.open(url, "bob", "new")

    alice = await Phone.open(node.url, "alice")
    await change(alice, "join")
    await alice.send_all("group:g", ["before joining"])
    await alice.send_all("all", ["long ago"])
    await alice.send_all("user:bob", ["direct 1"])
    old = await Phone.open(node.url, "bob", "old")
    joined = await change(old, "join")
    await alice.send_all("group:g", ["in the group"])
    await alice.send_all("user:bob", ["direct 2"])
    await alice.send_all("all", ["just now"])

    new = await open_new()
    streams = new.welcome()["streams"]
    assert {stream: state["missed"] for stream, state in streams.items()} == {"user:bob": 3, "group:g": 1, "all": 0}
    assert (streams["group:g"]["offset"], streams["user:bob"]["offset"]) == (joined["id"], "0-0")
    assert new.bodies() == ["direct 1", "direct 2", "in the group"]
    new.cut()  # the start is stored before `welcome`: what comes while it is away comes when it is back
    await alice.send_all("all", ["while away"])
    new = await open_new()
    assert sorted(new.bodies()) == ["direct 1", "direct 2", "in the group", "while away"]
    assert new.gaps() == []


async def test_an_offset_brought_from_before_joining_reaches_no_further_back_than_that(start_node: StartNode) -> None:
    node: NodeProcess = start_node()
    alice = await Phone.open(node.url, "alice")
    start = (await change(alice, "join"))["id"]
    [before] = await alice.send_all("group:g", ["before joining"])
    bob = await Phone.open(node.url, "bob")
    joined = await change(bob, "join")
    await alice.send_all("group:g", range(5))
    await bob.until(lambda: len(bob.messages()) == 5, "five")
    await bob.acknowledge(bob.last_ids())
    await bob.leave()

    for offset in ("0-0", start, before["id"], joined["id"]):
        bob = await Phone.open(node.url, "bob", offsets={"group:g": offset})
        assert bob.bodies("group:g") == list(range(5))
        assert numbers(bob, "group:g")[-5:] == [parse_id(joined["id"]).n + 1 + at for at in range(5)]
        assert bob.gaps() == []
        await bob.leave()
    bob = await Phone.open(node.url, "bob")  # nothing of that moved what the server keeps
    assert bob.messages() == []
