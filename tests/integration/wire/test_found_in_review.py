"""Faults that were found by reading: each test here failed once."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from migrations import __main__ as migrations
from tests.integration.store.kit import EPOCH_KEYS, Server
from tests.integration.wire.conftest import StartNode, assert_calm
from tests.integration.wire.kit import (
    CLOSE,
    TEXT,
    BareSocket,
    Net,
    add,
    client_frame,
    direct,
    eventually,
    join,
    leave,
    n_of,
    stored_offset,
)
from tests.service import Frame, NodeProcess, free_port

pytestmark = pytest.mark.anyio

Fresh = Callable[[str], str]

BAD_FRAME = 4103
UNANSWERED = 64  # sends of one connection; above it the socket is not read


@pytest.fixture
def bare_database() -> Iterator[Server]:
    """A database of the test's own, not migrated."""
    with Server("valkey") as server:
        yield server


def in_one_segment(*texts: str) -> bytes:
    return b"".join(client_frame(TEXT, text.encode()) for text in texts)


async def until_closed(bare: BareSocket) -> tuple[list[Frame], int]:
    """All frames that come, and the close code after them."""
    frames: list[Frame] = []
    while True:
        opcode, payload = await bare.read()
        if opcode == CLOSE:
            return frames, int.from_bytes(payload[:2])
        if opcode == TEXT:
            frames += [json.loads(line) for line in payload.splitlines()]


async def until_live(bare: BareSocket) -> None:
    while b'"type":"live"' not in (await bare.read())[1]:
        pass


async def mailbox_of(node: NodeProcess, database: Server) -> str:
    """The mailbox of a node; the node tells it with its next beat only."""

    def told() -> str:
        raw: bytes | None = database.admin.hget(f"wp:node:{node.name}", "mailbox")
        return "" if raw is None else raw.decode()

    await eventually(lambda: told() and database.admin.exists(told()), "it has a mailbox")
    return told()


async def lose_mailbox(node: NodeProcess, database: Server) -> None:
    """Until the node has noticed and made another mailbox, what is stored comes to it by pages alone."""
    assert database.admin.delete(await mailbox_of(node, database)) == 1


# -- many frames at once, and garbage behind them ----------------------------------------------------------------------


