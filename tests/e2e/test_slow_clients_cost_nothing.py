"""Promise 5: a slow or silent client costs the others nothing, and never more than its fixed buffer."""

import asyncio
import base64
import os
import time
from typing import Self

import msgspec
import pytest

from service.core.names import parse_id
from tests.e2e.conftest import StartNode
from tests.e2e.kit import true
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

MESSAGES = 50_000
STOP_S = 10.0  # the silence of the slow client, at least; longer when the messages take longer
GROWTH_BYTES_MAX = 64 * 1024 * 1024  # 50,000 messages are 50 MB: far more than this would be kept if any were
BODY = "x" * 1000


class _Seen(msgspec.Struct, gc=False):
    """What the counting client reads of a frame."""

    type: str
    stream: str = ""
    id: str = ""
    ref: int = 0


_seen = msgspec.json.Decoder(_Seen)


class Counter:
    """A client that is quick enough for tens of thousands of messages: it keeps numbers, and no frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.numbers: list[int] = []  # of the group's stream: pushed, or answered as one's own
        self._next = 0
        self.is_live = False
        self.is_member = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def dial(cls, node: NodeProcess, user: str) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1 << 16)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /v1/connect?user={user} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        data = bytearray()
        while received := await reader.read(1 << 18):
            data += received
            at = 0
            while (end := self._frame(data, at)) is not None:
                at = end
            del data[:at]
            await self.may_read.wait()

    def _frame(self, data: bytearray, at: int) -> int | None:
        """Counts the frame at this place; where it ends, None when it is not all there."""
        if len(data) < at + 4:
            return None
        size, begin = data[at + 1], at + 2
        if size == 126:
            size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        assert size < 65_536
        end = begin + size
        if len(data) < end:
            return None
        if data[at] == 0x81:
            frame = _seen.decode(bytes(data[begin:end]))
            if frame.type == "live":
                self.is_live = True
            elif frame.type == "joined" and frame.ref:
                self.is_member = True
            elif frame.stream == "group:g" and frame.id and frame.type in ("message", "sent"):
                self._count(parse_id(frame.id).n, is_pushed=frame.type == "message")
            elif frame.type in ("error", "gap"):
                raise AssertionError(bytes(data[begin:end]))
        return end

    async def say(self, text: str) -> None:
        payload = text.encode()
        size = len(payload)
        head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
        self.writer.write(head + bytes(4) + payload)  # masked with zeros
        await self.writer.drain()

    async def send(self, count: int, body: str = BODY) -> None:
        """Sends without waiting: the server reads no further than the bound of unanswered sends."""
        for at in range(count):
            await asyncio.sleep(0)  # the reading goes on, too
            await self.say(f'{{"type":"send","ref":{at},"to":"group:g","body":"{body}"}}')

    def has_all(self, end: int) -> bool:
        """Whether every number below `end` has come, from the first that came on."""
        return self._next >= end

    def _count(self, number: int, *, is_pushed: bool) -> None:
        """A push is the next one; an answer that is not yet has its turn when pages bring the entry."""
        if number <= self._next or self._next == 0:
            self._next = max(self._next, number + 1)
        elif is_pushed:
            raise AssertionError(f"{number} came, {self._next} did not")
        else:
            return
        self.numbers.append(number)

    async def enter(self) -> None:
        await self.say('{"type":"hello"}')
        await true(lambda: self.is_live, "live")
        await self.say('{"type":"join","ref":1,"group":"g"}')
        await true(lambda: self.is_member, "joined")


@pytest.mark.parametrize("database", ["valkey"], indirect=True)
async def test_a_client_that_stops_reading_while_50000_messages_pass_costs_the_others_nothing(
    start_node: StartNode,
) -> None:
    node = start_node(ping_s=120)  # the counting clients answer no pings
    slow = await Counter.dial(node, "slow")
    others = [await Counter.dial(node, f"user{at}") for at in range(3)]
    everybody = [slow, *others]
    for client in everybody:
        await client.enter()
    senders, listener = others[:2], others[2]
    first = len(everybody) + 1  # after everybody's `joined`
    for sender in senders:  # warm: buffers and caches are what they always are
        await sender.send(1000)
    for client in everybody:
        await true(lambda c=client: c.has_all(first + 2000), "the first messages", 60)  # type: ignore[misc]

    before, most = node.memory_bytes(), 0
    slow.may_read.clear()
    began = time.monotonic()
    sending = [asyncio.create_task(sender.send(MESSAGES // 2)) for sender in senders]
    end = first + 2000 + MESSAGES
    async with asyncio.timeout(100):
        while not all(client.has_all(end) for client in others):
            most = max(most, node.memory_bytes())
            await asyncio.sleep(0.2)
            assert not any(client.reading.done() for client in others)
    await asyncio.gather(*sending)
    passed_s = time.monotonic() - began
    await asyncio.sleep(STOP_S - passed_s)
    most = max(most, node.memory_bytes())
    had = len(slow.numbers)
    slow.may_read.set()
    await true(lambda: slow.has_all(end) or slow.reading.done(), "the slow one has it all", 60)
    most = max(most, node.memory_bytes())
    print(f"{MESSAGES} messages passed in {passed_s:.1f} s; the node grew by {(most - before) / 1e6:.1f} MB")

    assert most - before < GROWTH_BYTES_MAX
    assert had < MESSAGES / 2, "it did stand still"
    for client in (slow, listener):
        assert client.numbers == list(range(first, end))  # in order, once
    for sender in senders:
        assert sorted(set(sender.numbers)) == list(range(first, end))
    for client in everybody:
        client.reading.cancel()
        client.writer.transport.abort()


@pytest.mark.parametrize("reads_again", [True, False], ids=["reads again", "never reads"])
async def test_a_client_that_drains_nothing_for_too_long_is_closed_and_resumes(
    database: Server, start_node: StartNode, reads_again: bool
) -> None:
    node = start_node(idle_close_s=0.5, limits_write_buffer_bytes=65_536)
    stuck = await Phone.dial(node.url, "bob", receive_buffer=4096)
    await stuck.say(type="hello", device="phone")
    await stuck.wait("live")
    alice = await Phone.open(node.url, "alice")
    other = await Phone.open(node.url, "bob", "other")
    stuck.stop_reading()
    pad = "x" * 20_000
    await alice.send_all("user:bob", [[at, pad] for at in range(400)])
    await other.until(lambda: len(other.messages()) == 400, "the other device has it all")
    if reads_again:
        await asyncio.sleep(1.2)  # no one waits for anything: this is how long it is silent
        stuck.go_on_reading()
        assert await stuck.ends() == 4001
        assert stuck.frames[-1]["code"] == "slow"
        assert stuck.frames[-1]["retry"]
    else:
        await true(lambda: database.admin.hget("wp:node:a", "connections") == b"2", "the node lets go of it")
        stuck.go_on_reading()
        await stuck.ends()
    got = [body[0] for body in stuck.bodies("user:bob")]
    assert got == list(range(len(got)))
    assert len(got) < 400
    assert stuck.gaps() == []

    back = await Phone.open(node.url, "bob", "phone", offsets=stuck.last_ids())
    assert [body[0] for body in back.bodies("user:bob")] == list(range(len(got), 400))
    assert back.gaps() == []
    assert (alice.closed, other.closed) == (None, None)


@pytest.mark.parametrize("database", ["valkey"], indirect=True)
async def test_a_client_that_sends_without_end_does_not_hold_up_the_sends_of_others(start_node: StartNode) -> None:
    node = start_node(ping_s=120)
    flood = await Counter.dial(node, "flood")
    await flood.enter()
    alice = await Phone.open(node.url, "alice")
    small = 12_000  # thousands of them fit into what a socket gives in one read
    sending = asyncio.create_task(flood.send(small, ""))
    await true(lambda: flood.numbers, "the flood has begun")
    for at in range(12):
        assert (await alice.send("user:bob", at))["type"] == "sent"
    passed_meanwhile = len(flood.numbers)
    await true(lambda: flood.has_all(2 + small), "the flood is over", 60)
    await sending

    # Each of alice's waits for a batch or two of at most 64 of the flood, not for all that was read at once.
    assert passed_meanwhile < small / 2
    assert sorted(set(flood.numbers)) == list(range(2, 2 + small))
    flood.reading.cancel()
    flood.writer.transport.abort()
