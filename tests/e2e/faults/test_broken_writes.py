"""A write of several keys that fails in the middle: the rest of a batch goes on, and what is half done is completed."""

import json

import pytest

from service.core.names import parse_id
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist
from tests.e2e.kit import numbers
from tests.integration.store.kit import Server, head_of, key_of, numbers_in
from tests.integration.wire.kit import join
from tests.service import Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]


async def test_an_error_in_the_middle_of_a_batch_is_answered_alone(database: Server, start_nodes: StartNodes) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await join(alice, "g")
    await join(bob, "g")
    broken = key_of("s", "user:carol")
    database.admin.set(broken, "no stream")
    tos = ["group:g", "user:bob", "user:carol", "group:g", "group:none", "user:bob", "all"]
    lines = [{"type": "send", "ref": at, "to": to, "body": at} for at, to in enumerate(tos)]
    await alice.websocket.send("\n".join(map(json.dumps, lines)))  # one batch
    await alice.until(lambda: all(alice.answer_to(at) for at in range(len(tos))), "all are answered")

    answers = [alice.answer_to(at) or {} for at in range(len(tos))]
    assert [answer.get("code", answer["type"]) for answer in answers] == [
        "sent", "sent", "internal", "sent", "not_member", "sent", "sent",
    ]  # fmt: skip
    await bob.until(lambda: len(bob.messages()) == 5, "the others")
    assert (bob.bodies("group:g"), bob.bodies("user:bob"), bob.bodies("all")) == ([0, 3], [1, 5], [6])
    assert not database.admin.exists(key_of("h", "user:carol"))  # no number was taken
    assert numbers(alice, "user:alice") == [1, 2, 3]  # of joining, and two copies

    database.admin.delete(broken)
    assert (await alice.send("user:carol", "whole again"))["type"] == "sent"
    carol = await Phone.open(node.url, "carol")
    assert carol.bodies() == ["whole again"]


async def test_a_direct_message_cut_between_its_inboxes_is_uncertain_and_its_key_completes_it(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice, bob = await Phone.open(first.url, "alice", "phone"), await Phone.open(second.url, "bob")
    await alice.send_all("user:bob", ["before"])
    head = head_of(database.admin, "user:alice")
    ahead = f"{head.ms + 10_000_000}-{head.n + 1}"
    # The sender's inbox refuses every id: its stream has seen a later one than its head.
    database.admin.xadd(key_of("s", "user:alice"), {"t": "message"}, id=ahead)
    database.admin.xdel(key_of("s", "user:alice"), ahead)
    for key, retry in (("k", True), (None, False)):
        answer = await alice.send("user:bob", f"cut {key}", key=key)
        assert (answer["type"], answer["code"], answer["retry"]) == ("error", "uncertain", retry)
        await bob.wait("message", body=f"cut {key}")
    assert (await alice.send("user:bob", "cut k", key="k"))["code"] == "uncertain"  # the copy is owed still

    database.admin.hset(key_of("h", "user:alice"), "head", ahead)
    whole = await insist(alice, "user:bob", "cut k", key="k")
    assert (whole["stream"], parse_id(whole["id"]).n) == ("user:alice", head.n + 2)
    await alice.send_all("user:bob", ["after"])
    await bob.wait("message", body="after")
    assert bob.bodies() == ["before", "cut k", "cut None", "after"]
    assert numbers_in(database.admin, "user:bob") == [1, 2, 3, 4]
    laptop = await Phone.open(second.url, "alice", "laptop")
    assert [m["body"] for m in laptop.messages("user:alice") if m["mid"] == "k"] == ["cut k"]
