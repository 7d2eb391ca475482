"""A replica is promoted in place of the primary, and it was behind: what was answered may be lost with the primary.

Waypost cannot undo that. It says so beforehand (`sent` does not say `replicated`), and afterwards: what was lost is
announced to whoever lacks it, exactly, and no number is given out twice.
"""

import asyncio
from collections.abc import Iterator

import pytest

from migrations import __main__ as migrations
from service.core.names import parse_id
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, mailboxes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server, binary, wait_until
from tests.integration.wire.kit import join
from tests.proxy import Proxy
from tests.service import Frame, Phone, free_port

pytestmark = pytest.mark.anyio

STREAMS = ("user:bob", "group:g", "all")


class Pair:
    """A primary and its replica."""

    def __init__(self, product: str) -> None:
        self.port = free_port()
        self.primary = Server(product, "--port", str(self.port), "--repl-diskless-sync-delay", "0")
        self.replica = Server(product)

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        asyncio.run(migrations.up(self.primary.url))
        self.mend_link()

    def catch_up(self) -> None:
        """Waits until the replica has everything."""
        self.primary.admin.set("tests", "WAIT speaks of the writes of its own connection")
        wait_until(lambda: self.primary.admin.execute_command("WAIT", 1, 100) == 1, "the replica has it all")

    def cut_link(self) -> None:
        """From now on the replica hears nothing new."""
        self.catch_up()
        self.replica.admin.execute_command("REPLICAOF", "127.0.0.1", free_port())

    def mend_link(self) -> None:
        self.replica.admin.execute_command("REPLICAOF", "127.0.0.1", self.port)
        wait_until(lambda: self.replica.admin.info("replication")["master_link_status"] == "up", "the link is up")
        self.catch_up()

    def promote(self) -> None:
        self.replica.admin.execute_command("REPLICAOF", "NO", "ONE")

    def fail_over(self, proxy: Proxy) -> None:
        """The primary is dead, and the replica has its address."""
        self.primary.kill()
        self.promote()
        proxy.point_to(self.replica.url)