async def test_garbage_behind_as_many_sends_as_may_be_unanswered(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(bob)
    for _ in range(3):
        bare = await net.bare(f"/v1/connect?user={alice}")
        bare.write(TEXT, b'{"type":"hello","device":"d"}')
        await until_live(bare)
        sends = ['{"type":"send","ref":%d,"to":"user:%s","body":%d}' % (n, alice, n) for n in range(UNANSWERED)]
        bare._writer.write(in_one_segment(*sends, "garbage"))
        frames, code = await until_closed(bare)
        assert code == BAD_FRAME
        assert [f["ref"] for f in frames if f["type"] == "sent"] == list(range(UNANSWERED))
        assert frames[-1]["code"] == "bad_frame"
    assert net.node.process is not None
    assert net.node.process.poll() is None
    assert (await phone.send(f"user:{bob}", "still here"))["type"] == "sent"
    assert (await (await net.open(alice)).send(f"user:{bob}", "and I am back"))["type"] == "sent"
    await phone.wait("message", body="and I am back")


async def test_garbage_along_with_hello(net: Net, alice: str, bob: str) -> None:
    said = len(net.node.said())
    phone = await net.open(bob)
    for _ in range(3):
        bare = await net.bare(f"/v1/connect?user={alice}")
        acks = ['{"type":"ack","offsets":{}}'] * UNANSWERED
        bare._writer.write(in_one_segment('{"type":"hello","device":"d"}', *acks, "garbage"))
        frames, code = await until_closed(bare)
        assert (code, frames[-1]["code"]) == (BAD_FRAME, "bad_frame")
        bare.write(CLOSE, BAD_FRAME.to_bytes(2))
        assert await bare.is_cut()  # from now on nothing can be written to it
    other = await net.open(bob, "other")
    for n in range(3):
        assert (await phone.send("all", n))["type"] == "sent"
        await other.wait("message", stream="all", body=n)
    assert "push_failed" not in net.node.said()[said:]


async def test_garbage_along_with_a_goodbye(net: Net, alice: str) -> None:
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare._writer.write(in_one_segment("garbage") + client_frame(CLOSE, b"\x03\xe8"))
    frames, code = await until_closed(bare)
    assert ([frame["code"] for frame in frames], code) == (["bad_frame"], 1000)


# -- what an inbox says by a page --------------------------------------------------------------------------------------


async def test_a_joining_told_by_a_page_is_followed(
    net: Net, start_node: StartNode, database: Server, fresh: Fresh
) -> None:
    alice, bob, group = fresh("alice"), fresh("bob"), fresh("g")
    far = start_node(announce=1)
    phone, laptop, other = await net.open(bob, "phone"), await net.at(far).open(bob, "laptop"), await net.open(alice)
    await join(other, group)
    said = len(far.said())
    await lose_mailbox(far, database)
    assert (await join(phone, group))["type"] == "joined"
    await laptop.wait("joined", 5, stream=f"user:{bob}", group=group)
    assert "mailbox_doubted" in far.said()[said:], "it came by the mailbox"
    assert (await other.send(f"group:{group}", "welcome"))["type"] == "sent"
    await laptop.wait("message", 5, stream=f"group:{group}", body="welcome")


async def test_a_leaving_told_by_a_page_ends_the_pushes(
    net: Net, start_node: StartNode, database: Server, fresh: Fresh
) -> None:
    alice, bob, group = fresh("alice"), fresh("bob"), fresh("g")
    far = start_node(announce=1)
    there = net.at(far)
    other, third, phone = await there.open(alice), await there.open(fresh("carol")), await there.open(bob, "phone")
    for one in (other, third, phone):
        await join(one, group)
    near = start_node(announce=1, beat_s=0.9)
    laptop = await net.at(near).open(bob, "laptop")
    await other.send(f"group:{group}", "before")
    await laptop.wait("message", stream=f"group:{group}", body="before")

    said = len(near.said())
    await lose_mailbox(near, database)
    assert (await leave(phone, group))["type"] == "left"
    await laptop.wait("left", 5, stream=f"user:{bob}", group=group)
    assert "mailbox_doubted" in near.said()[said:], "it came by the mailbox"
    assert not [f for f in laptop.frames if f["type"] == "left" and f["stream"] == f"group:{group}"], "it is announced"

    async def is_told(body: str) -> bool:
        await other.send(f"group:{group}", body)
        await other.send(f"user:{bob}", f"mark {body}")
        await laptop.wait("message", body=f"mark {body}")
        return body in laptop.bodies(f"group:{group}")

    deadline = time.monotonic() + 5
    while await is_told(f"soon {time.monotonic()}"):  # the question takes a moment
        assert time.monotonic() < deadline, "still told, as if nobody had left"
        await asyncio.sleep(0.05)
    assert not [n for n in range(5) if await is_told(f"later {n}")]


# -- the store ---------------------------------------------------------------------------------------------------------


async def test_a_node_goes_on_under_the_epoch_that_migrate_made(bare_database: Server) -> None:
    await migrations.up(bare_database.url)
    node = NodeProcess(bare_database.url, "epochs")
    net = Net(node, bare_database)
    try:
        node.start()
        for turn in range(4):
            carol = await net.open("carol")
            mailbox = await mailbox_of(node, bare_database)
            lost = next(key for key in EPOCH_KEYS[turn:] if key.partition(":e")[0] not in mailbox)
            assert bare_database.admin.delete(lost) == 1
            for n in range(40):  # some of them go to that partition
                await carol.say(type="send", to=f"user:x{n}", body=n)
            await eventually(lambda: not node.is_ready(), "the loss is noticed")
            await asyncio.sleep(0.37 * turn)
            await migrations.up(bare_database.url)
            await eventually(node.is_ready, "it is ready")
            await carol.ends(5)

            again, dave = await net.open("carol"), await net.open("dave")
            assert again.welcome()["epoch"] != carol.welcome()["epoch"]
            assert (await dave.send("user:carol", f"hi {turn}"))["type"] == "sent"
            await again.wait("message", 5, body=f"hi {turn}")
            await again.leave()
            await dave.leave()
        assert_calm(node.said())
    finally:
        await net.hang_up()
        node.remove()


async def test_whoever_comes_back_to_a_busy_group_catches_up(
    net: Net, start_node: StartNode, fresh: Fresh, group: str
) -> None:
    far = start_node(announce=1)
    said = len(far.said())
    stream = f"group:{group}"
    sender = await net.open(fresh("sender"))
    users = [fresh("c") for _ in range(16)]
    await join(sender, group)
    for user in users:
        member = await net.open(user)
        await join(member, group)
        await member.leave()
    end = time.monotonic() + 6

    async def talk() -> None:
        while time.monotonic() < end + 1:
            three = [json.dumps({"type": "send", "to": stream, "body": "x"})] * 3
            await sender.websocket.send("\n".join(three))
            await asyncio.sleep(0.004)

    async def come_and_go(user: str) -> int:
        times = 0
        while time.monotonic() < end:
            phone = await net.at(far).dial(user)
            await phone.say(type="hello")
            await phone.wait("live", 5)
            await phone.wait("message", 5, stream=stream)
            await phone.acknowledge({stream: phone.last_ids()[stream]})
            phone.cut()
            await phone.ends()
            times += 1
        return times

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(talk())
        coming = [tasks.create_task(come_and_go(user)) for user in users]
    assert min(task.result() for task in coming) > 1
    for problem in ("store_doubted", "shorter than it was"):
        assert problem not in far.said()[said:]


def test_serve_on_a_store_that_was_not_migrated(bare_database: Server) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    environ |= {"WAYPOST_REDIS_URL": bare_database.url, "WAYPOST_DEV": "1", "WAYPOST_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("waypost: ")
    assert line.count("`waypost migrate up`") == 1
    assert done.stdout == ""


# -- what clients say --------------------------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


async def test_a_body_may_nest_so_deep_and_no_deeper(net: Net, alice: str, bob: str) -> None:
    sender, receiver = await net.open(alice), await net.open(bob)
    limit = sender.welcome()["limits"]["body_depth"]
    assert limit == 128
    refused = [nested(limit + 1), nested(500), '{"a":' * (limit + 1) + "0" + "}" * (limit + 1)]
    for n, body in enumerate(refused):
        await sender.websocket.send('{"type":"send","ref":%d,"to":"user:%s","body":%s}' % (n, bob, body))
        error = await sender.wait("error", ref=n)
        assert (error["code"], error["retry"]) == ("bad_request", False)
    fine = [nested(limit), f"[{nested(3)},{nested(limit - 1)}]", json.dumps("[" * 500), json.dumps('"[' * 500)]
    for body in fine:
        assert (await sender.send(f"user:{bob}", json.loads(body)))["type"] == "sent"
        await receiver.wait("message", body=json.loads(body))
    assert receiver.bodies() == [json.loads(body) for body in fine]


async def test_a_chat_that_only_sends_has_its_own_inbox_acknowledged(net: Net, alice: str, bob: str) -> None:
    chat, receiver = await net.chat("user", alice), await net.open(bob)

    async def inbox() -> Frame:
        """As the store has it for the device."""
        phone = await net.open(alice, "chat")
        await phone.leave()
        found: Frame = phone.welcome()["streams"][f"user:{alice}"]
        return found

    assert n_of((await inbox())["offset"]) == 0
    for n in range(3):
        chat.say(json.dumps({"Id": bob, "Msg": f"hi {n}"}))
        await receiver.wait("message", body=f"hi {n}")
    deadline = time.monotonic() + 8
    while n_of((found := await inbox())["offset"]) < 3:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)
    assert (found["offset"], found["missed"]) == (found["head"], 0)
    assert chat.texts == []


async def test_chat_acknowledges_nothing_that_is_kept_back_until_replicas_have_a_send(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    waiting = net.at(start_node(wait_replicas=1, wait_timeout_ms=15_000))  # and there is none
    sender, phone = await net.open(bob), await waiting.open(alice, "phone")
    chat = await waiting.chat("channel", alice, is_ponging=False)
    await sender.send(f"user:{alice}", "first")
    await chat.until_pinged()
    await sender.send(f"user:{alice}", "second")
    await chat.until(f"user {bob} send:first", f"user {bob} send:second")
    chat.say(direct(bob, "this waits for the replica"))
    await phone.wait("message", body="this waits for the replica")
    await sender.send(f"user:{alice}", "third")
    await phone.wait("message", body="third")  # it has passed the chat too, which is told of it after its own

    chat.pong(chat.pings[0])
    chat.say("not understood")
    await chat.until_there_are(3)
    for payload in chat.pings[1:]:
        chat.pong(payload)
    chat.say("not understood")
    await chat.until_there_are(4)
    assert chat.texts[2:] == ["error: not understood"] * 2
    await chat.cut()
    again = await net.chat("channel", alice)
    await sender.send(f"user:{alice}", "fourth")
    await again.until(*(f"user {bob} send:{text}" for text in ("second", "third", "fourth")))


@pytest.mark.parametrize("announce", [0, 999], ids=["too large to announce", "announced"])
async def test_path_of_a_group_hears_of_a_leaving_and_a_joining_on_another_node(
    net: Net, start_node: StartNode, alice: str, bob: str, group: str, *, announce: int
) -> None:
    elsewhere = net.at(start_node(announce=announce))
    member, phone = await elsewhere.open(bob), await elsewhere.open(alice, "phone")
    for one in (member, phone):
        await join(one, group)
    chat = await net.chat("group", group, alice)
    await member.send(f"group:{group}", "before")
    await chat.until(add(alice, group), f"group 【{group}】 user 【{bob}】 send:before")
    await leave(phone, group)
    await member.send(f"group:{group}", "not for Alice")
    await join(phone, group)
    await member.send(f"group:{group}", "after")
    await chat.until_there_are(3)
    assert chat.texts[2:] == [f"group 【{group}】 user 【{bob}】 send:after"]


async def test_what_an_older_path_does_not_tell_is_neither_written_nor_acknowledged(
    net: Net, database: Server, alice: str, bob: str, group: str
) -> None:
    member = await net.open(bob)
    await join(member, group)
    chat = await net.chat("group", group, alice)
    await chat.until(add(alice, group))
    await member.send(f"user:{alice}", "direct")
    last = (await member.send(f"group:{group}", "to the group"))["id"]
    expected = [add(alice, group), f"group 【{group}】 user 【{bob}】 send:to the group"]
    await chat.until(*expected)
    await eventually(lambda: stored_offset(database, alice, "chat", f"group:{group}") == last, "it is acknowledged")
    assert chat.texts == expected
    await chat.leave()
    whole = await net.chat("channel", alice)
    await whole.until(f"user {bob} send:direct")
