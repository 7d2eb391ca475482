"""A call was carried out, and its answer never came: the client is told that nobody knows, and a repeat is harmless."""

import pytest

from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server, key_of, numbers_in
from tests.integration.wire.kit import join, leave, stored_offset
from tests.proxy import Proxy
from tests.service import Frame, Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

STREAMS = ("group:g", "user:bob", "all")


async def send_into_the_dark(phone: Phone, proxy: Proxy, to: str, body: str, key: str | None) -> Frame:
    """A send that is stored, and whose answer is lost; how the client is answered."""
    lost = proxy.lose_answers("publish_v4")
    answer = await phone.send(to, body, key=key)
    while answer.get("code") == "unavailable":  # not stored, since the last one that was lost: say it again
        answer = await phone.send(to, body, key=key)
    assert lost.hits == 1
    return answer


async def test_a_send_whose_answer_was_lost_is_uncertain_and_stored_once_when_repeated_with_its_key(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    with Proxy(database.url) as elsewhere:
        [near], [far] = start_nodes("near", beat_s=0.2), start_nodes("far", through=elsewhere)
        alice, bob = await Phone.open(near.url, "alice"), await Phone.open(far.url, "bob")
        for member in (alice, bob):
            await join(member, "g")
        for to in STREAMS:
            held = proxy.hold_calls("XREAD")  # else the reader may come to the entry before the call has failed
            await true(lambda held=held: held.hits, "the reader is held up")  # type: ignore[misc]
            answer = await send_into_the_dark(alice, proxy, to, f"keyed {to}", f"key {to}")
            assert (answer["code"], answer["retry"]) == ("uncertain", True)
            answer = await send_into_the_dark(alice, proxy, to, f"unkeyed {to}", None)
            assert (answer["code"], answer["retry"]) == ("uncertain", False)  # a repeat might come twice
            held.release()
            again = await insist(alice, to, f"keyed {to}", key=f"key {to}")
            assert again["duplicate"] is True
            await alice.wait("message", id=again["id"], stream=again["stream"])  # its answer was an error
            await bob.wait("message", body=f"unkeyed {to}")

        for to in STREAMS:  # nobody repeated anything by itself
            assert bob.bodies(to) == [f"keyed {to}", f"unkeyed {to}"]
            mine = "user:alice" if to == "user:bob" else to
            assert [body for body in alice.bodies(mine) if to in body] == [f"keyed {to}", f"unkeyed {to}"]
        assert numbers_in(database.admin, "group:g") == [1, 2, 3, 4]
        assert alice.closed is bob.closed is None
        assert bob.gaps() == alice.gaps() == []


async def test_where_the_reader_comes_to_the_entry_first_the_send_is_answered_although_the_call_is_not(
    proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", call_timeout_s=0.5)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    lost = proxy.lose_answers("publish_v4", silently=True)
    assert (await alice.send("user:bob", "once"))["type"] == "sent"
    await true(lambda: "no answer in time" in node.said(), "the missing answer is noticed")
    assert lost.hits == 1
    await insist(alice, "user:bob", "twice", key="k")
    await bob.wait("message", body="twice")
    assert bob.bodies() == ["once", "twice"]
    assert [frame["type"] for frame in alice.frames if "ref" in frame].count("sent") == 2
    assert numbers(alice, "user:alice") == [1, 2]


async def test_a_join_or_leave_whose_answer_was_lost_may_be_repeated(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", call_timeout_s=1)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await join(alice, "g")
    proxy.lose_answers("join_v4")
    answer = await join(bob, "g")
    assert (answer["code"], answer["retry"]) == ("uncertain", True)
    joined = await alice.wait("joined", user="bob")
    await insist(alice, "group:g", "hello", key="k")
    await bob.wait("message", body="hello")  # the inbox told
    again = await join(bob, "g")
    assert (again["type"], again["id"]) == ("joined", joined["id"])

    proxy.lose_answers("leave_v4")
    answer = await leave(bob, "g")
    while answer.get("code") == "unavailable":
        answer = await leave(bob, "g")
    assert answer.get("code", "left") in ("uncertain", "left")  # the reader may be first
    await alice.wait("left", user="bob")
    assert (await leave(bob, "g"))["code"] == "not_member"
    await insist(alice, "group:g", "not for bob", key="k2")
    await alice.send_all("user:bob", ["mark"])
    await bob.wait("message", body="mark")
    assert bob.bodies() == ["hello", "mark"]
    assert numbers_in(database.admin, "group:g") == [1, 2, 3, 4, 5]


async def test_a_hello_or_an_ack_whose_answer_was_lost_is_harmless_when_it_comes_again(
    database: Server, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice = await Phone.open(node.url, "alice")
    proxy.lose_answers("open_v3")
    bob = await Phone.dial(node.url, "bob")
    await bob.say(type="hello", device="phone")
    assert await bob.ends() == 4000
    assert [(frame["code"], frame["retry"]) for frame in bob.frames] == [("unavailable", True)]
    assert database.admin.hkeys(key_of("d", "user:bob", "bob")) == [b"phone"]  # it was carried out
    await true(node.is_ready, "ready again")
    await insist(alice, "all", "while away", key="k")
    bob = await Phone.open(node.url, "bob", "phone")
    assert bob.bodies() == ["while away"]  # its start was stored then, not now

    lost = proxy.lose_answers("commit_v2")
    await bob.say(type="ack", ref="ack", offsets=bob.last_ids())
    refused = await bob.wait("error", ref="ack")
    assert (refused["code"], refused["retry"]) == ("uncertain", True)
    assert lost.hits == 1
    await true(node.is_ready, "ready again")
    await bob.acknowledge(bob.last_ids())
    assert stored_offset(database, "bob", "phone", "all") == bob.last_ids()["all"]
