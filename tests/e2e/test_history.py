"""Looking back keeps the promises too: what is there, once and in order; what is gone, told; only what is one's own."""

import asyncio
from typing import Any

import pytest

from service.core.names import parse_id
from service.store import Store, TrimCause
from tests.e2e.conftest import StartNode, StartNodes
from tests.integration.http.web import fetch, look
from tests.integration.store.kit import Server
from tests.integration.wire.kit import eventually, join, leave
from tests.service import Frame, NodeProcess, Phone

pytestmark = pytest.mark.anyio


async def whole(node: NodeProcess, stream: str, user: str, limit: int = 50) -> tuple[list[Frame], list[Frame]]:
    """All messages and gaps of a stream, from its start along the links."""
    page = await look(node, stream, user, after=0, limit=limit)
    messages, gaps = [*page["messages"]], [*page["gaps"]]
    while page["next"] is not None:
        answer = await fetch(node, page["next"])
        assert answer.status == 200, answer
        page = answer.json
        messages += page["messages"]
        gaps += page["gaps"]
    return messages, gaps


async def test_what_was_answered_is_in_history_on_every_node_also_after_the_store_was_killed(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    sent = await alice.send_all("user:bob", range(300))
    await bob.until(lambda: len(bob.messages()) == 300, "all")
    found, gaps = await whole(first, "user:bob", "bob", 200)
    assert (found, gaps) == (bob.messages(), [])  # as it was pushed, to the letter

    database.kill()
    database.start()
    await eventually(lambda: first.is_ready() and second.is_ready(), "both are ready again", 20)
    assert await whole(second, "user:bob", "bob") == (found, [])
    own, _ = await whole(second, "user:alice", "alice")
    assert [message["id"] for message in own] == [answer["id"] for answer in sent]


async def test_while_a_stream_is_written_to_its_pages_join_and_pushes_go_on(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    await alice.send_all("all", range(50))

    async def write() -> None:
        for at in range(20):
            await alice.send_all("all", range(50 + 50 * at, 100 + 50 * at))

    async def walk() -> list[Any]:
        messages, gaps = await whole(second, "all", "bob", 7)
        assert gaps == []
        return [message["body"] for message in messages]

    _, *walks = await asyncio.gather(write(), walk(), walk(), walk())
    for bodies in walks:
        assert bodies == list(range(len(bodies)))
        assert len(bodies) >= 50
    assert await walk() == list(range(1050))
    await bob.until(lambda: len(bob.messages("all")) == 1050, "all were pushed")
    assert bob.bodies("all") == list(range(1050))


async def test_what_was_trimmed_is_a_gap_in_history_as_in_a_replay(start_node: StartNode, store: Store) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await bob.leave()
    await alice.send_all("user:bob", range(10))
    inbox = (await look(node, "user:bob", "bob"))["messages"]
    await store.trim("user:bob", parse_id(inbox[3]["id"]), TrimCause("old", "max_age=1"))

    bob = await Phone.open(node.url, "bob")
    [missed] = bob.gaps()
    messages, [gap] = await whole(node, "user:bob", "bob", 3)
    assert gap == missed
    assert messages == bob.messages()
    await bob.say(type="history", ref=1, stream="user:bob", before=inbox[2]["id"])
    answer = await bob.wait("history", ref=1)
    assert (answer["messages"], [gap["missed"] for gap in answer["gaps"]]) == ([], [2])


@pytest.mark.parametrize("announce", [1000, 1])
async def test_a_groups_history_is_its_members_for_their_stretches(start_nodes: StartNodes, announce: int) -> None:
    first, second = start_nodes("first", "second", announce=announce)
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    eve = await Phone.open(second.url, "eve")
    await join(alice, "g")
    theirs = []
    for turn in range(3):
        await alice.send_all("group:g", [f"not for bob {turn}"])
        await join(bob, "g")
        theirs += [f"for bob {turn} {at}" for at in range(3)]
        await alice.send_all("group:g", theirs[-3:])
        await leave(bob, "g")
    await alice.send_all("group:g", ["not for bob"])

    for node in (first, second):
        for limit in (1, 2, 200):
            messages, gaps = await whole(node, "group:g", "bob", limit)
            assert [message["body"] for message in messages if message["type"] == "message"] == theirs
            assert gaps == []
            own = [message["type"] for message in messages if message["type"] != "message"]
            assert own == (["joined", "left"] * 3 if announce > 1 else [])
    page = await look(first, "group:g", "bob")
    assert page["head"] == page["last"]
    everything, _ = await whole(first, "group:g", "alice")
    assert len([message for message in everything if message["type"] == "message"]) == 13
    await eve.say(type="history", ref=1, stream="group:g", around=everything[5]["id"])
    assert (await eve.wait("error", ref=1))["code"] == "not_member"
    await eve.say(type="history", ref=2, stream="user:bob")
    assert (await eve.wait("error", ref=2))["code"] == "not_allowed"
