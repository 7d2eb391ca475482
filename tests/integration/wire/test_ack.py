"""`ack` and brought offsets: what a device has, where it goes on, and what is refused."""

import time

import pytest

from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, eventually, join, leave, n_of, stored_offset
from tests.service import Frame, Phone

pytestmark = pytest.mark.anyio


async def fill(net: Net, sender: str, to: str, count: int) -> list[Frame]:
    """Numbers sent to a user, 0, 1, 2 …; returns the answers."""
    phone = await net.open(sender, "filler")
    return [await phone.send(to, number) for number in range(count)]


async def ack(phone: Phone, offsets: dict[str, str]) -> Frame:
    """Acknowledges with a `ref` and returns the answer."""
    ref = f"a{len(phone.frames)}"
    await phone.say(type="ack", ref=ref, offsets=offsets)
    await phone.until(lambda: phone.answer_to(ref), "an answer to ack")
    answer = phone.answer_to(ref)
    assert answer is not None
    return answer


# -- what an ack does --------------------------------------------------------------------------------------------------


async def test_ack_with_ref_is_answered_once_stored(net: Net, database: Server, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 5)
    phone = await net.open(alice, "phone")
    third = phone.messages()[2]["id"]
    answer = await ack(phone, {f"user:{alice}": third})
    assert answer == {"type": "acked", "ref": answer["ref"]}
    assert stored_offset(database, alice, "phone", f"user:{alice}") == third
    phone.cut()
    phone = await net.open(alice, "phone")
    assert phone.bodies() == [3, 4]
    assert phone.welcome()["streams"][f"user:{alice}"]["offset"] == third


