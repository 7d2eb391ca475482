"""A node that is told to end says goodbye: everything taken is answered and stored, and clients go on elsewhere."""

import asyncio
import json
import signal

import pytest
from websockets.asyncio.client import connect

from service.store import keys
from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.kit import Device, true
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone
from tests.tokens import SIGNED

pytestmark = pytest.mark.anyio


async def ends(node: NodeProcess) -> int:
    """The exit code, without holding up the connections of this test."""
    return await asyncio.to_thread(node.ends)


async def test_everything_that_was_taken_is_answered_before_the_goodbye(start_nodes: StartNodes) -> None:
    going, staying = start_nodes("going", "staying")
    senders = [await Phone.open(going.url, f"sender{at}") for at in range(4)]
    bob = await Phone.open(staying.url, "bob")
    for phone in (*senders, bob):
        await phone.say(type="join", ref="join", group="g")
        await phone.wait("joined", ref="join")

    async def stream(phone: Phone) -> None:
        for at in range(5000):
            await phone.say(type="send", ref=at, to="group:g" if at % 2 else "user:bob", body=[phone.user, at])
            await asyncio.sleep(0)

    sending = [asyncio.create_task(stream(phone)) for phone in senders]
    await true(lambda: all(phone.answer_to(50) for phone in senders), "sends are under way")
    going.signal(signal.SIGTERM)
    assert [await phone.ends() for phone in senders] == [4002] * 4
    assert await ends(going) == 0
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)

    for phone in senders:
        assert phone.frames[-1]["code"] == "draining"
        assert phone.frames[-1]["retry"]
    answered = {
        (phone.user, frame["ref"])
        for phone in senders
        for frame in phone.frames
        if frame["type"] == "sent" and isinstance(frame["ref"], int)
    }
    laptop = await Phone.open(staying.url, "bob", "laptop")
    stored = {(m["from"], m["body"][1]) for m in laptop.messages()}
    assert stored == answered  # none unanswered is stored, and none answered is missing
    await bob.until(lambda: len(bob.messages()) == len(stored), "all of it")
    for phone in senders:
        refused = [f for f in phone.frames if f["type"] == "error" and "ref" in f]
        assert all(frame["retry"] for frame in refused)
        assert [at for user, at in sorted(answered) if user == phone.user] == list(
            range(sum(user == phone.user for user, _ in answered))
        )


async def test_what_was_acknowledged_is_stored_and_the_other_node_goes_on_from_there(start_nodes: StartNodes) -> None:
    going, staying = start_nodes("going", "staying", commit_s=1)
    alice = await Phone.open(staying.url, "alice")
    bob = Device("bob", remembers=False)
    phone = await bob.connect(going.url)
    await phone.say(type="join", ref="join", group="g")
    await phone.wait("joined", ref="join")
    await alice.send_all("user:bob", range(100))
    await phone.until(lambda: len(phone.messages()) == 100, "a hundred")
    acknowledged = phone.messages()[69]["id"]
    await phone.say(type="ack", offsets={"user:bob": acknowledged})  # stored within a second
    await phone.say(type="ping", ref="taken")
    await phone.wait("pong", ref="taken")

    going.signal(signal.SIGTERM)
    assert await phone.ends() == 4002
    phone = await Phone.open(staying.url, "bob", "phone")  # at once: the node may not have ended yet
    assert phone.welcome()["streams"]["user:bob"]["offset"] == acknowledged
    assert phone.bodies() == list(range(70, 100))
    assert phone.frames[-1]["type"] == "live"
    await alice.send_all("user:bob", ["and live"])
    await phone.wait("message", body="and live")
    assert await ends(going) == 0


async def test_the_end_comes_in_time_whatever_its_clients_do(database: Server, start_nodes: StartNodes) -> None:
    going, staying = start_nodes("going", "staying", beat_s=0.02)  # a beat falls into the ending
    silent = await Phone.dial(going.url, "silent")  # never says hello
    asleep = await Phone.open(going.url, "asleep")
    asleep.stop_reading()
    assert sorted(database.admin.zrange("wp:nodes", 0, -1)) == [b"going", b"staying"]
    going.signal(signal.SIGTERM)
    assert await silent.ends() == 4002
    assert await ends(going) == 0
    assert database.admin.zrange("wp:nodes", 0, -1) == [b"staying"]
    assert not database.admin.exists("wp:node:going")
    assert await asyncio.to_thread(staying.stop) == 0


