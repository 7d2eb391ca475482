"""Several processes on one port are one service: none is lost with one of them, and they end together."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections import defaultdict

import pytest

from service.client import Client, Message
from tests.e2e.conftest import StartNode
from tests.e2e.kit import true
from tests.integration.platform.processes import is_running
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone

# It is about processes and sockets, not about the database.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

NODES = ("edge-1", "edge-2")
MANY = 30  # connections: that all of them come to one process happens once in a billion times


def pids(supervisor: NodeProcess, name: str) -> list[int]:
    """The processes that have had this name, the present one last."""
    return [int(pid) for pid in re.findall(rf"child_started child={name} pid=(\d+)", supervisor.said())]


@pytest.fixture
async def service(database: Server, start_node: StartNode) -> NodeProcess:
    """Two nodes on one port, both ready."""
    supervisor = start_node("edge", processes=2)
    await true(lambda: "all_ready count=2" in supervisor.said(), "both are ready")
    return supervisor


async def crowd(service: NodeProcess) -> dict[str, list[Phone]]:
    """Many phones that connect at one moment, by the node that each has come to."""
    phones = await asyncio.gather(*(Phone.open(service.url, f"user{at}") for at in range(MANY)))
    found: dict[str, list[Phone]] = defaultdict(list)
    for phone in phones:
        found[phone.welcome()["node"]].append(phone)
    return found


async def test_what_is_sent_through_one_process_is_received_through_the_other(
    database: Server, service: NodeProcess
) -> None:
    phones = await crowd(service)
    assert sorted(phones) == sorted(NODES)
    assert sorted(database.admin.zrange("wp:nodes", 0, -1)) == [b"edge-1", b"edge-2"]
    here, there = (phones[name][0] for name in NODES)
    assert (await here.send(f"user:{there.user}", "from one"))["type"] == "sent"
    await there.wait("message", body="from one")
    assert (await there.send(f"user:{here.user}", "from the other"))["type"] == "sent"
    await here.wait("message", body="from the other")
    await here.send("all", "to everybody")
    for phone in (*phones["edge-1"][1:], *phones["edge-2"]):
        await phone.wait("message", body="to everybody")


async def test_a_killed_process_is_started_again_and_nothing_is_lost(service: NodeProcess) -> None:
    phones = await crowd(service)

    async def receive(user: str) -> list[object]:
        bodies: list[object] = []
        async with Client(service.url, user=user) as client:
            await client.join("g")
            joined.append(user)
            async for event in client:
                if isinstance(event, Message) and event.body:
                    bodies.append(json.loads(bytes(event.body)))
                    if bodies[-1] == "last":
                        return bodies
        raise AssertionError("the client ends only when it is told to")

    joined: list[str] = []
    receivers = [asyncio.create_task(receive(f"bob{at}")) for at in range(MANY)]
    await true(lambda: len(joined) == MANY, "all have joined")
    async with Client(service.url, user="alice", listens=False) as alice, asyncio.timeout(30):
        await alice.join("g")
        for number in range(150):
            await alice.send("group:g", number)
            if number == 50:
                os.kill(pids(service, "edge-1")[-1], signal.SIGKILL)
        await true(lambda: len(pids(service, "edge-1")) == 2, "another is started")
        await alice.send("group:g", "last")
        assert await asyncio.gather(*receivers) == [[*range(150), "last"]] * MANY
    assert [await phone.ends() for phone in phones["edge-1"]] == [1006] * len(phones["edge-1"])
    assert not any(phone.closed for phone in phones["edge-2"])


async def test_who_connects_while_a_process_is_away_waits_for_the_next(service: NodeProcess) -> None:
    (first,) = pids(service, "edge-1")
    os.kill(first, signal.SIGKILL)
    await true(lambda: "child_ended child=edge-1" in service.said(), "it is gone")
    phones = await crowd(service)  # each is live at its first try, whichever socket it has come to
    assert sorted(phones) == sorted(NODES)
    assert len(pids(service, "edge-1")) == 2


async def test_all_end_together_and_say_goodbye(database: Server, service: NodeProcess) -> None:
    phones = await crowd(service)
    service.signal(signal.SIGTERM)
    codes = await asyncio.gather(*(phone.ends() for name in NODES for phone in phones[name]))
    assert codes == [4002] * MANY
    assert await asyncio.to_thread(service.ends) == 0
    assert database.admin.zrange("wp:nodes", 0, -1) == []
    assert "Traceback" not in service.said()


async def test_a_second_signal_does_not_wait_for_the_drain(start_node: StartNode) -> None:
    supervisor = start_node("edge", processes=2, drain_s=600)
    phones = await crowd(supervisor)
    asleep, *others = (phone for name in NODES for phone in phones[name])
    # It reads no goodbye, so that its node waits for its answer.
    asleep.stop_reading()
    asleep.websocket.transport.pause_reading()
    supervisor.signal(signal.SIGINT)
    await asyncio.gather(*(phone.ends() for phone in others))
    supervisor.signal(signal.SIGINT)
    assert await asyncio.to_thread(supervisor.ends) == 0
    assert "exit_code=-9" in supervisor.said()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_killed_supervisor_leaves_nobody_behind(service: NodeProcess) -> None:
    left = [pids(service, name)[-1] for name in NODES]
    assert all(map(is_running, left))
    service.kill()
    await true(lambda: not any(map(is_running, left)), "both have ended")


async def test_a_port_that_is_taken_is_said_once(database: Server) -> None:
    supervisor = NodeProcess(database.url, "edge", processes=2)
    with socket.create_server(("127.0.0.1", supervisor.port)):
        assert await asyncio.to_thread(supervisor.start(wait=False).ends) == 1
    assert supervisor.said() == (
        f"waypost: cannot serve on 127.0.0.1 port {supervisor.port}: Address already in use; "
        "choose another with WAYPOST_PORT\n"
    )
    supervisor.remove()


async def test_a_store_that_is_refused_is_said_once(database: Server) -> None:
    database.admin.flushall()
    supervisor = NodeProcess(database.url, "edge", processes=2)
    assert await asyncio.to_thread(supervisor.start(wait=False).ends) == 1
    said = [line for line in supervisor.said().splitlines() if line.startswith("waypost: ")]
    assert said == ["waypost: the store was emptied or never migrated: run `waypost migrate up`"]
    assert pids(supervisor, "edge-2") == []
    supervisor.remove()
