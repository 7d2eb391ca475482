"""The clock of the database jumps. Order goes by numbers, and the time in an id never goes back: nothing is lost."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from migrations import __main__ as migrations
from service.core.names import parse_id
from tests.clock import Clock, library
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, mailboxes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server
from tests.integration.wire.kit import join, leave
from tests.service import Phone

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(library() is None, reason="libfaketime is not on this machine"),
]
HOUR = 3600


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.remove()


@pytest.fixture
def database(clock: Clock) -> Iterator[Server]:
    """A database whose clock can be turned. Debian's Redis does not start with such a clock."""
    with Server("valkey", environ=clock.environ) as server:
        asyncio.run(migrations.up(server.url))
        yield server


async def turn(clock: Clock, database: Server, seconds: int) -> None:
    """Turns the clock, and waits until the server has looked at it."""
    clock.turn(seconds)
    await true(lambda: abs(database.admin.time()[0] - time.time() - seconds) < 60, "the server's clock is turned")


async def test_a_clock_set_back_an_hour_loses_doubles_and_reorders_nothing(
    database: Server, clock: Clock, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", beat_s=0.2)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    laptop = await Phone.open(node.url, "bob", "laptop")
    for member in (alice, bob):
        await join(member, "g")
    await alice.send_all("group:g", range(5))
    [before] = await alice.send_all("group:g", ["before"])
    keyed = await alice.send("group:g", "keyed", key="k")
    await laptop.wait("message", body="keyed")
    await laptop.acknowledge(laptop.last_ids())
    await laptop.leave()

    await turn(clock, database, -HOUR)
    [after] = await alice.send_all("group:g", ["after"])
    assert parse_id(after["id"]).ms == parse_id(keyed["id"]).ms  # stands still until the clock is there again
    assert parse_id(after["id"]).n == parse_id(before["id"]).n + 2
    await alice.send_all("group:g", range(5, 10))
    await bob.until(lambda: len(bob.messages()) == 13, "all of it")
    laptop = await Phone.open(node.url, "bob", "laptop")
    assert laptop.bodies() == ["after", *range(5, 10)]
    node.kill()
    node.start()
    bob = await Phone.open(node.url, "bob", "phone")
    assert bob.bodies() == [*range(5), "before", "keyed", "after", *range(5, 10)]
    assert bob.gaps() == laptop.gaps() == []


async def test_a_key_is_known_for_its_window_and_after_that_the_replay_tells_what_was_stored(
    database: Server, clock: Clock, start_nodes: StartNodes
) -> None:
    window = 60  # the smallest there is
    [node] = start_nodes("a", key_window_s=window)
    alice = await Phone.open(node.url, "alice", "phone")
    first = await alice.send("user:bob", "hello", key="k")
    await turn(clock, database, window - 1)
    again = await insist(alice, "user:bob", "hello", key="k")
    assert (again["id"], again["duplicate"]) == (first["id"], True)
    await turn(clock, database, 4 * window)

    # A client replays first: it finds its own message by the key, which is its `mid`, and has nothing to repeat.
    alice = await Phone.open(node.url, "alice", "phone")
    assert [(m["mid"], m["id"]) for m in alice.messages("user:alice")] == [("k", first["id"])]
    # One that repeats blindly, far too late, says it once more.
    late = await insist(alice, "user:bob", "hello", key="k")
    assert late["duplicate"] is False
    assert parse_id(late["id"]).n == parse_id(first["id"]).n + 1


async def test_a_key_is_known_though_the_clock_was_set_back(
    database: Server, clock: Clock, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice = await Phone.open(node.url, "alice")
    first = await alice.send("user:bob", "hello", key="k")
    await turn(clock, database, -HOUR)
    again = await insist(alice, "user:bob", "hello", key="k")
    assert (again["id"], again["duplicate"]) == (first["id"], True)


async def test_a_clock_that_jumps_ahead_ends_mailboxes_early_and_everybody_hears_on(
    database: Server, clock: Clock, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second", beat_s=0.2)
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    await alice.send_all("user:bob", range(5))
    known = mailboxes(database, "second")
    await turn(clock, database, HOUR)
    for number in range(5, 10):
        await insist(alice, "user:bob", number, key=f"k{number}")
    await bob.wait("message", body=9)
    await true(lambda: mailboxes(database, "second") - known, "it has another mailbox")
    await turn(clock, database, 0)  # and is set right again
    for number in range(10, 15):
        await insist(alice, "user:bob", number, key=f"k{number}")
    await bob.wait("message", body=14)
    assert bob.bodies() == list(range(15))
    assert numbers(bob, "user:bob") == list(range(1, 16))
    assert bob.gaps() == []
    assert bob.closed is alice.closed is None


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "back"])
async def test_joins_and_leaves_go_on_when_the_clock_is_set(
    database: Server, clock: Clock, start_nodes: StartNodes, seconds: int
) -> None:
    """They carry a span of the database's time, reckoned from the last look at its clock."""
    [node] = start_nodes("a", beat_s=2, not_ready_s=10, mailbox_ttl_s=20)  # looks every ten seconds
    bob = await Phone.open(node.url, "bob")
    await join(bob, "g")
    await turn(clock, database, seconds)
    assert (await leave(bob, "g"))["type"] == "left"
    assert (await join(bob, "g"))["type"] == "joined"
    assert "store_doubted" not in node.said()