async def test_a_node_ends_while_the_database_is_away(database: Server, start_node: StartNode) -> None:
    node = start_node(drain_s=2, call_timeout_s=1)
    alice = await Phone.open(node.url, "alice")
    database.kill()
    await alice.websocket.send(
        "\n".join(json.dumps({"type": "send", "ref": at, "to": "all", "body": at}) for at in (1, 2))
    )
    node.signal(signal.SIGTERM)
    assert await alice.ends() == 4002
    assert await ends(node) == 0
    assert {frame["type"] for frame in alice.frames if "ref" in frame} <= {"error"}


async def test_nothing_of_a_node_that_has_ended_is_left_in_the_store(database: Server, start_nodes: StartNodes) -> None:
    going, staying = start_nodes("going", "staying")
    alice, bob = await Phone.open(going.url, "alice"), await Phone.open(staying.url, "bob")
    for phone in (alice, bob):
        await phone.say(type="join", ref="join", group="g")
        await phone.wait("joined", ref="join")
    streams = ("user:alice", "group:g", "all")
    layout = keys.Layout(int(database.admin.hget("wp:meta", "partitions") or 0))

    def registered() -> set[str]:
        """The nodes that have a mailbox, and the nodes whose mailbox gets copies of what is said in these streams."""
        mailboxes = {key.decode() for key in database.admin.scan_iter("wp:*:m:*")}
        for stream in streams:
            register = database.admin.hkeys(keys.key(layout.tag(stream), "h", stream))
            mailboxes |= {name.decode() for name in register if b":m:" in name}
        return {mailbox.rpartition(":m:")[2].partition(".")[0] for mailbox in mailboxes}

    await true(lambda: registered() == {"going", "staying"}, "both are registered")
    going.signal(signal.SIGTERM)
    assert await alice.ends() == 4002
    assert await ends(going) == 0
    assert registered() == {"staying"}
    assert database.admin.zrange("wp:nodes", 0, -1) == [b"staying"]
    assert (await bob.send("group:g", "still here"))["type"] == "sent"
    said = [line for line in going.said().splitlines() if " info app dr" in line]
    assert [line.split(" ")[3] for line in said] == ["draining", "drained"]
    assert " connections=1 " in said[-1]


async def test_a_balancer_is_given_time_and_a_second_signal_gives_none(start_node: StartNode) -> None:
    node = start_node(drain_delay_s=600, drain_s=600)
    alice = await Phone.open(node.url, "alice")
    node.signal(signal.SIGTERM)
    await true(lambda: node.reasons() == ["draining"], "it is not ready")
    late = await Phone.open(node.url, "bob")  # whom a balancer sent that has not looked yet
    assert (await late.send("user:alice", "served as ever"))["type"] == "sent"
    await alice.wait("message", body="served as ever")
    node.signal(signal.SIGTERM)
    assert await ends(node) == 0
    await asyncio.gather(alice.ends(), late.ends())
    assert " warning app hurried signal=SIGTERM " in node.said()
    assert "Traceback" not in node.said()


async def test_a_second_signal_breaks_off_a_drain(database: Server, start_node: StartNode) -> None:
    node = start_node(drain_s=600, call_timeout_s=600)
    alice = await Phone.open(node.url, "alice")
    database.admin.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    await alice.say(type="send", ref=1, to="all", body="is not answered")
    node.signal(signal.SIGTERM)
    await true(lambda: " draining " in node.said(), "it drains")
    node.signal(signal.SIGINT)
    assert await ends(node) == 0
    assert " drained " not in node.said()


async def test_who_has_not_said_who_they_are_holds_nothing_up(start_node: StartNode) -> None:
    node = start_node("a", **SIGNED, drain_s=600, hello_timeout_s=600)
    stranger = await Phone.dial(node.url, None)
    node.signal(signal.SIGTERM)
    assert await stranger.ends() == 4002
    assert await ends(node) == 0


async def test_clients_of_the_old_protocol_are_told_too(start_node: StartNode) -> None:
    node = start_node()
    async with connect(f"ws{node.url.removeprefix('http')}/chat/channel/bob") as chat:
        node.signal(signal.SIGTERM)
        await chat.wait_closed()
        assert (chat.close_code, chat.close_reason) == (4002, "draining")
    assert await ends(node) == 0
