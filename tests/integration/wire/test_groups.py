"""`join` and `leave`: the answers, the entries that others see, and what a member gets before, between and after."""

import json
from collections.abc import Callable

import pytest

from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, join, leave, n_of, types_of
from tests.service import Frame, Phone

pytestmark = pytest.mark.anyio


def entries(phone: Phone, stream: str) -> list[Frame]:
    """What a stream brought, answers included, in order. An entry that came as an answer and once more, as it does
    while a connection is behind, counts once.
    """
    found = {frame["id"]: frame for frame in phone.frames if frame.get("stream") == stream and "id" in frame}
    return sorted(found.values(), key=lambda frame: n_of(frame["id"]))


async def as_members(net: Net, group: str, *users: str) -> list[Phone]:
    """Connections of users who have joined, live on the group from the start."""
    for user in users:
        phone = await net.open(user)
        await join(phone, group)
        await phone.leave()
    return [await net.open(user) for user in users]


# -- joining -----------------------------------------------------------------------------------------------------------


async def test_join_is_answered_with_the_own_entry_of_the_group(net: Net, alice: str, group: str) -> None:
    phone = await net.open(alice)
    joined = await join(phone, group)
    assert joined.keys() == {"type", "stream", "id", "user", "group", "ref"}
    assert (joined["type"], joined["stream"], joined["user"], joined["group"]) == (
        "joined", f"group:{group}", alice, group,
    )  # fmt: skip
    assert n_of(joined["id"]) == 1
    assert (await phone.send(f"group:{group}", "hello"))["id"].endswith("-2")


async def test_joining_is_told_in_the_own_inbox_and_to_the_members(net: Net, alice: str, bob: str, group: str) -> None:
    member, phone = await net.open(bob), await net.open(alice)
    await join(member, group)
    joined = await join(phone, group)
    told = await member.wait("joined", user=alice)
    assert told == {key: value for key, value in joined.items() if key != "ref"}
    hint = await phone.wait("joined", stream=f"user:{alice}")
    assert (hint["user"], hint["group"]) == (alice, group)
    assert "ref" not in hint
    await phone.send(f"group:{group}", "mark")
    await member.wait("message", body="mark")
    assert types_of(entries(member, f"group:{group}")) == ["joined", "joined", "message"]
    assert [n_of(entry["id"]) for entry in entries(phone, f"group:{group}")] == [2, 3]


async def test_joining_twice_adds_nothing_and_answers_the_first_id(net: Net, alice: str, bob: str, group: str) -> None:
    phone, laptop, member = await net.open(alice, "phone"), await net.open(alice, "laptop"), await net.open(bob)
    await join(member, group)
    first = await join(phone, group)
    for again in (await join(phone, group), await join(laptop, group)):
        assert {**again, "ref": 0} == {**first, "ref": 0}
    await phone.send(f"group:{group}", "mark")
    await member.wait("message", body="mark")
    assert types_of(entries(member, f"group:{group}")) == ["joined", "joined", "message"]


async def test_both_devices_of_who_joins_get_the_group_from_there_on(
    net: Net, alice: str, bob: str, group: str
) -> None:
    talker = await net.open(bob)
    await join(talker, group)
    await talker.send(f"group:{group}", "before")
    phone, laptop = await net.open(alice, "phone"), await net.open(alice, "laptop")
    await join(phone, group)
    for number in range(20):
        await talker.send(f"group:{group}", number)
    for device in (phone, laptop):
        await device.wait("message", body=19)
        assert device.bodies(f"group:{group}") == list(range(20))


async def test_device_that_was_away_while_another_joined_gets_the_group_from_the_point_of_joining(
    net: Net, alice: str, bob: str, group: str
) -> None:
    laptop = await net.open(alice, "laptop")
    await laptop.leave()
    talker, phone = await net.open(bob), await net.open(alice, "phone")
    await join(talker, group)
    await talker.send(f"group:{group}", "before")
    await join(phone, group)
    await talker.send(f"group:{group}", "after")
    laptop = await net.open(alice, "laptop")
    assert laptop.bodies() == ["after"]


async def test_join_and_send_in_one_frame_take_effect_in_that_order(net: Net, alice: str, group: str) -> None:
    phone = await net.open(alice)
    lines: list[Frame] = [
        {"type": "send", "ref": 1, "to": f"group:{group}", "body": "too early"},
        {"type": "join", "ref": 2, "group": group},
        {"type": "send", "ref": 3, "to": f"group:{group}", "body": "in time"},
        {"type": "leave", "ref": 4, "group": group},
        {"type": "send", "ref": 5, "to": f"group:{group}", "body": "too late"},
    ]
    await phone.websocket.send("\n".join(map(json.dumps, lines)))
    await phone.until(lambda: all(phone.answer_to(ref) for ref in range(1, 6)), "all are answered")
    answers = [phone.answer_to(ref) or {} for ref in range(1, 6)]
    assert [answer.get("code", answer["type"]) for answer in answers] == [
        "not_member", "joined", "sent", "left", "not_member",
    ]  # fmt: skip
    assert [n_of(answers[at]["id"]) for at in (1, 2, 3)] == [1, 2, 3]


