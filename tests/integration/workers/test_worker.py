"""Workers: each run happens once, however many there are; the store's clock decides; a closed store is waited for."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.config import Jobs, Schedule, Settings
from service.store import JobReport, Store
from tests.integration.store.kit import FOREIGN_RUN, LAYOUT, Server
from tests.integration.workers.conftest import MakeShift
from tests.integration.workers.kit import take
from workers.__main__ import JobBusy, Worker, once
from workers.door import Door
from workers.runs import Job, Run, Shift

pytestmark = pytest.mark.anyio
OFTEN = Jobs(retention=Schedule(every=1))


@asynccontextmanager
async def at_work(shift: Shift, job: Job) -> AsyncIterator[None]:
    working = asyncio.create_task(Worker(shift, {"retention": job}).work())
    try:
        yield
    finally:
        shift.stop.set()
        await working


async def reports(store: Store, count: int, seconds: float = 15) -> list[JobReport]:
    """So many reports, as soon as they are there; oldest first."""
    async with asyncio.timeout(seconds):
        while len(found := await store.job_reports(100)) < count:  # noqa: ASYNC110 - it happens in the store
            await asyncio.sleep(0.02)
    return found[::-1]


async def test_two_workers_share_the_runs_and_none_overlaps(make_shift: MakeShift) -> None:
    first, second = await make_shift(jobs=OFTEN), await make_shift("worker:two", jobs=OFTEN)
    at_it = 0

    async def job(run: Run, store: Store, settings: Settings) -> None:
        nonlocal at_it
        del run, store, settings
        assert at_it == 0
        at_it += 1
        await asyncio.sleep(0.3)
        at_it -= 1

    async with at_work(first, job), at_work(second, job):
        found = await reports(first.store, 4)
    assert {one.state for one in found} == {"done"}
    assert len({one.run for one in found}) == len(found)
    begins = [one.started_ms for one in found]
    assert all(after - before >= 1000 for before, after in itertools.pairwise(begins))


async def test_what_was_missed_is_caught_up_once(server: Server, make_shift: MakeShift) -> None:
    shift = await make_shift(jobs=Jobs(retention=Schedule(every=60)))
    lease = await take(shift)
    await shift.store.finish_job(lease._grant, JobReport("retention", lease.id, state="done"))
    [name] = list(server.admin.scan_iter("wp:*:j:retention"))
    server.admin.hset(name, "slot", await shift.store.now_ms() - 3_600_000)  # sixty times ago

    async with at_work(shift, _nothing):
        await reports(shift.store, 2)
        await asyncio.sleep(1.0)
    assert len(await shift.store.job_reports(9)) == 2


async def _nothing(run: Run, store: Store, settings: Settings) -> None:
    del run, store, settings


async def test_a_run_that_was_left_is_resumed_as_soon_as_its_lease_runs_out(make_shift: MakeShift) -> None:
    dead = await make_shift("worker:dead", job_lease_s=0.8)
    shift = await make_shift(jobs=Jobs(retention=Schedule(every=3600)))
    left = await take(dead)  # and nobody keeps it
    begun = time.monotonic()
    async with at_work(shift, _nothing):
        [report] = await reports(shift.store, 1)
    assert (report.run, report.resumed, report.started_ms) == (left.id, 1, left.report.started_ms)
    assert report.worker == "worker:one"
    assert time.monotonic() - begun < 3


async def test_a_bug_in_a_job_is_reported_and_the_next_run_comes(make_shift: MakeShift) -> None:
    shift = await make_shift(jobs=OFTEN)

    async def job(run: Run, store: Store, settings: Settings) -> None:
        raise ValueError("a bug")

    async with at_work(shift, job):
        found = await reports(shift.store, 2)
    assert [one.state for one in found] == ["failed", "failed"]


async def test_a_worker_outlives_the_store_being_away(
    server: Server, make_shift: MakeShift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.door.PATIENCE_S", 0.3)
    shift = await make_shift(jobs=OFTEN)
    async with at_work(shift, _nothing):
        await reports(shift.store, 1)
        server.kill()
        await asyncio.sleep(1.0)
        server.start()
        await shift.door.wait()
        count = len(await shift.store.job_reports(100))
        await reports(shift.store, count + 1)


async def test_one_job_can_be_run_now_unless_somebody_is_at_it(server: Server, shift: Shift) -> None:
    for _ in range(2):
        report = await once(shift.settings, "audit")
        assert (report.name, report.state) == ("audit", "done")
    await take(shift, "audit")
    with pytest.raises(JobBusy):
        await once(shift.settings, "audit")
    assert len(await shift.store.job_reports(9)) == 2


async def test_a_store_that_nodes_have_not_opened_is_left_to_them_for_a_while(
    server: Server, shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.door.PATIENCE_S", 0.5)
    for tag in LAYOUT.tags:
        server.admin.hset(f"wp:{{{tag}}}:e", "run", FOREIGN_RUN)
    door = Door(shift.store, "worker:one")
    waiting = asyncio.create_task(door.wait())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    # A node comes, and is alone: it opens at once, and the worker has added nothing of its own.
    assert await shift.store.reconcile("n1", ["n1"], {})
    await waiting
    assert not [field for field in server.admin.hkeys(f"wp:{{{LAYOUT.tags[0]}}}:e") if b"worker" in field]


async def test_a_store_that_no_node_opens_is_opened_by_the_worker_after_the_wait_for_nodes(
    server: Server, shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.door.PATIENCE_S", 0.2)
    await shift.store.heartbeat("n1", {})  # which may still be alive: it is given the time that nodes give each other
    for tag in LAYOUT.tags:
        server.admin.hset(f"wp:{{{tag}}}:e", "run", FOREIGN_RUN)
    begun = time.monotonic()
    await Door(shift.store, "worker:one").wait()
    assert time.monotonic() - begun > 2
    assert (await shift.store.fence_state()).is_open
