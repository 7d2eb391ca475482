"""A redacted body is gone: from the store, from mailboxes, from what is to come; every device is told, no gap is."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from service.core.names import parse_id
from tests.e2e.conftest import StartNode, StartNodes
from tests.integration.http.web import look, redact
from tests.integration.store.kit import Admin, Server
from tests.integration.wire.kit import Net, eventually, join
from tests.service import Frame, Phone

pytestmark = pytest.mark.anyio

SECRET = "the secret word is 7f3a"


def everything(admin: Admin, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """Every key with all that is in it."""
    for raw in admin.scan_iter(match=pattern, count=1000):
        match admin.type(raw):
            case b"stream":
                found = admin.xrange(raw)
            case b"hash":
                found = admin.hgetall(raw)
            case b"list":
                found = admin.lrange(raw, 0, -1)
            case b"zset":
                found = admin.zrange(raw, 0, -1)
            case b"set":
                found = admin.smembers(raw)
            case _:
                found = admin.get(raw)
        yield raw.decode(), repr(found).encode()


def where_it_is(database: Server, pattern: str = "*") -> list[str]:
    return [name for name, content in everything(database.admin, pattern) if SECRET.encode() in content]


def bodies_of(phone: Phone, target: str) -> list[Frame]:
    """The frames that brought the message, with a body or without."""
    return [frame for frame in phone.messages() if frame["id"] == target]


def check_place(phone: Phone, target: str) -> None:
    """The message came once, without its body; then `redacted` told of it; and no gap did."""
    [frame] = bodies_of(phone, target)
    assert (frame.get("redacted"), "body" in frame) == (True, False)
    [told] = [frame for frame in phone.frames if frame["type"] == "redacted"]
    assert told["target"] == target
    assert phone.frames.index(frame) < phone.frames.index(told)
    assert phone.gaps() == []
    assert SECRET not in str(phone.frames)


async def test_every_device_is_told_live_behind_away_and_new_and_nothing_is_left(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice", "phone")
    laptop = await Phone.open(second.url, "alice", "laptop")
    live = await Phone.open(second.url, "bob", "live")
    away = await Phone.open(first.url, "bob", "away")
    await away.leave()
    behind = await Phone.dial(second.url, "bob", receive_buffer=4096)
    await behind.say(type="hello", device="behind")
    await behind.wait("live")
    behind.stop_reading()
    filling = ["x" * 60_000] * 140  # more than its socket and all buffers take
    for at in range(0, 140, 4):
        await alice.send_all("user:bob", filling[at : at + 4])
    [sent] = await alice.send_all("user:bob", [SECRET])
    received = await live.wait("message", body=SECRET)
    assert where_it_is(database)
    await alice.send_all("user:bob", ["afterwards"])

    answer = await redact(second, "user:alice", sent["id"], "alice")  # on another node than the one it was sent on
    assert (answer.status, answer.json["target"]) == (200, sent["id"])
    assert where_it_is(database, "wp:*:s:*") == []
    await eventually(lambda: where_it_is(database) == [], "no key holds the body", 5)

    assert (await live.wait("redacted"))["target"] == received["id"]
    for device in (alice, laptop):
        assert (await device.wait("redacted"))["id"] == answer.json["id"]
    behind.go_on_reading()
    await behind.wait("redacted")
    check_place(behind, received["id"])
    for name in ("away", "new"):
        device = await Phone.open(first.url, "bob", name)
        check_place(device, received["id"])
        assert device.messages()[-1]["body"] == "afterwards"
    for node in (first, second):
        for stream, user, target in (("user:bob", "bob", received["id"]), ("user:alice", "alice", sent["id"])):
            page = await look(node, stream, user, around=target, limit=3)
            found = next(message for message in page["messages"] if message["id"] == target)
            assert (found["redacted"], "body" in found, page["gaps"]) == (True, False, [])
    assert [device.gaps() for device in (alice, laptop, live)] == [[], [], []]


async def test_in_a_group_members_who_are_away_and_those_of_the_old_protocol_do_not_get_the_body(
    database: Server, start_node: StartNode
) -> None:
    node = start_node()
    net = Net(node, database)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    for phone in (alice, bob):
        await join(phone, "g")
    here = await net.chat("channel", "carol")
    gone = await net.chat("channel", "bob")
    await gone.leave()
    await bob.leave()
    [sent] = await alice.send_all("group:g", [SECRET])
    [everybody] = await alice.send_all("all", [SECRET])
    await here.until(f"user 【alice】 send all:{SECRET}")
    await alice.send_all("group:g", ["hello"])
    for stream, entry in (("group:g", sent["id"]), ("all", everybody["id"])):
        assert (await redact(node, stream, entry, "alice")).status == 200
    await eventually(lambda: where_it_is(database) == [], "no key holds the body", 5)

    gone = await net.chat("channel", "bob")
    await gone.until("group 【g】 user 【alice】 send:hello")
    bob = await Phone.open(node.url, "bob")
    group = [frame for frame in bob.frames if frame.get("stream") == "group:g"]
    assert [(frame["type"], frame.get("body")) for frame in group[-3:]] == [
        ("message", None),
        ("message", "hello"),
        ("redacted", None),
    ]
    assert SECRET not in str(bob.frames)
    assert here.texts == [f"user 【alice】 send all:{SECRET}"]  # it has no text for it, and nothing breaks
    await net.hang_up()


async def test_a_node_that_reads_the_message_and_its_redaction_together_pushes_no_body(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second", beat_s=2)
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    second.signal(signal.SIGSTOP)
    try:
        await alice.send_all("user:bob", ["what its reader was waiting for"])
        [sent] = await alice.send_all("user:bob", [SECRET])
        assert (await redact(first, "user:alice", sent["id"], "alice")).status == 200
        assert where_it_is(database, "wp:*:m:*") != []  # the copy waits for the node that stands still
    finally:
        second.signal(signal.SIGCONT)
    told = await bob.wait("redacted")
    check_place(bob, told["target"])
    assert [frame["type"] for frame in bob.frames] == ["welcome", "live", "message", "message", "redacted"]
    await eventually(lambda: where_it_is(database) == [], "no key holds the body", 5)


@pytest.mark.parametrize("database", ["valkey"], indirect=True)  # it waits for long, and is not about the database
async def test_a_node_that_died_with_the_body_in_its_mailbox_keeps_it_no_longer_than_the_mailbox(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second", mailbox_ttl_s=4, not_ready_s=2)
    alice = await Phone.open(first.url, "alice")
    await Phone.open(second.url, "bob")
    second.kill()
    [sent] = await alice.send_all("user:bob", [SECRET])
    assert (await redact(first, "user:alice", sent["id"], "alice")).status == 200
    await eventually(lambda: where_it_is(database) == [], "no key holds the body", 8)


async def test_redacting_while_devices_catch_up_leaves_every_number_in_its_place(start_nodes: StartNodes) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    sent = await alice.send_all("all", range(600))
    targets = {answer["id"] for answer in sent[::3]}

    async def take_away() -> None:
        for target in sorted(targets, key=parse_id):
            assert (await redact(first, "all", target, "alice")).status == 200

    async def come_and_go(name: str) -> list[Phone]:
        phones: list[Phone] = []
        while not phones or len(told(phones[-1])) < len(targets):
            phones.append(await Phone.open(second.url, name, offsets={"all": "0-0"}))
            await phones[-1].leave()
        return phones

    def told(phone: Phone) -> list[Frame]:
        return [frame for frame in phone.frames if frame["type"] == "redacted"]

    _, bobs, carols = await asyncio.gather(take_away(), come_and_go("bob"), come_and_go("carol"))
    for phone in (*bobs, *carols):
        assert phone.gaps() == []
        entries = [frame for frame in phone.frames if frame.get("stream") == "all" and "id" in frame]
        numbers = [parse_id(frame["id"]).n for frame in entries]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == 600 + len(told(phone))
        without = {frame["id"] for frame in entries if frame.get("redacted")}
        assert without <= {frame["target"] for frame in told(phone)} | targets
