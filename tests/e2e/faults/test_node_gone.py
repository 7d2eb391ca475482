"""A node is dead, stands still, or only seems to be there; a client is gone without anybody being told."""

import signal
from typing import Any

import pytest

from service.core.names import parse_id
from service.store import Store, TrimCause
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, mailboxes
from tests.e2e.kit import Device, numbers, true
from tests.integration.store.kit import Server, key_of
from tests.integration.wire.kit import TEXT, BareSocket, join
from tests.service import Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

QUICK: dict[str, Any] = {"beat_s": 0.25, "not_ready_s": 1, "mailbox_ttl_s": 2}


async def test_a_node_killed_in_the_middle_of_a_fan_out_is_forgotten_and_nobody_misses_anything(
    database: Server, start_nodes: StartNodes
) -> None:
    near, far = start_nodes("near", "far", **QUICK)
    sender = await Phone.open(near.url, "sender")
    await join(sender, "g")
    users = [f"user{at}" for at in range(20)]
    for user in users:
        await join(await Phone.open(near.url, user), "g")
    devices = [Device(user, remembers=at % 2 == 0) for at, user in enumerate(users)]
    for device in devices:
        await device.connect(far.url)
        await device.phone.wait("live")
        device.take()
        await device.acknowledge()
    for number in range(300):
        await sender.say(type="send", ref=number, to="group:g", body=number, key=f"k{number}")
        if number == 150:
            far.kill()
    await true(lambda: all(sender.answer_to(number) for number in range(300)), "all are answered")
    assert {(sender.answer_to(number) or {})["type"] for number in range(300)} == {"sent"}

    for device in devices:
        await device.phone.ends()
        device.take()
        await device.connect(near.url)
        await device.phone.wait("live")
        device.take()
        assert device.bodies("group:g") == list(range(300))
    await true(lambda: database.admin.zrange("wp:nodes", 0, -1) == [b"near"], "the dead is not among the living")
    await true(lambda: not mailboxes(database, "far"), "its mailbox has run out")
    await sender.send_all("group:g", ["after"])
    register = {name for name in database.admin.hkeys(key_of("h", "group:g")) if b":m:" in name}
    assert {name.partition(b":m:")[2].split(b".")[0] for name in register} == {b"near"}


async def test_a_stream_trimmed_while_a_node_stood_still_is_an_exact_gap_to_its_clients(
    database: Server, start_nodes: StartNodes, store: Store
) -> None:
    moving, still = start_nodes("moving", "still", **QUICK)
    alice, bob = await Phone.open(moving.url, "alice"), await Phone.open(still.url, "bob")
    await alice.send_all("user:bob", ["before"])
    await bob.wait("message", body="before")
    still.signal(signal.SIGSTOP)
    known = mailboxes(database, "still")
    await alice.send_all("user:bob", ["answers the read that it had asked for"])  # waits for it in its socket
    await alice.send_all("user:bob", range(99))
    await true(lambda: not mailboxes(database, "still"), "the lease of its mailbox runs out")
    ids = [raw.decode() for raw, _ in database.admin.xrange(key_of("s", "user:bob"))]
    await store.trim("user:bob", parse_id(ids[60]), TrimCause(policy="inbox", limit="max_entries=40"))
    still.signal(signal.SIGCONT)

    await bob.wait("message", body=98)
    [gap] = bob.gaps()
    had = bob.frames[bob.frames.index(gap) - 1]["id"]
    assert [gap[name] for name in ("after", "to", "next")] == [had, ids[60], ids[61]]
    assert gap["missed"] == 61 - parse_id(had).n
    assert (gap["cause"]["kind"], gap["cause"]["policy"]) == ("trimmed", "inbox")
    assert bob.bodies()[-40:] == list(range(59, 99))
    assert numbers(bob, "user:bob") == list(range(1, 102))
    assert mailboxes(database, "still") - known
    await insist(alice, "user:bob", "after", key="k")
    await bob.wait("message", body="after")


async def test_a_half_open_client_that_came_back_elsewhere_gets_everything_there_and_the_dead_one_goes(
    database: Server, start_nodes: StartNodes
) -> None:
    old, new = start_nodes("old", "new", ping_s=0.5)
    alice = await Phone.open(new.url, "alice")
    silent = await BareSocket.open(old.url, "/v1/connect?user=bob")  # answers nothing, and the network says nothing
    silent.write(TEXT, b'{"type":"hello","device":"phone"}')
    while b'"live"' not in (await silent.read())[1]:
        pass
    bob = await Phone.open(new.url, "bob", "phone")
    await alice.send_all("user:bob", range(10))
    await bob.until(lambda: len(bob.messages()) == 10, "ten")
    await bob.acknowledge(bob.last_ids())
    pushed = b""
    while b'"body":9' not in pushed:  # the dead one was pushed the same
        pushed = (await silent.read())[1]
    silent.write(TEXT, b'{"type":"ack","offsets":{"user:bob":"%s"}}' % bob.messages()[2]["id"].encode())  # late
    assert await silent.is_cut()
    await true(lambda: database.admin.hget("wp:node:old", "connections") == b"0", "the old node has let go of it")
    assert bob.closed is None
    again = await Phone.open(old.url, "bob", "phone")
    assert again.messages() == []  # the offset did not go back
    silent.cut()


async def test_a_node_whose_streams_are_quiet_reads_on_without_a_time_out(
    database: Server, start_nodes: StartNodes
) -> None:
    # A blocking read lasts a beat, twice as long as any other call may take.
    [node] = start_nodes("a", beat_s=1, not_ready_s=2, mailbox_ttl_s=4, call_timeout_s=0.5)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")

    def beats() -> int:
        """How many its mailbox has had."""
        return max((database.admin.xinfo_stream(name)["entries-added"] for name in mailboxes(database, "a")), default=0)

    await true(lambda: beats() >= 4, "a mailbox lives from beat to beat")
    await insist(alice, "user:bob", "at once", key="k")
    await bob.wait("message", body="at once")
