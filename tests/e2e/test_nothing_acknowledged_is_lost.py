"""Promises 1 and 7: a send that was answered with `sent` is delivered, whatever is killed or away meanwhile."""

import asyncio
import itertools

import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.conftest import StartNode
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
        assert got == sorted(sender.stored)  # each once, in the order it was sent, and nothing that was not sent
        assert len(got) > 90
    assert {m["body"] for m in bob.messages()} <= {n for s in senders for n in s.stored}