async def test_sends_to_others_are_not_lost_behind_a_refused_join(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send(
        '{"type":"join","ref":1,"group":"a/b"}\n{"type":"send","ref":2,"to":"user:%s","body":"after"}' % bob
    )
    await phone.wait("error", ref=1, code="bad_name")
    await phone.wait("sent", ref=2)


@pytest.mark.parametrize("name", ["ä" * 128, "a:b|c", "all", "user:x", "group:g"])
async def test_group_may_have_any_name(net: Net, alice: str, fresh: Callable[[str], str], name: str) -> None:
    phone = await net.open(alice)
    assert (await join(phone, name))["stream"] == f"group:{name}"
    assert (await phone.send(f"group:{name}", "x"))["type"] == "sent"
    assert (await leave(phone, name))["type"] == "left"


async def test_user_in_as_many_groups_as_allowed_joins_no_further_one(
    net: Net, start_node: StartNode, alice: str, fresh: Callable[[str], str]
) -> None:
    net = net.at(start_node(limits_streams_per_user=3))
    phone = await net.open(alice)
    assert phone.welcome()["limits"]["streams_per_user"] == 3
    groups = [fresh("g") for _ in range(4)]
    for group in groups[:3]:
        assert (await join(phone, group))["type"] == "joined"
    error = await join(phone, groups[3])
    assert (error["type"], error["code"], error["retry"]) == ("error", "too_many_streams", False)
    assert (await join(phone, groups[0]))["type"] == "joined"  # a member already
    await leave(phone, groups[0])
    assert (await join(phone, groups[3]))["type"] == "joined"


async def test_who_may_not_create_groups_is_told_so(net: Net, start_node: StartNode, alice: str, group: str) -> None:
    phone = await net.at(start_node(groups_create="keys")).open(alice)
    error = await join(phone, group)
    assert (error["type"], error["code"], error["retry"]) == ("error", "group_closed", False)


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leave_is_answered_once_in_its_place_and_told_to_the_members(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone, member = await as_members(net, group, alice, bob)
    for number in range(10):
        await member.say(type="send", to=f"group:{group}", body=number)
    left = await leave(phone, group)
    assert left.keys() == {"type", "stream", "id", "user", "group", "ref"}
    assert (left["type"], left["stream"], left["user"], left["group"]) == ("left", f"group:{group}", alice, group)
    told = await member.wait("left")
    assert told == {key: value for key, value in left.items() if key != "ref"}
    await member.send(f"group:{group}", "not for alice")
    await member.send(f"user:{alice}", "mark")
    await phone.wait("message", body="mark")
    seen = [frame for frame in phone.frames if frame.get("stream") == f"group:{group}"]
    assert types_of(seen).count("left") == 1
    numbers = [n_of(frame["id"]) for frame in seen]
    assert numbers == list(range(numbers[0], n_of(left["id"]) + 1))  # up to the own leaving, without a hole
    hint = [frame for frame in entries(phone, f"user:{alice}") if frame["type"] == "left"]
    assert [frame["group"] for frame in hint] == [group]


async def test_leaving_a_group_one_is_not_in_is_refused(net: Net, alice: str, bob: str, group: str) -> None:
    phone = await net.open(alice)
    assert (await leave(phone, group))["code"] == "not_member"
    await join(await net.open(bob), group)
    assert (await leave(phone, group))["code"] == "not_member"
    await join(phone, group)
    await leave(phone, group)
    error = await leave(phone, group)
    assert (error["type"], error["code"], error["retry"]) == ("error", "not_member", False)


async def test_both_devices_of_who_leaves_hear_nothing_more_of_the_group(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone, laptop, member = await net.open(alice, "phone"), await net.open(alice, "laptop"), await net.open(bob)
    for one in (member, phone):
        await join(one, group)
    await member.send(f"group:{group}", "for all")
    await laptop.wait("message", body="for all")
    left = await leave(phone, group)
    assert (await laptop.wait("left", stream=f"group:{group}"))["id"] == left["id"]
    await member.send(f"group:{group}", "not for alice")
    await member.send(f"user:{alice}", "mark")
    for device in (phone, laptop):
        await device.wait("message", body="mark")
        assert device.bodies(f"group:{group}") == ["for all"]


async def test_device_that_was_away_gets_what_it_missed_before_the_user_left_and_nothing_later(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone, member = await as_members(net, group, alice, bob)
    laptop = await net.open(alice, "laptop")
    await laptop.leave()
    await member.send(f"group:{group}", "while a member")
    left = await leave(phone, group)
    await member.send(f"group:{group}", "after")
    laptop = await net.open(alice, "laptop")
    assert laptop.welcome()["streams"][f"group:{group}"]["head"] == left["id"]
    assert laptop.bodies() == ["while a member"]
    assert laptop.frames[-1] == {"type": "live"}
    await laptop.acknowledge(laptop.last_ids())
    await laptop.leave()
    laptop = await net.open(alice, "laptop")
    assert f"group:{group}" not in laptop.welcome()["streams"]
    assert laptop.messages() == []
    tablet = await net.open(alice, "tablet")  # a new device has no share in it
    assert f"group:{group}" not in tablet.welcome()["streams"]


async def test_who_comes_back_to_a_group_sees_nothing_of_the_time_between(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone, laptop, member = await net.open(alice, "phone"), await net.open(alice, "laptop"), await net.open(bob)
    for one in (member, phone):
        await join(one, group)
    await member.send(f"group:{group}", "first time")
    await laptop.acknowledge({f"group:{group}": (await laptop.wait("message", body="first time"))["id"]})
    await laptop.leave()
    await member.send(f"group:{group}", "still the first time")
    first = (await leave(phone, group))["id"]
    await member.send(f"group:{group}", "between")
    again = await join(phone, group)
    assert n_of(again["id"]) == n_of(first) + 2
    await member.send(f"group:{group}", "second time")
    await phone.wait("message", body="second time")
    assert phone.bodies(f"group:{group}") == ["first time", "still the first time", "second time"]
    assert phone.gaps() == []
    laptop = await net.open(alice, "laptop")  # it gets what it lacks of both times
    assert laptop.bodies(f"group:{group}") == ["still the first time", "second time"]
    assert laptop.gaps() == []
    tablet = await net.open(alice, "tablet")
    assert tablet.bodies(f"group:{group}") == ["second time"]


async def test_last_member_may_leave_and_others_come_to_the_same_stream(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    await join(phone, group)
    await phone.send(f"group:{group}", "alone")
    left = await leave(phone, group)
    joined = await join(other, group)
    assert n_of(joined["id"]) == n_of(left["id"]) + 1
    assert other.messages() == []


async def test_group_joined_and_left_at_once_is_told_once_on_every_device(
    net: Net, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    """The news of the joining are old when they arrive: nobody may begin to follow the group once more."""
    member = await net.open(bob)
    devices = [await net.open(alice, f"device{n}") for n in range(4)]
    groups = [fresh("g") for _ in range(60)]
    for group in groups:
        await join(member, group)
        await join(devices[0], group)
        await leave(devices[0], group)
    await member.send(f"user:{alice}", "mark")
    for device in devices:
        await device.wait("message", body="mark")
        hints = entries(device, f"user:{alice}")
        assert types_of(hints) == ["joined", "left"] * len(groups) + ["message"]
    for group in groups:  # that no frame comes twice is what `Phone` looks at
        assert types_of(entries(devices[0], f"group:{group}")) == ["joined", "left"]


# -- groups too large to tell who comes and goes -----------------------------------------------------------------------


async def test_above_the_threshold_joining_and_leaving_is_not_told_and_answered_with_the_head(
    net: Net, start_node: StartNode, alice: str, fresh: Callable[[str], str], group: str
) -> None:
    net = net.at(start_node(announce=2))
    members = [await net.open(fresh("member")) for _ in range(2)]
    for member in members:
        await join(member, group)
    head = (await members[0].send(f"group:{group}", "before"))["id"]
    phone = await net.open(alice)
    joined = await join(phone, group)
    assert (joined["type"], joined["id"]) == ("joined", head)
    assert (await join(phone, group))["id"] == head
    await members[0].send(f"group:{group}", "during")
    await phone.wait("message", body="during")
    left = await leave(phone, group)
    assert (left["type"], n_of(left["id"])) == ("left", n_of(head) + 1)
    await members[0].send(f"group:{group}", "after")
    await members[0].send(f"user:{alice}", "mark")
    await phone.wait("message", body="mark")
    assert phone.bodies(f"group:{group}") == ["during"]
    hints = [frame["type"] for frame in phone.frames if frame.get("stream") == f"user:{alice}"]
    assert hints == ["joined", "left", "message"]  # the own inbox tells them at any size
    await members[1].wait("message", body="after")
    assert types_of(entries(members[1], f"group:{group}")) == ["joined", "message", "message", "message"]


async def test_leave_of_a_large_group_is_answered_once_and_after_what_was_sent_before_it(
    net: Net, start_node: StartNode, alice: str, bob: str, group: str
) -> None:
    net = net.at(start_node(announce=0))
    phone, member = await net.open(alice, "phone"), await net.open(bob)
    laptop = await net.open(alice, "laptop")
    for one in (phone, member):
        await join(one, group)
    await member.send(f"group:{group}", "settled")
    for device in (phone, laptop):
        await device.wait("message", body="settled")
    for number in range(10):
        await member.send(f"group:{group}", number)
    left = await leave(phone, group)
    await member.send(f"group:{group}", "after")
    await member.send(f"user:{alice}", "mark")
    for device in (phone, laptop):
        await device.wait("message", body="mark")
        await device.until(lambda one=device: 9 in one.bodies(), "all of its time")  # type: ignore[misc]
        assert device.bodies(f"group:{group}") == ["settled", *range(10)]
    assert types_of([frame for frame in phone.frames if frame.get("ref") == left["ref"]]) == ["left"]
