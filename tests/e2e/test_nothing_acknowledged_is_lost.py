"""Promises 1 and 7: a send that was answered with `sent` is delivered, whatever is killed or away meanwhile."""

import asyncio
import itertools
import signal
from contextlib import suppress

import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.kit import Device, numbers, true
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio


async def test_messages_sent_while_away_arrive_once_and_in_order_after_the_node_was_killed(
    start_node: StartNode,
) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob", "phone")
    await bob.leave()
    alice = await Phone.open(node.url, "alice")
    for number in range(100):
        assert (await alice.send("user:bob", number))["type"] == "sent"

    node.kill()
    node.start()

    bob = await Phone.open(node.url, "bob", "phone")
    assert bob.bodies("user:bob") == list(range(100))
    assert bob.gaps() == []
    await bob.acknowledge(bob.last_ids())
    await bob.leave()
    bob = await Phone.open(node.url, "bob", "phone")
    assert bob.messages() == []


class Sender:
    """Sends keyed messages without pause, comes back after every cut, and repeats what has no answer yet."""

    def __init__(self, node: NodeProcess, user: str, to: str) -> None:
        self.node = node
        self.user = user
        self.to = to
        self.stored: dict[int, str] = {}  # number → the entry id that `sent` gave
        self.repeated = 0
        self.is_to_stop = False

    async def run(self) -> None:
        numbers = itertools.count()
        number = next(numbers)
        phone: Phone | None = None
        while not (self.is_to_stop and number in self.stored):
            if number in self.stored:
                number = next(numbers)
            try:
                phone = phone or await Phone.open(self.node.url, self.user)
                answer = await phone.send(self.to, number, key=f"{self.user}-{number}")
            except (OSError, AssertionError, WebSocketException):  # the node is away, or was when we waited
                phone = None
                await asyncio.sleep(0.05)
                continue
            if answer["type"] == "sent":
                assert self.stored.setdefault(number, answer["id"]) == answer["id"]
                self.repeated += answer["duplicate"]
            else:
                assert answer["retry"], answer
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("what", ["database", "node", "both"])
async def test_what_was_answered_is_there_after_a_kill_during_a_stream_of_sends(
    database: Server, start_node: StartNode, what: str
) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob", "phone")
    senders = [Sender(node, f"sender{n}", "user:bob") for n in range(4)]
    running = [asyncio.create_task(sender.run()) for sender in senders]

    for _ in range(3):
        reached = [len(sender.stored) + 30 for sender in senders]
        while any(len(s.stored) < r for s, r in zip(senders, reached, strict=True)):
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in running)
        if what in ("database", "both"):
            database.kill()
        if what in ("node", "both"):
            node.kill()
        if what in ("database", "both"):
            await asyncio.to_thread(database.start)
        if what in ("node", "both"):
            await asyncio.to_thread(node.start)
    for sender in senders:
        sender.is_to_stop = True
    async with asyncio.timeout(60):
        await asyncio.gather(*running)

    if bob.closed is None:
        await bob.leave()
    laptop = await Phone.open(node.url, "bob", "phone")  # nothing was acknowledged: all of it comes again
    assert laptop.gaps() == []
    for sender in senders:
        got = [m["body"] for m in laptop.messages("user:bob") if m["from"] == sender.user]
        began = laptop.welcome()["streams"]["user:bob"], laptop.messages("user:bob")[:1]
        assert got == sorted(sender.stored), began  # each once, in order, and nothing that was not sent
        assert len(got) > 90
    assert {m["body"] for m in bob.messages()} <= {n for s in senders for n in s.stored}


async def test_a_sender_and_a_receiver_on_different_nodes_lose_nothing_when_both_are_killed_in_turn(
    start_nodes: StartNodes,
) -> None:
    near, far = start_nodes("near", "far")
    bob = Device("bob")
    listening = asyncio.create_task(bob.follow(far))
    await true(lambda: bob.connects, "bob is there")
    senders = [Sender(near, f"sender{n}", "user:bob") for n in range(3)]
    running = [asyncio.create_task(sender.run()) for sender in senders]

    for node in (near, far, near, far):
        reached = [len(sender.stored) + 20 for sender in senders]
        await true(lambda: all(len(s.stored) >= r for s, r in zip(senders, reached, strict=True)), "sends go on")  # noqa: B023
        node.kill()
        await asyncio.to_thread(node.start)
    for sender in senders:
        sender.is_to_stop = True
    async with asyncio.timeout(60):
        await asyncio.gather(*running)

    stored = sum(len(sender.stored) for sender in senders)
    await true(lambda: len(bob.bodies("user:bob")) >= stored or listening.done(), f"bob has all {stored}")
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    for sender in senders:
        got = [frame["body"] for frame in bob.record["user:bob"] if frame["from"] == sender.user]
        assert got == sorted(sender.stored)
    assert bob.connects >= 3


