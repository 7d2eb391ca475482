"""`serve --processes 2`: whichever process a scrape comes to, it answers for both, and for one that has died."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from tests.integration.ops.conftest import StartNode
from tests.integration.ops.scrape import Numbers, ask, scrape_until
from tests.integration.wire.kit import eventually
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio
NODES = {"edge-1", "edge-2"}
MANY = 30  # connections: that all of them come to one process happens once in a billion times


def pids(service: NodeProcess, name: str) -> list[int]:
    """The processes that have had this name, the present one last."""
    return [int(pid) for pid in re.findall(rf"child_started child={name} pid=(\d+)", service.said())]


def folder_of(pid: int) -> Path:
    """Where a process leaves its numbers (Linux)."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return Path(words[words.index("--numbers-in") + 1])


async def test_one_scrape_answers_for_both_also_after_one_has_died(start_node: StartNode) -> None:
    service = start_node("edge", processes=2)
    await eventually(lambda: "all_ready count=2" in service.said(), "both are ready")
    phones = await asyncio.gather(*(Phone.open(service.url, f"user{at}") for at in range(MANY)))
    here = {name: sum(phone.welcome()["node"] == name for phone in phones) for name in NODES}
    for phone in phones:
        await phone.send("user:nobody", "hi")

    def has_all(numbers: Numbers) -> bool:
        return numbers.total("waypost_sends_total") == MANY and numbers.total("waypost_connections") == MANY

    numbers = await scrape_until(service.url, has_all, "both are told, to the last message")
    for _ in range(10):  # each time over a connection of its own, to whichever process takes it
        numbers = await scrape_until(service.url, has_all, "both are told, to the last message")
        assert numbers.nodes() == NODES
        for name in NODES:
            assert numbers.of("waypost_connections", name, transport="websocket") == here[name]
            assert numbers.of("waypost_sends_total", name, outcome="stored") == here[name]
            assert numbers.of("waypost_ready", name) == 1
            assert numbers.of("waypost_snapshot_age_seconds", name) < 5
    started = numbers.of("waypost_process_start_time_seconds", "edge-1")
    os.kill(pids(service, "edge-1")[-1], signal.SIGKILL)

    def begins_anew(numbers: Numbers) -> bool:
        return numbers.get("waypost_process_start_time_seconds", "edge-1") not in (None, started)

    numbers = await scrape_until(service.url, begins_anew, "another process is told in place of the dead one")
    assert numbers.nodes() == NODES
    assert numbers.of("waypost_sends_total", "edge-1", outcome="stored") == 0
    assert numbers.of("waypost_sends_total", "edge-2", outcome="stored") == here["edge-2"]


async def test_of_a_process_that_hangs_only_what_it_counted_is_told(start_node: StartNode) -> None:
    service = start_node("edge", processes=2)
    await eventually(lambda: "all_ready count=2" in service.said(), "both are ready")
    phones = await asyncio.gather(*(Phone.open(service.url, f"user{at}") for at in range(MANY)))
    asleep = phones[0].welcome()["node"]
    [awake] = NODES - {asleep}
    await phones[0].send("user:nobody", "hi")

    def is_left(numbers: Numbers) -> bool:
        told_by_the_other = numbers.of("waypost_snapshot_age_seconds", asleep) > 0
        return told_by_the_other and numbers.of("waypost_sends_total", asleep, outcome="stored") == 1

    await scrape_until(service.url, is_left, "the other process knows of the message")
    pid = pids(service, asleep)[-1]
    os.kill(pid, signal.SIGSTOP)
    try:
        numbers = await _from(service, awake, asleep)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert numbers.of("waypost_ready", awake) == 1
    assert numbers.of("waypost_not_ready", asleep, reason="silent") == 1
    assert numbers.of("waypost_sends_total", asleep, outcome="stored") == 1
    assert numbers.get("waypost_connections", asleep, transport="websocket") is None
    await scrape_until(service.url, lambda seen: seen.of("waypost_ready", asleep) == 1, "it is back")


async def _from(service: NodeProcess, awake: str, asleep: str) -> Numbers:
    """What the process that is awake says of the other, once it counts as silent. A scrape that comes to the other
    waits for nothing.
    """
    async with asyncio.timeout(30):
        while True:
            try:
                numbers = Numbers(await asyncio.to_thread(ask, service.url, seconds=1))
            except TimeoutError:
                continue
            if numbers.of("waypost_ready", asleep) == 0 and numbers.of("waypost_ready", awake) == 1:
                return numbers
            await asyncio.sleep(0.1)


async def test_nothing_is_left_behind(start_node: StartNode) -> None:
    service = start_node("edge", processes=2)
    await eventually(lambda: "all_ready count=2" in service.said(), "both are ready")
    folder = folder_of(pids(service, "edge-1")[-1])
    assert folder.stat().st_mode & 0o077 == 0
    await eventually(lambda: len(list(folder.glob("*.json"))) == 2, "both leave their numbers")
    assert await asyncio.to_thread(service.stop) == 0
    assert not folder.exists()
