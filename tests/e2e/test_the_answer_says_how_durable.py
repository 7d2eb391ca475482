"""Promise 6: the answer says how durable it is, as reached by this very write. With replicas: `test_replicated.py`."""

import asyncio

import pytest

from migrations import __main__ as migrations
from tests.integration.store.kit import Server, binary
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio


EVERYSEC = ("--appendfsync", "everysec")


@pytest.mark.parametrize(
    ("product", "options", "durability"),
    [
        ("valkey", (), "fsynced"),
        ("redis", (), "fsynced"),
        ("valkey", EVERYSEC, "memory"),
        ("redis", EVERYSEC, "memory"),
        ("valkey", ("--appendonly", "no"), "memory"),
        ("valkey", ("--rename-command", "CONFIG", ""), "memory"),  # cannot be read: the weaker promise
    ],
    ids=["valkey-always", "redis-always", "valkey-every second", "redis-every second", "no file", "unknown"],
)
async def test_sent_says_what_the_database_has_done(product: str, options: tuple[str, ...], durability: str) -> None:
    if binary(product) is None:
        pytest.skip("redis-server is not on the PATH")
    server = Server(product, *options)
    node = NodeProcess(server.url, "a")
    try:
        await asyncio.to_thread(server.start)
        await migrations.up(server.url)
        node.start()
        alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
        for phone in (alice, bob):
            await phone.say(type="join", ref="join", group="g")
            await phone.wait("joined", ref="join")
        for to in ("user:bob", "group:g", "all"):
            answers = await alice.send_all(to, range(5))  # by the call or by the reader: they say the same
            assert {answer["durability"] for answer in answers} == {durability}
        keyed = [await alice.send("user:bob", "keyed", key="k") for _ in range(2)]
        assert [(answer["duplicate"], answer["durability"]) for answer in keyed] == [
            (False, durability),
            (True, durability),
        ]
        await bob.wait("message", stream="user:bob", body="keyed")
    finally:
        node.remove()
        server.remove()


async def test_what_was_called_fsynced_is_there_after_a_power_cut() -> None:
    server = Server("valkey")
    node = NodeProcess(server.url, "a")
    try:
        await asyncio.to_thread(server.start)
        await migrations.up(server.url)
        node.start()
        alice = await Phone.open(node.url, "alice")
        await (await Phone.open(node.url, "bob", "phone")).leave()
        answers = await alice.send_all("user:bob", range(200))
        assert {answer["durability"] for answer in answers} == {"fsynced"}
        server.kill()
        await asyncio.to_thread(server.start)
        bob = None
        while bob is None:
            try:
                bob = await Phone.open(node.url, "bob", "phone")
            except AssertionError:  # the node has not noticed yet
                await asyncio.sleep(0.05)
        assert bob.bodies() == list(range(200))
        assert bob.gaps() == []
    finally:
        node.remove()
        server.remove()