async def test_who_stayed_with_a_node_that_stood_still_gets_everything_once_in_order(
    database: Server, start_nodes: StartNodes
) -> None:
    lease = {"mailbox_ttl_s": 2, "not_ready_s": 1, "beat_s": 0.25}
    moving, still = start_nodes("moving", "still", **lease)
    alice, bob = await Phone.open(moving.url, "alice"), await Phone.open(still.url, "bob")
    await bob.say(type="join", ref=0, group="g")
    await bob.wait("joined", ref=0)
    await alice.say(type="join", ref=0, group="g")
    await alice.wait("joined", ref=0)

    def mailboxes() -> list[bytes]:
        return list(database.admin.scan_iter("wp:*:m:still.*", count=1000))

    [lost] = mailboxes()

    still.signal(signal.SIGSTOP)
    await alice.send_all("user:bob", range(300))
    await bob.say(type="send", ref="from bob", to="group:g", body="from bob", key="k")
    await true(lambda: not mailboxes(), "the lease of the mailbox runs out")
    await alice.send_all("group:g", range(300))
    still.signal(signal.SIGCONT)

    await bob.until(lambda: len(bob.messages()) >= 600, "all of it")
    await alice.send_all("user:bob", ["after"])
    await bob.wait("message", body="after")
    await true(still.is_ready, "the node is ready again")
    answer = bob.answer_to("from bob")
    assert answer is not None
    if answer["type"] == "error":  # its call came before the fence was looked at: nothing was stored, repeat it
        assert answer["retry"], answer
        answer = await bob.send("group:g", "from bob", key="k")
    assert answer["type"] == "sent"
    assert bob.closed is None
    assert bob.gaps() == []
    assert bob.bodies("user:bob") == [*range(300), "after"]
    assert [body for body in bob.bodies("group:g") if body != "from bob"] == list(range(300))
    assert sorted(set(numbers(bob, "group:g"))) == list(range(1, 304))  # two joined, one from bob
    await alice.wait("message", body="from bob")
    assert alice.bodies().count("from bob") == 1
    assert mailboxes() != [lost]


async def test_a_database_that_is_away_is_an_error_and_all_goes_on_by_itself(
    database: Server, start_node: StartNode
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await alice.send_all("user:bob", ["before"])
    database.kill()

    refused = await alice.send("user:bob", "while away", key="k")
    while refused["code"] == "uncertain":  # was on its way
        assert refused["retry"]
        refused = await alice.send("user:bob", "while away", key="k")
    assert (refused["code"], refused["retry"]) == ("unavailable", True)
    unkeyed = await alice.send("user:bob", "never stored")
    assert (unkeyed["code"], unkeyed["retry"]) == ("unavailable", True)
    await true(lambda: any("cannot connect" in reason for reason in node.reasons() or []), "the node says why")
    await alice.say(type="ping", ref="p")
    await alice.wait("pong", ref="p")
    late = await Phone.dial(node.url, "late")
    await late.say(type="hello")
    assert await late.ends() == 4000
    assert [(frame["code"], frame["retry"]) for frame in late.frames] == [("unavailable", True)]

    await asyncio.to_thread(database.start)
    await true(node.is_ready, "the node is ready again")
    assert (await alice.send("user:bob", "while away", key="k"))["type"] == "sent"
    await alice.send_all("user:bob", ["after"])
    await bob.wait("message", body="after")
    assert alice.closed is bob.closed is None
    assert bob.bodies() == ["before", "while away", "after"]
    assert bob.gaps() == alice.gaps() == []


async def test_a_database_that_stands_still_makes_sends_uncertain_and_keys_make_them_safe(
    database: Server, start_node: StartNode
) -> None:
    node = start_node(call_timeout_s=0.5)
    alice, carol = await Phone.open(node.url, "alice"), await Phone.open(node.url, "carol")
    bob = await Phone.open(node.url, "bob")
    assert database.process is not None
    database.process.send_signal(signal.SIGSTOP)
    await alice.say(type="send", ref=1, to="user:bob", body="keyed", key="k")
    await alice.say(type="send", ref=2, to="user:bob", body="behind it")
    await carol.say(type="send", ref=1, to="user:bob", body="unkeyed")

    for phone, retry in ((alice, True), (carol, False)):
        await phone.wait("error", ref=1)
        answer = phone.answer_to(1)
        assert answer is not None
        if answer["code"] == "unavailable":  # waited behind a call that failed
            assert answer["retry"]
        else:
            assert (answer["code"], answer["retry"]) == ("uncertain", retry)
    behind = await alice.wait("error", ref=2)
    assert behind["code"] in ("unavailable", "uncertain")
    await true(node.reasons, "the node is not ready")
    database.process.send_signal(signal.SIGCONT)
    await true(node.is_ready, "the node is ready again")

    answer = await alice.send("user:bob", "keyed", key="k")
    assert answer["type"] == "sent"
    await alice.send_all("user:bob", ["after"])
    await bob.wait("message", body="after")
    assert alice.closed is bob.closed is None
    bodies = bob.bodies()
    assert bodies.count("keyed") == 1
    assert all(bodies.count(body) <= 1 for body in ("behind it", "unkeyed"))
    assert bob.gaps() == []
    laptop = await Phone.open(node.url, "bob", "laptop")
    assert laptop.bodies() == bodies
