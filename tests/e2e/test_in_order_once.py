"""Promise 2: within a stream every device sees entries in order, once; a repeated key is stored once."""

import asyncio
import itertools
import json

import pytest

from service.core.names import parse_id
from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.kit import Device, numbers, true
from tests.service import ENTRY_TYPES, Frame, Phone

pytestmark = pytest.mark.anyio

STREAMS = ("user:bob", "group:g0", "group:g1", "group:g2", "all")
EACH = 400  # messages in each: more than a page
PAD = "x" * 3900  # so that a cut finds a good part of them still on their way


@pytest.mark.parametrize("remembers", [True, False], ids=["own offsets", "the server's offsets"])
async def test_a_replay_cut_at_several_points_brings_each_message_once_after_what_was_acknowledged(
    start_nodes: StartNodes, remembers: bool
) -> None:
    first, second = start_nodes("first", "second")
    bob = Device("bob", remembers=remembers)
    phone = await bob.connect(first.url)
    alice = await Phone.open(first.url, "alice")
    for stream in STREAMS[1:4]:
        for member in (phone, alice):
            await member.say(type="join", ref=stream, group=stream.removeprefix("group:"))
            await member.wait("joined", ref=stream)
    await phone.leave()
    bob = Device("bob", remembers=remembers)  # the next connection begins at the point of joining
    for at in range(0, EACH, 100):
        for stream in STREAMS:
            await alice.send_all(stream, [[number, PAD] for number in range(at, at + 100)])

    nodes = itertools.cycle((first, second))
    for cut_after in (1, 130, 199, 10, 250, 100):
        phone = await bob.connect(next(nodes).url)
        await phone.until(lambda n=cut_after, p=phone: len(p.messages()) >= n, "part of the replay")  # type: ignore[misc]
        if cut_after in (130, 250):
            await bob.acknowledge()
        phone.cut()
        await phone.ends()
        bob.take()
        assert not [frame for frame in phone.frames if frame["type"] == "live"], "was cut in the middle"
    await bob.connect(first.url)
    await bob.phone.wait("live")
    bob.take()

    for stream in STREAMS:
        assert bob.bodies(stream) == [[number, PAD] for number in range(EACH)]
    await bob.acknowledge()
    await bob.phone.leave()
    again = await Phone.open(second.url, "bob", "phone")
    assert again.messages() == []
    assert again.gaps() == []


