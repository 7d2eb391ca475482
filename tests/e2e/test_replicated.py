"""Promise 6, with a replica: the answer says `replicated` only for a write that a replica has."""

import asyncio
from collections.abc import Iterator

import pytest

from migrations import __main__ as migrations
from tests.e2e.kit import numbers
from tests.integration.store.kit import Server, wait_until
from tests.service import NodeProcess, Phone, free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def replicated() -> Iterator[tuple[Server, Server]]:
    """A primary and its replica."""
    port = free_port()
    primary = Server("valkey", "--port", str(port), "--repl-diskless-sync-delay", "0")
    replica = Server("valkey", "--replicaof", "127.0.0.1", str(port))
    try:
        primary.start()
        replica.start()
        asyncio.run(migrations.up(primary.url))
        primary.admin.set("tests", "WAIT speaks of the writes of its own connection")
        wait_until(lambda: primary.admin.execute_command("WAIT", 1, 100) == 1, "the replica follows")
        yield primary, replica
    finally:
        replica.remove()
        primary.remove()


@pytest.fixture
def node(replicated: tuple[Server, Server]) -> Iterator[NodeProcess]:
    node = NodeProcess(replicated[0].url, "a", wait_replicas=1, wait_timeout_ms=300)
    try:
        yield node.start()
    finally:
        node.remove()


def sends(phone: Phone) -> list[int]:
    """The numbers of what was sent to the group, after the two `joined`."""
    return [number for number in numbers(phone, "group:g") if number > 2]


async def test_sent_says_replicated_and_keeps_its_place_among_the_pushes(node: NodeProcess) -> None:
    for user in ("alice", "bob"):
        phone = await Phone.open(node.url, user)
        await phone.say(type="join", ref="j", group="g")
        await phone.wait("joined", ref="j")
        await phone.acknowledge(phone.last_ids())
        await phone.leave()
    alice = await Phone.open(node.url, "alice")
    bob = await Phone.open(node.url, "bob")  # live on the group, both of them
    for number in range(40):
        await alice.say(type="send", ref=f"a{number}", to="group:g", body=["alice", number])
        await bob.say(type="send", ref=f"b{number}", to="group:g", body=["bob", number])
    for phone in (alice, bob):
        await phone.until(lambda p=phone: len(sends(p)) >= 80, "all of both")  # type: ignore[misc]

    for phone, letter in ((alice, "a"), (bob, "b")):
        sent = [frame for frame in phone.frames if frame["type"] == "sent"]
        assert [frame["ref"] for frame in sent] == [f"{letter}{number}" for number in range(40)]
        assert {frame["durability"] for frame in sent} == {"replicated"}
        assert sends(phone) == list(range(3, 83))  # each number once, in order, `sent` in the place of the entry


async def test_without_the_replica_the_answer_says_less(node: NodeProcess, replicated: tuple[Server, Server]) -> None:
    alice = await Phone.open(node.url, "alice")
    assert (await alice.send("user:bob", 1))["durability"] == "replicated"
    replicated[1].kill()
    assert (await alice.send("user:bob", 2))["durability"] == "fsynced"
