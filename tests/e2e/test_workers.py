"""Scheduled jobs in real processes: each run happens once, whatever happens to the workers and their clocks."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from service.store import JobLease, JobReport, Store
from tests.clock import Clock, library
from tests.e2e.conftest import StartNode
from tests.e2e.faults.kit import run_cli
from tests.e2e.kit import true
from tests.integration.store.kit import LAYOUT, Admin, Server, key_of
from tests.service import Phone
from tests.worker import WorkerProcess, reports

pytestmark = pytest.mark.anyio
StartWorker = Callable[..., WorkerProcess]
MANY = 20_000  # users: enough for a run to be caught in the middle
# Only `devices` is due when it is told to be; the others would only be in the way.
SELDOM = {f"jobs_{job}_every": "1d" for job in ("retention", "devices", "groups", "audit", "survey")}


@pytest.fixture
def start_worker(database: Server) -> Iterator[StartWorker]:
    """Workers, ended with the test."""
    workers: list[WorkerProcess] = []

    def start(**settings: object) -> WorkerProcess:
        environ = settings.pop("environ", None)
        assert environ is None or isinstance(environ, dict)
        workers.append(WorkerProcess(database.url, environ=environ, **(SELDOM | settings)))
        return workers[-1].start()

    yield start
    for worker in workers:
        worker.remove()


@pytest.fixture
async def idle_devices(database: Server, store: Store) -> None:
    """Many users whose only device was not seen for a year, and the job `devices` is due."""
    fill(database.admin, "u")
    await make_due(database.admin, store, "devices")


def fill(admin: Admin, prefix: str, count: int = MANY) -> None:
    pipeline = admin.pipeline(transaction=False)
    for number in range(count):
        user = f"{prefix}{number}"
        name = key_of("d", f"user:{user}", user)
        pipeline.hset(name, "phone", json.dumps({"first": 1, "last": 1, "node": "n1"}))
    pipeline.execute()


async def make_due(admin: Admin, store: Store, job: str) -> None:
    """As if it had run two days ago."""
    await store.take_job(job, "", "nobody", 1000)
    admin.hset(job_key(job), "slot", await store.now_ms() - 2 * 86_400_000)


def job_key(job: str) -> str:
    return f"wp:{{{LAYOUT.tag(job)}}}:j:{job}"


async def caught_in_the_middle(admin: Admin) -> None:
    """Returns when a part of the devices is forgotten."""
    full = admin.dbsize()
    await true(lambda: admin.dbsize() < full - MANY // 10, "it is at work")


def left(admin: Admin) -> int:
    return sum(1 for _ in admin.scan_iter("wp:*:d:*", count=1000))


async def test_two_workers_run_each_job_once_and_never_two_at_a_time(store: Store, start_worker: StartWorker) -> None:
    workers = [start_worker(jobs_audit_every="1s") for _ in range(2)]
    found = await reports(store, 6)
    assert len({one.run for one in found}) == len(found)
    for before, after in itertools.pairwise(found):
        assert after.started_ms >= before.started_ms + 1000
        assert after.started_ms >= before.started_ms + before.duration_ms
    assert {one.name for one in found} == {"audit"}
    assert [worker.stop() for worker in workers] == [0, 0]
    for worker in workers:
        assert worker.said().count("worker_started") == 1
        assert "audit every 1s" in worker.said()
        assert "Traceback" not in worker.said()


@pytest.mark.usefixtures("idle_devices")
async def test_a_worker_that_was_paused_for_longer_than_its_lease_changes_nothing(
    database: Server, store: Store, start_worker: StartWorker
) -> None:
    admin = database.admin
    paused = start_worker(job_lease_s=1)
    await caught_in_the_middle(admin)
    paused.signal(signal.SIGSTOP)
    await asyncio.sleep(0.1)  # a call that is on its way arrives
    remaining = left(admin)
    assert 0 < remaining < MANY
    other = start_worker(job_lease_s=1)
    [report] = await reports(store, 1)
    assert (report.state, report.resumed) == ("done", 1)
    assert report.worker.endswith(f"-{other.pid}")
    assert left(admin) == 0

    fill(admin, "later", 200)
    before = admin.hgetall(job_key("devices"))
    paused.signal(signal.SIGCONT)
    await true(lambda: "run_lost" in paused.said(), "it sees that it has lost its run")
    await asyncio.sleep(1.0)
    assert left(admin) == 200
    assert admin.hgetall(job_key("devices")) == before
    assert await store.job_reports(9) == [report]
    assert paused.stop() == other.stop() == 0


@pytest.mark.usefixtures("idle_devices")
async def test_sigterm_in_mid_run_leaves_it_to_the_next_who_goes_on_at_once(
    database: Server, store: Store, start_worker: StartWorker
) -> None:
    admin = database.admin
    first = start_worker(job_lease_s=600)
    await caught_in_the_middle(admin)
    assert first.stop() == 0
    assert "run_left" in first.said()
    state = await store.job_state("devices")
    assert (state.is_done, state.lease_ms) == (False, 0)
    progress = json.loads(admin.hget(job_key("devices"), "progress"))
    assert progress["cursor"].startswith("d ")
    remaining = left(admin)
    assert progress["report"]["devices_forgotten"] == MANY - remaining > 0

    start_worker()
    [report] = await reports(store, 1)
    assert (report.devices_forgotten, report.resumed, report.errors) == (MANY, 1, [])
    assert left(admin) == 0


@pytest.mark.usefixtures("idle_devices")
async def test_a_killed_worker_s_run_is_resumed_by_another(
    database: Server, store: Store, start_worker: StartWorker
) -> None:
    admin = database.admin
    first = start_worker(job_lease_s=1)
    await caught_in_the_middle(admin)
    first.signal(signal.SIGKILL)
    first.ends()
    start_worker(job_lease_s=1)
    [report] = await reports(store, 1)
    assert (report.state, report.resumed) == ("done", 1)
    assert left(admin) == 0


@pytest.mark.usefixtures("idle_devices")
async def test_a_run_goes_on_when_the_database_was_killed_in_the_middle_of_it(
    database: Server, store: Store, start_node: StartNode, start_worker: StartWorker
) -> None:
    start_node()
    worker = start_worker()
    await caught_in_the_middle(database.admin)
    database.kill()
    database.start()
    [report] = await reports_after_restart(store)
    assert report.state == "done"
    assert left(database.admin) == 0
    assert "Traceback" not in worker.said()


async def reports_after_restart(store: Store) -> list[JobReport]:
    await store.reconnect()
    return await reports(store, 1)


def has_seen(worker: WorkerProcess, jumps: int) -> bool:
    return worker.said().count("clock_jumped") >= jumps


@pytest.mark.skipif(library() is None, reason="libfaketime is not on this machine")
@pytest.mark.parametrize("database", ["valkey"], indirect=True)  # it waits for long, and is not about the database
async def test_a_clock_of_the_worker_that_is_set_back_or_ahead_changes_no_schedule(
    store: Store, start_worker: StartWorker
) -> None:
    clock = Clock()
    try:
        worker = start_worker(jobs_audit_every="1s", environ=clock.environ)
        count = len(await reports(store, 2))
        for jumps, seconds in enumerate((-3600, 7200), 1):
            clock.turn(seconds)
            await true(partial(has_seen, worker, jumps), "the worker has seen it")
            count = len(await reports(store, count + 3, seconds=8))
        found = await reports(store, count)
        for before, after in itertools.pairwise(found):
            assert after.started_ms >= before.started_ms + 1000
        assert worker.stop() == 0
    finally:
        clock.remove()


@pytest.mark.parametrize("database", ["valkey"], indirect=True)  # it waits for long, and is not about the database
async def test_a_connected_device_is_not_forgotten_however_silent_it_is(
    database: Server, store: Store, start_node: StartNode, start_worker: StartWorker
) -> None:
    node = start_node(retention_device_idle_max="4s")
    silent = await Phone.open(node.url, "alice", "silent")
    gone = await Phone.open(node.url, "alice", "gone")
    await gone.leave()
    start_worker(jobs_devices_every="1s", retention_device_idle_max="4s")
    name = key_of("d", "user:alice", "alice")
    await true(lambda: database.admin.hkeys(name) == [b"silent"], "who has left is forgotten")
    await asyncio.sleep(5)
    assert database.admin.hkeys(name) == [b"silent"]
    assert silent.closed is None


async def test_one_job_now(database: Server, store: Store) -> None:
    fill(database.admin, "u", 3)
    code, said = await run_cli(database, "worker", "--once", "devices")
    assert code == 0, said
    first, second = said.splitlines()
    assert first.startswith("devices: done in ")
    assert second == "3 devices seen, 3 devices forgotten"
    code, said = await run_cli(database, "worker", "--once", "devices", "--json")
    assert (code, json.loads(said)["devices_forgotten"]) == (0, 0)

    lease = await store.take_job("devices", (await store.job_state("devices")).slot, f"test-{os.getpid()}", 60_000)
    assert isinstance(lease, JobLease)
    code, said = await run_cli(database, "worker", "--once", "devices")
    assert (code, said) == (1, "waypost: another worker is running devices\n")