async def test_ack_without_ref_is_not_answered_and_stored_within_a_second(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    second = phone.messages()[1]["id"]
    before = len(phone.frames)
    began = time.monotonic()
    await phone.say(type="ack", offsets={f"user:{alice}": second})
    stream = f"user:{alice}"
    await eventually(lambda: stored_offset(database, alice, "phone", stream) == second, "the ack is stored")
    assert time.monotonic() - began < 1.5  # a second, and something for a busy machine
    assert len(phone.frames) == before
    again = await net.open(alice, "phone")
    assert again.bodies() == [2]


async def test_ack_without_ref_just_before_hanging_up_is_stored(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    last = phone.messages()[2]["id"]
    await phone.say(type="ack", offsets={f"user:{alice}": last})
    await phone.leave()
    stream = f"user:{alice}"
    await eventually(lambda: stored_offset(database, alice, "phone", stream) == last, "the ack is stored")
    assert (await net.open(alice, "phone")).messages() == []


async def test_what_was_not_acknowledged_comes_again(net: Net, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    for _ in range(3):
        phone = await net.open(alice, "phone")
        assert phone.bodies() == [0, 1, 2]
        await phone.leave()


async def test_each_device_has_its_own_offsets(net: Net, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone, laptop = await net.open(alice, "phone"), await net.open(alice, "laptop")
    await phone.acknowledge({f"user:{alice}": phone.messages()[2]["id"]})
    await laptop.acknowledge({f"user:{alice}": laptop.messages()[0]["id"]})
    for device in (phone, laptop):
        await device.leave()
    assert (await net.open(alice, "phone")).messages() == []
    assert (await net.open(alice, "laptop")).bodies() == [1, 2]


async def test_connections_of_one_device_share_the_offset(net: Net, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    tabs = [await net.open(alice, "browser") for _ in range(2)]
    assert [tab.bodies() for tab in tabs] == [[0, 1, 2]] * 2
    await tabs[0].acknowledge({f"user:{alice}": tabs[0].messages()[1]["id"]})
    assert (await net.open(alice, "browser")).bodies() == [2]


async def test_ack_of_several_streams_at_once(net: Net, alice: str, bob: str, group: str) -> None:
    talker, phone = await net.open(bob), await net.open(alice, "phone")
    for member in (talker, phone):
        await join(member, group)
    sent = [await talker.send(to, "x") for to in (f"user:{alice}", f"group:{group}", "all")]
    await phone.wait("message", id=sent[2]["id"], stream="all")
    await phone.until(lambda: len(phone.messages()) == 3, "all of it")
    await phone.acknowledge(phone.last_ids())
    await phone.leave()
    phone = await net.open(alice, "phone")
    assert phone.messages() == []
    assert all(state["missed"] == 0 for state in phone.welcome()["streams"].values())


async def test_ack_of_nothing_is_answered(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    assert (await ack(phone, {}))["type"] == "acked"


async def test_ack_of_a_sent_counts_as_that_entry(net: Net, alice: str, bob: str, group: str) -> None:
    phone = await net.open(alice, "phone")
    await join(phone, group)
    sent = [await phone.send(to, "mine") for to in (f"user:{bob}", f"group:{group}", "all")]
    await phone.acknowledge({answer["stream"]: answer["id"] for answer in sent})
    await phone.leave()
    phone = await net.open(alice, "phone")
    assert phone.messages() == []


async def test_ack_of_a_sent_right_after_it_came_is_never_refused(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice, "phone")
    for number in range(100):
        sent = await phone.send(f"user:{bob}", number)
        await phone.acknowledge({sent["stream"]: sent["id"]})


async def test_ack_of_the_answers_to_join_and_leave(
    net: Net, database: Server, alice: str, bob: str, group: str
) -> None:
    """A client acknowledges every frame with stream and id; a group that it just left must not spoil the rest."""
    phone = await net.open(alice, "phone")
    joined = await join(phone, group)
    await phone.acknowledge({joined["stream"]: joined["id"]})
    sent = await phone.send(f"user:{bob}", "x")
    left = await leave(phone, group)
    await phone.acknowledge({sent["stream"]: sent["id"], left["stream"]: left["id"]})
    assert stored_offset(database, alice, "phone", f"user:{alice}") == sent["id"]
    beyond = f"{left['id'].split('-')[0]}-{n_of(left['id']) + 1}"
    assert (await ack(phone, {left["stream"]: beyond}))["code"] == "ack_beyond"


@pytest.mark.parametrize("announce", [1000, 0])
async def test_ack_of_a_group_that_another_device_has_just_left_is_taken(
    net: Net, start_node: StartNode, alice: str, bob: str, group: str, *, announce: int
) -> None:
    net = net.at(start_node(announce=announce))
    talker, phone, laptop = await net.open(bob), await net.open(alice, "phone"), await net.open(alice, "laptop")
    for member in (talker, phone):
        await join(member, group)
    await talker.send(f"group:{group}", "x")
    message = await laptop.wait("message", stream=f"group:{group}")
    await leave(phone, group)
    await laptop.wait("left", stream=f"user:{alice}")
    await talker.send(f"user:{alice}", "mark")
    await laptop.wait("message", body="mark")
    await laptop.acknowledge({f"group:{group}": message["id"]})
    await laptop.acknowledge(laptop.last_ids())


# -- what an ack may not do --------------------------------------------------------------------------------------------


async def test_ack_beyond_what_was_delivered_is_refused_and_the_connection_goes_on(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    ms, n = phone.messages()[-1]["id"].split("-")
    for beyond in (f"{ms}-{int(n) + 1}", f"{int(ms) + 1}-{n}", "9999999999999-999999", f"{int(ms) + 1}-1"):
        error = await ack(phone, {f"user:{alice}": beyond})
        assert (error["type"], error["code"], error["retry"]) == ("error", "ack_beyond", False), beyond
    assert stored_offset(database, alice, "phone", f"user:{alice}") == "0-0"
    await phone.acknowledge({f"user:{alice}": f"{ms}-{n}"})


async def test_ack_without_ref_beyond_is_refused_without_one(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.say(type="ack", offsets={f"user:{alice}": "5-5"})
    error = await phone.wait("error")
    assert error["code"] == "ack_beyond"
    assert "ref" not in error


async def test_one_bad_offset_of_an_ack_stores_none_of_it(net: Net, database: Server, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 2)
    phone = await net.open(alice, "phone")
    last = phone.messages()[-1]["id"]
    assert (await ack(phone, {f"user:{alice}": last, "all": "9999999999999-999999"}))["code"] == "ack_beyond"
    await phone.acknowledge({})
    assert stored_offset(database, alice, "phone", f"user:{alice}") == "0-0"


async def test_ack_never_goes_backwards(net: Net, database: Server, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 4)
    phone = await net.open(alice, "phone")
    first, _, third, _ = (message["id"] for message in phone.messages())
    await phone.acknowledge({f"user:{alice}": third})
    await phone.acknowledge({f"user:{alice}": first})
    await phone.acknowledge({f"user:{alice}": "0-0"})
    assert stored_offset(database, alice, "phone", f"user:{alice}") == third
    await phone.leave()
    assert (await net.open(alice, "phone")).bodies() == [3]


async def test_stream_of_somebody_else_cannot_be_acknowledged(
    net: Net, database: Server, alice: str, bob: str, group: str
) -> None:
    other = await net.open(bob)
    await join(other, group)
    sent = await other.send(f"group:{group}", "x")
    phone = await net.open(alice)
    for stream, offset in ((f"user:{bob}", "0-0"), (f"group:{group}", sent["id"]), ("group:nobody-is-here", "0-0")):
        assert (await ack(phone, {stream: offset}))["code"] == "ack_beyond"
        assert stored_offset(database, alice, "default", stream) is None


async def test_bad_ack_is_refused(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    for offsets, code in (
        ({"all": "x"}, "bad_id"),
        ({"all": "1-01"}, "bad_id"),
        ({"all": ""}, "bad_id"),
        ({"everybody": "1-1"}, "bad_stream"),
        ({"user:a b": "1-1"}, "bad_name"),
    ):
        error = await ack(phone, offsets)
        assert error["code"] == code, offsets


# -- offsets that a client brings --------------------------------------------------------------------------------------


async def test_brought_offset_above_the_stored_one_counts_as_an_ack(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 5)
    phone = await net.open(alice, "phone")
    ids = [message["id"] for message in phone.messages()]
    await phone.acknowledge({f"user:{alice}": ids[0]})
    await phone.leave()
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": ids[2]})
    assert phone.bodies() == [3, 4]
    state = phone.welcome()["streams"][f"user:{alice}"]
    assert (state["offset"], state["missed"]) == (ids[2], 2)
    assert stored_offset(database, alice, "phone", f"user:{alice}") == ids[2]
    await phone.leave()
    assert (await net.open(alice, "phone")).bodies() == [3, 4]


async def test_brought_offset_below_the_stored_one_is_the_start_of_this_connection_only(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 5)
    phone = await net.open(alice, "phone")
    ids = [message["id"] for message in phone.messages()]
    await phone.acknowledge({f"user:{alice}": ids[3]})
    await phone.leave()
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": ids[0]})
    assert phone.bodies() == [1, 2, 3, 4]
    assert phone.welcome()["streams"][f"user:{alice}"]["missed"] == 4
    await phone.acknowledge({f"user:{alice}": ids[1]})  # not forward: harmless
    assert stored_offset(database, alice, "phone", f"user:{alice}") == ids[3]
    await phone.leave()
    assert (await net.open(alice, "phone")).bodies() == [4]


async def test_brought_offset_does_not_reach_back_before_the_point_of_joining(
    net: Net, alice: str, bob: str, group: str
) -> None:
    talker, phone = await net.open(bob), await net.open(alice, "phone")
    await join(talker, group)
    before = await talker.send(f"group:{group}", "before")
    joined = await join(phone, group)
    await talker.send(f"group:{group}", "after")
    await phone.wait("message", body="after")
    await phone.leave()
    for offset in ("0-0", before["id"]):
        phone = await net.open(alice, "phone", offsets={f"group:{group}": offset})
        assert phone.bodies(f"group:{group}") == ["after"]
        assert phone.gaps() == []
        assert n_of(phone.welcome()["streams"][f"group:{group}"]["offset"]) == n_of(joined["id"])
        await phone.leave()


async def test_brought_offset_that_was_delivered_here_may_be_acknowledged_again(net: Net, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    ids = [message["id"] for message in phone.messages()]
    await phone.leave()
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": ids[1]})
    await phone.acknowledge({f"user:{alice}": ids[1]})
    await phone.acknowledge({f"user:{alice}": ids[2]})


async def test_brought_offset_of_this_epoch_and_of_none_named_mean_the_same(net: Net, alice: str, bob: str) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    second, epoch = phone.messages()[1]["id"], phone.welcome()["epoch"]
    for named in ({"epoch": epoch}, {"epoch": None}, {}):
        phone = await net.open(alice, f"phone-{len(named)}", offsets={f"user:{alice}": second}, **named)
        assert phone.bodies() == [2]


async def test_brought_offsets_of_streams_that_are_not_ones_own_are_ignored(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone = await net.open(alice, offsets={f"user:{bob}": "1-1", f"group:{group}": "7-7"})
    assert set(phone.welcome()["streams"]) == {f"user:{alice}", "all"}
    assert phone.gaps() == []


@pytest.mark.parametrize("beyond", ["head", "far"])
async def test_brought_offset_above_the_head_is_told_as_a_gap_of_another_epoch(
    net: Net, alice: str, bob: str, beyond: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    ids = [message["id"] for message in phone.messages()]
    await phone.acknowledge({f"user:{alice}": ids[0]})
    await phone.leave()
    ms, n = ids[2].split("-")
    brought = f"{ms}-{int(n) + 1}" if beyond == "head" else "9999999999999-999999"
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": brought})
    (gap,) = phone.gaps()
    assert (gap["stream"], gap["after"], gap["to"]) == (f"user:{alice}", brought, ids[0])
    assert gap["missed"] is None
    assert gap["cause"]["kind"] == "epoch"
    assert phone.bodies() == [1, 2]  # on from the server's own offset
    await phone.acknowledge({f"user:{alice}": ids[2]})


async def test_offsets_of_another_epoch_are_told_as_a_gap_and_the_servers_own_count(
    net: Net, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone")
    ids = [message["id"] for message in phone.messages()]
    await phone.acknowledge({f"user:{alice}": ids[0]})
    await phone.leave()
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": ids[2]}, epoch="another")
    (gap,) = phone.gaps()
    assert (gap["after"], gap["to"], gap["missed"], gap["cause"]["kind"]) == (ids[2], ids[0], None, "epoch")
    assert phone.bodies() == [1, 2]
    assert phone.welcome()["streams"][f"user:{alice}"]["offset"] == ids[0]


async def test_brought_offset_that_names_no_entry_is_told_as_a_gap_of_another_epoch(
    net: Net, alice: str, bob: str
) -> None:
    await fill(net, bob, f"user:{alice}", 3)
    phone = await net.open(alice, "phone", offsets={f"user:{alice}": "1000-2"})
    (gap,) = phone.gaps()
    assert (gap["after"], gap["to"], gap["cause"]["kind"]) == ("1000-2", "0-0", "epoch")
    assert phone.bodies() == [0, 1, 2]