async def test_a_repeated_key_is_stored_once_and_answered_with_the_same_id(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    bob = await Phone.open(first.url, "bob")
    alice = await Phone.open(first.url, "alice", "phone")
    stored = await alice.send("user:bob", "once", key="k")
    again = await alice.send("user:bob", "once", key="k")
    for copy in range(20):  # in one batch
        await alice.say(type="send", ref=copy, to="user:bob", body="at once", key="k2")
    await alice.until(lambda: all(alice.answer_to(copy) for copy in range(20)), "twenty answers")
    at_once = [alice.answer_to(copy) or {} for copy in range(20)]

    assert (stored["type"], stored["duplicate"], stored["mid"]) == ("sent", False, "k")
    assert again | {"ref": stored["ref"]} == stored | {"duplicate": True}
    assert {answer["id"] for answer in at_once} == {at_once[0]["id"]}
    assert [answer["duplicate"] for answer in at_once] == [False] + [True] * 19
    await alice.leave()

    alice = await Phone.open(second.url, "alice", "laptop")  # the key is the user's, not the device's
    moved = await alice.send("user:bob", "once", key="k")
    other_body = await alice.send("user:bob", "something else", key="k")
    other_stream = await alice.send("all", "once", key="k")
    other_sender = await bob.send("user:bob", "once", key="k")

    assert (moved["id"], moved["duplicate"]) == (stored["id"], True)
    assert (other_body["type"], other_body["code"], other_body["retry"]) == ("error", "key_reused", False)
    assert (other_stream["type"], other_stream["duplicate"]) == ("sent", False)
    assert (other_sender["type"], other_sender["duplicate"]) == ("sent", False)
    await bob.wait("message", stream="all")
    assert [(m["from"], m["body"]) for m in bob.messages("user:bob")] == [("alice", "once"), ("alice", "at once")]
    assert len(numbers(bob, "user:bob")) == 3  # two from alice, one to oneself


async def test_what_one_connection_sends_takes_effect_in_order(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    carol = await Phone.open(second.url, "carol")
    await carol.say(type="join", ref=0, group="g")
    await carol.wait("joined", ref=0)
    alice = await Phone.open(first.url, "alice")
    frames: list[Frame] = [
        {"type": "send", "ref": 0, "to": "group:g", "body": "not yet"},
        {"type": "join", "ref": 1, "group": "g"},
        {"type": "send", "ref": 2, "to": "group:g", "body": "one"},
        {"type": "send", "ref": 3, "to": "group:g", "body": "two"},
        {"type": "leave", "ref": 4, "group": "g"},
        {"type": "send", "ref": 5, "to": "group:g", "body": "no more"},
        {"type": "join", "ref": 6, "group": "g"},
        {"type": "send", "ref": 7, "to": "group:g", "body": "three"},
    ]
    await alice.websocket.send("\n".join(json.dumps(frame) for frame in frames))  # one segment
    await alice.until(lambda: all(alice.answer_to(ref) for ref in range(8)), "every answer")
    answers = [alice.answer_to(ref) or {} for ref in range(8)]

    assert [a.get("code", a["type"]) for a in answers] == [
        "not_member", "joined", "sent", "sent", "left", "not_member", "joined", "sent",
    ]  # fmt: skip
    assert [parse_id(a["id"]).n for a in answers if "id" in a] == [2, 3, 4, 5, 6, 7]  # carol's joined is 1
    await carol.wait("message", body="three")
    seen = [f.get("body", f["type"]) for f in carol.frames if f.get("stream") == "group:g" and f["type"] != "live"]
    assert seen == ["joined", "joined", "one", "two", "left", "joined", "three"]
    assert numbers(carol, "group:g") == list(range(1, 8))
    await alice.until(lambda: 7 in numbers(alice, "group:g"), "the last one")
    assert sorted(set(numbers(alice, "group:g"))) == [2, 3, 4, 5, 6, 7]


async def test_everybody_in_a_group_sees_the_same_entries_in_the_same_order(start_nodes: StartNodes) -> None:
    nodes = start_nodes("first", "second")
    phones = [await Phone.open(nodes[at % 2].url, f"user{at}") for at in range(4)]
    for phone in phones:
        await phone.say(type="join", ref=0, group="g")
        await phone.wait("joined", ref=0)
    await asyncio.gather(*(phone.send_all("group:g", [f"{phone.user}-{at}" for at in range(150)]) for phone in phones))
    last = 4 + 4 * 150
    for phone in phones:
        await phone.until(lambda p=phone: last in numbers(p, "group:g"), "the last entry")  # type: ignore[misc]

    whole: dict[str, Frame] = {}
    for at, phone in enumerate(phones):
        assert sorted(set(numbers(phone, "group:g"))) == list(range(at + 1, last + 1))
        for frame in phone.frames:
            if frame["type"] in ENTRY_TYPES and frame.get("stream") == "group:g" and "ref" not in frame:
                assert whole.setdefault(frame["id"], frame) == frame
    in_order = sorted(whole.items(), key=lambda entry: parse_id(entry[0]))
    for sender in phones:
        bodies = [frame["body"] for _, frame in in_order if frame.get("from") == sender.user]
        assert bodies == [f"{sender.user}-{at}" for at in range(150)]


async def test_connections_of_one_device_each_get_everything_and_share_the_offset(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    tabs = [await Phone.open(node.url, "bob", "browser") for node in (first, first, second)]
    alice = await Phone.open(second.url, "alice")
    answers = await alice.send_all("user:bob", range(50))
    assert len({answer["id"] for answer in answers}) == 50
    for tab in tabs:
        await tab.until(lambda t=tab: len(t.messages()) >= 50, "all fifty")  # type: ignore[misc]
        assert tab.bodies("user:bob") == list(range(50))

    ids = [frame["id"] for frame in tabs[0].messages()]
    await tabs[0].ack(user_bob=ids[29])
    await tabs[2].ack(user_bob=ids[9])  # the other tab lags: the offset only moves forward
    tabs[1].cut()  # half open: says no goodbye, acknowledges nothing
    another = await Phone.open(first.url, "bob", "browser")
    assert another.welcome()["streams"]["user:bob"]["offset"] == ids[29]
    assert another.welcome()["streams"]["user:bob"]["missed"] == 20
    assert another.bodies() == list(range(30, 50))
    for tab in tabs:
        await tab.leave() if tab is not tabs[1] else await tab.ends()

    other_device = await Phone.open(second.url, "bob", "tablet")
    assert other_device.bodies() == list(range(50))


async def test_own_messages_come_to_the_other_connections_and_are_answered_on_their_own(
    start_nodes: StartNodes,
) -> None:
    first, second = start_nodes("first", "second")
    phone, laptop = await Phone.open(first.url, "alice", "phone"), await Phone.open(second.url, "alice", "laptop")
    tab = await Phone.open(first.url, "alice", "phone")
    answers = await phone.send_all("user:bob", range(20))
    for other in (laptop, tab):
        await other.until(lambda o=other: len(o.messages()) >= 20, "the own messages")  # type: ignore[misc]
        assert [m["id"] for m in other.messages()] == [answer["id"] for answer in answers]
        assert {(m["stream"], m["from"], m["to"]) for m in other.messages()} == {("user:alice", "alice", "user:bob")}
    assert phone.messages() == []
    await phone.ack(user_alice=answers[-1]["id"])
    await phone.leave()
    assert (await Phone.open(second.url, "alice", "phone")).messages() == []


async def test_a_client_that_stops_reading_for_a_moment_misses_nothing_and_sees_nothing_twice(
    start_node: StartNode,
) -> None:
    node = start_node(limits_write_buffer_bytes=65_536)
    alice = await Phone.open(node.url, "alice")
    bob = await Phone.dial(node.url, "bob", receive_buffer=4096)
    await bob.say(type="hello", device="phone")
    await bob.wait("live")
    pad = "x" * 20_000
    for round_ in range(3):
        bob.stop_reading()
        await alice.send_all("user:bob", [[round_, at, pad] for at in range(300)])
        bob.go_on_reading()
        await bob.until(lambda r=round_: len(bob.messages()) >= 300 * (r + 1), "all of the round", 30)  # type: ignore[misc]
        await bob.wait("live", stream="user:bob")
        await alice.send_all("all", [round_])
        await bob.wait("message", stream="all", body=round_)
    assert [body[:2] for body in bob.bodies("user:bob")] == [[r, at] for r in range(3) for at in range(300)]
    assert numbers(bob, "user:bob") == list(range(1, 901))
    await true(lambda: bob.closed is None, "still open")