@pytest.fixture(params=["valkey", "redis"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    pair = Pair(request.param)
    try:
        pair.start()
        yield pair
    finally:
        pair.replica.remove()
        pair.primary.remove()


@pytest.fixture
def database(pair: Pair) -> Server:
    return pair.primary


async def say_everywhere(phone: Phone, bodies: range) -> list[Frame]:
    return [answer for stream in STREAMS for answer in await phone.send_all(stream, bodies)]


async def test_what_a_promoted_replica_lacks_is_told_exactly_to_whoever_lacks_it_and_to_nobody_else(
    pair: Pair, proxy: Proxy, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob", "phone")
    for phone in (alice, bob):
        await join(phone, "g")
    laptop = await Phone.open(first.url, "bob", "laptop")
    await say_everywhere(alice, range(10))
    await laptop.until(lambda: len(laptop.messages()) == 30, "ten each")
    had = laptop.last_ids()
    await laptop.acknowledge(had)
    await laptop.leave()

    pair.cut_link()
    lost = await say_everywhere(alice, range(10, 15))
    assert {answer["durability"] for answer in lost} == {"fsynced"}  # by the primary; nobody said `replicated`
    await bob.until(lambda: len(bob.messages()) == 45, "fifteen each")
    seen = bob.last_ids()
    await bob.acknowledge(seen)
    pair.fail_over(proxy)
    for node in (first, second):
        await true(node.is_ready, "the node is ready again")

    for stream in STREAMS:
        await insist(alice, stream, "after", key="k")
    await bob.until(lambda: bob.bodies().count("after") == 3, "after")
    after = bob.last_ids()
    assert {s: parse_id(after[s]).n for s in STREAMS} == {s: parse_id(seen[s]).n + 1 for s in STREAMS}
    assert bob.gaps() == alice.gaps() == []  # they had it
    assert bob.closed is alice.closed is None

    laptop = await Phone.open(second.url, "bob", "laptop")
    new = await Phone.open(first.url, "bob", "new")
    for stream in STREAMS:
        for device in (laptop, new) if stream != "all" else (laptop,):
            [gap] = [gap for gap in device.gaps() if gap["stream"] == stream]
            bounds = {"after": had[stream], "to": seen[stream], "missed": 5, "next": after[stream]}
            assert bounds.items() <= gap.items()
            assert gap["cause"]["kind"] == "lost"
        assert laptop.bodies(stream) == ["after"]
    assert new.bodies("user:bob") == new.bodies("group:g") == [*range(10), "after"]

    await bob.leave()  # its acknowledgement was lost with the rest; but it knows what it has
    bob = await Phone.open(first.url, "bob", "phone", offsets=seen)
    assert (bob.gaps(), bob.bodies()) == ([], ["after"] * 3)


@pytest.mark.parametrize("pair", ["valkey"], indirect=True)
async def test_when_nobody_remembers_what_was_lost_a_device_that_had_it_is_told_that_history_differs(
    pair: Pair, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await alice.send_all("user:bob", range(10))
    pair.cut_link()
    await alice.send_all("user:bob", range(10, 15))
    await bob.until(lambda: len(bob.messages()) == 15, "fifteen")
    had = bob.last_ids()
    node.kill()
    pair.fail_over(proxy)
    await asyncio.to_thread(node.start)

    alice = await Phone.open(node.url, "alice")
    await alice.send_all("user:bob", ["another eleventh", "another twelfth"])  # numbers of which nobody knows
    bob = await Phone.open(node.url, "bob", "phone", offsets=had)
    [gap] = [gap for gap in bob.gaps() if gap["stream"] == "user:bob"]
    assert (gap["after"], gap["missed"], gap["cause"]["kind"]) == (had["user:bob"], None, "epoch")
    assert bob.bodies("user:bob")[-2:] == ["another eleventh", "another twelfth"]
    assert numbers(bob, "user:bob")[-2:] == [11, 12]
    new = await Phone.open(node.url, "bob", "new")
    assert (new.gaps(), new.bodies("user:bob")) == ([], [*range(10), "another eleventh", "another twelfth"])


@pytest.mark.parametrize("pair", ["valkey"], indirect=True)
async def test_a_reader_that_was_left_on_the_old_server_is_noticed_and_nobody_stays_deaf(
    pair: Pair, proxy: Proxy, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await alice.send_all("user:bob", ["before"])
    pair.cut_link()
    pair.promote()
    proxy.point_to(pair.replica.url, keep="XREAD")  # the old one lives, and believes that it is the primary

    await insist(alice, "user:bob", "after", key="k")
    await bob.wait("message", body="after")
    await alice.send_all("user:bob", range(10))
    await bob.wait("message", body=9)
    assert numbers(bob, "user:bob") == list(range(1, 13))
    assert bob.gaps() == []
    assert not [
        client for client in pair.primary.admin.client_list() if client["name"] == "waypost"
    ]  # and nobody asks the old one


async def test_a_primary_without_its_replica_refuses_where_it_must_have_one(
    pair: Pair, proxy: Proxy, start_nodes: StartNodes
) -> None:
    pair.primary.admin.config_set("min-replicas-to-write", 1)
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await alice.send_all("user:bob", ["before"])
    pair.cut_link()

    for _ in range(3):
        refused = await alice.send("user:bob", "in the minority", key="k")
        assert (refused["code"], refused["retry"]) == ("unavailable", True)
    await true(node.reasons, "not ready")
    pair.mend_link()
    await true(node.is_ready, "ready again")
    stored = await insist(alice, "user:bob", "in the minority", key="k")
    assert stored["duplicate"] is False
    await bob.wait("message", body="in the minority")
    assert bob.bodies() == ["before", "in the minority"]
    assert bob.closed is alice.closed is None


@pytest.mark.parametrize("later", ["new", "old"])
@pytest.mark.parametrize("pair", ["valkey"], indirect=True)
async def test_who_stayed_with_an_old_primary_in_the_minority_is_told_that_history_differs(
    pair: Pair, proxy: Proxy, start_nodes: StartNodes, later: str
) -> None:
    """Two primaries at a time, because no `min-replicas-to-write` forbids it. `later`: whose last message is later."""
    with Proxy(pair.primary.url) as minority:
        [old], [new] = start_nodes("old", through=minority), start_nodes("new")
        alice, bob = await Phone.open(old.url, "alice"), await Phone.open(new.url, "bob")
        for phone in (alice, bob):
            await join(phone, "g")
        await bob.acknowledge(bob.last_ids())
        tablet = await Phone.open(old.url, "bob")
        pair.cut_link()
        pair.promote()
        pair.replica.admin.zrem("wp:nodes", "old")  # has not been heard of for long
        proxy.point_to(pair.replica.url)
        if later == "new":
            await alice.send_all("group:g", ["old 0", "old 1"])
        await insist(bob, "group:g", "new 0", key="k")
        if later == "old":
            await alice.send_all("group:g", ["old 0", "old 1"])
        await tablet.wait("message", body="old 1")
        known = mailboxes(pair.replica, "old")
        minority.point_to(pair.replica.url)
        pair.primary.kill()
        await true(lambda: mailboxes(pair.replica, "old") - known, "it is among the others again")
        await true(old.is_ready, "and ready")

        await bob.send_all("group:g", ["after"])
        await tablet.wait("message", body="after")
        assert tablet.bodies("group:g") == ["old 0", "old 1", "new 0", "after"]
        assert tablet.gaps()[0]["cause"]["kind"] == "epoch"
