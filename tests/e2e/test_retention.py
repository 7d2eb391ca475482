"""Old entries go on a schedule, and whoever missed something is told exactly what and why."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.core.names import parse_id
from service.store import Store
from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.faults.kit import run_cli
from tests.e2e.kit import true
from tests.integration.store.kit import Server, numbers_in
from tests.service import Frame, Phone
from tests.worker import WorkerProcess

pytestmark = pytest.mark.anyio
StartWorker = Callable[[str], WorkerProcess]
SELDOM = "\n".join(f'[jobs.{job}]\nevery = "1d"' for job in ("devices", "groups", "audit", "survey"))


@pytest.fixture
def start_worker(database: Server, tmp_path: Path) -> Iterator[StartWorker]:
    """Workers that trim every second by these policies (TOML), ended with the test."""
    workers: list[WorkerProcess] = []

    def start(policies: str) -> WorkerProcess:
        path = tmp_path / f"w{len(workers)}.toml"
        path.write_text(f'{policies}\n[jobs.retention]\nevery = "1s"\n{SELDOM}\n')
        workers.append(WorkerProcess(database.url, config=path))
        return workers[-1].start()

    yield start
    for worker in workers:
        worker.remove()


def adds_up(frames: list[Frame], stream: str, after: int, to: int) -> list[int]:
    """That what came of a stream, entries and gaps, are the numbers from `after` to `to`, each once; the entries."""
    at, entries = after, []
    for frame in frames:
        if frame.get("stream") != stream:
            continue
        if frame["type"] == "gap":
            assert parse_id(frame["after"]).n == at, frame
            at = parse_id(frame["to"]).n
            assert frame["missed"] == at - parse_id(frame["after"]).n
        elif "id" in frame:
            assert parse_id(frame["id"]).n == at + 1, frame
            at += 1
            entries.append(at)
    assert at == to
    return entries


async def test_who_was_away_gets_one_gap_with_its_cause_and_who_was_there_none(
    database: Server, start_node: StartNode, start_worker: StartWorker
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await bob.say(type="join", ref="j", group="g")
    joined = await bob.wait("joined", ref="j")
    await alice.say(type="join", ref="j", group="g")
    await alice.wait("joined", ref="j")
    await bob.ack(group_g=joined["id"])
    await bob.leave()
    await alice.send_all("group:g", range(50))
    start_worker('[[retention.policies]]\nmatch = "group:*"\nmax_entries = 20')
    await true(lambda: len(numbers_in(database.admin, "group:g")) == 20, "twenty are left")

    bob = await Phone.open(node.url, "bob", "phone")
    [gap] = bob.gaps()
    assert (gap["after"], gap["missed"]) == (joined["id"], 31)  # alice's joining and the first thirty
    assert (gap["cause"]["kind"], gap["cause"]["policy"], gap["cause"]["limit"]) == (
        "trimmed",
        "group:*",
        "max_entries=20",
    )
    assert gap["next"] == next(frame["id"] for frame in bob.messages("group:g"))
    assert bob.bodies("group:g") == list(range(30, 50))

    await bob.acknowledge(bob.last_ids())
    await alice.send_all("group:g", range(50, 80))
    await bob.wait("message", body=79)
    await true(lambda: min(numbers_in(database.admin, "group:g")) > 60, "they are trimmed again")
    await bob.acknowledge(bob.last_ids())
    await bob.leave()
    bob = await Phone.open(node.url, "bob", "phone")
    assert (bob.gaps(), bob.messages()) == ([], [])
    assert alice.gaps() == []


async def test_what_a_phone_has_not_read_is_held_until_it_has(
    database: Server, start_node: StartNode, start_worker: StartWorker
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await bob.leave()
    await alice.send_all("user:bob", range(40))
    await alice.acknowledge(alice.last_ids())  # `sent` stands for her copies
    start_worker('[[retention.policies]]\nmatch = "user:*"\nmax_entries = 5\nhold_unread = "1h"')
    await true(lambda: len(numbers_in(database.admin, "user:alice")) == 5, "her copies are trimmed")
    assert len(numbers_in(database.admin, "user:bob")) == 40
    bob = await Phone.open(node.url, "bob", "phone")
    assert (bob.gaps(), bob.bodies("user:bob")) == ([], list(range(40)))
    await bob.ack(user_bob=bob.messages()[29]["id"])
    await true(lambda: len(numbers_in(database.admin, "user:bob")) == 10, "what was read has gone")
    await bob.ack(user_bob=bob.messages()[-1]["id"])
    await true(lambda: len(numbers_in(database.admin, "user:bob")) == 5, "and the rest, but what the limit leaves")


async def test_a_policy_that_changes_between_runs_is_told_by_both_its_names(
    database: Server, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    await bob.leave()
    await alice.send_all("user:bob", range(30))
    for match, limit in (("user:*", 20), ("user:bob", 10)):
        path = tmp_path / f"{limit}.toml"
        path.write_text(f'[[retention.policies]]\nmatch = "{match}"\nmax_entries = {limit}\n')
        code, said = await run_cli(database, "retention", "run", WAYPOST_CONFIG=str(path))
        assert (code, "done" in said) == (0, True), said
    bob = await Phone.open(node.url, "bob", "phone")
    [gap] = [gap for gap in bob.gaps() if gap["stream"] == "user:bob"]
    assert gap["missed"] == 20
    assert [(cause["policy"], cause["limit"]) for cause in gap["causes"]] == [
        ("user:*", "max_entries=20"),
        ("user:bob", "max_entries=10"),
    ]
    assert bob.bodies() == list(range(20, 30))


async def test_messages_flow_devices_come_and_go_two_workers_trim_and_everything_adds_up(
    store: Store, start_nodes: StartNodes, start_worker: StartWorker
) -> None:
    first, second = start_nodes("a", "b")
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob", "d0")
    for phone in (alice, bob):
        await phone.say(type="join", ref="j", group="g")
        await phone.wait("joined", ref="j")
    policies = '[[retention.policies]]\nmatch = "group:*"\nmax_entries = 30\nmax_age = "1s"'
    workers = [start_worker(policies), start_worker(policies)]
    is_over = asyncio.Event()

    async def come_and_go(device: str, pause_s: float) -> int:
        """Comes, checks what it missed, goes; how many gaps it was told."""
        offset, gaps, is_last = 2, 0, False
        while not is_last:
            is_last = is_over.is_set()
            phone = await Phone.open(second.url, "bob", device)
            stands = phone.welcome()["streams"]["group:g"]
            assert parse_id(stands["offset"]).n == offset
            to = parse_id(phone.last_ids().get("group:g", stands["offset"])).n
            assert to >= parse_id(stands["head"]).n
            adds_up(phone.frames, "group:g", offset, to)
            gaps += len(phone.gaps())
            if to > offset:
                await phone.ack(group_g=phone.last_ids()["group:g"])
            offset = to
            await phone.leave()
            await asyncio.sleep(pause_s)
        return gaps

    await bob.ack(group_g=bob.last_ids()["group:g"])
    await bob.leave()
    for device in ("d1", "d2"):
        phone = await Phone.open(second.url, "bob", device)
        await phone.ack(group_g=head_of_group(phone))
        await phone.leave()
    visitors = [asyncio.create_task(come_and_go(f"d{number}", 0.3 * number)) for number in range(3)]
    for begin in range(0, 600, 20):
        await alice.send_all("group:g", range(begin, begin + 20))
        await asyncio.sleep(0.1)
    is_over.set()
    assert sum(await asyncio.gather(*visitors)) > 0
    reports = await store.job_reports(99)
    assert {report.state for report in reports} == {"done"}
    assert sum(report.entries_removed for report in reports) > 300
    assert [worker.stop() for worker in workers] == [0, 0]


def head_of_group(phone: Phone) -> str:
    """Where the group stood when the phone came: at the second joining."""
    stands: str = phone.welcome()["streams"]["group:g"]["head"]
    return stands
