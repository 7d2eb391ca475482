"""A run: kept while it lasts, resumed where it was left, ended when it is somebody else's, reported once."""

import asyncio
import time

import pytest

from service.config import Settings
from service.errors import Fenced, Uncertain, WaypostError
from service.store import Store, Superseded, TrimCause
from tests.integration.store.kit import Server, numbers_in, send, to_all
from tests.integration.workers.conftest import MakeShift
from tests.integration.workers.kit import run_job, take
from workers.runs import Lost, Run, Shift, carry_out

pytestmark = pytest.mark.anyio


class Walker:
    """A job that goes from 0 to `end`, a number a step, and may be held before one."""

    def __init__(self, end: int = 10, hold_at: int | None = None) -> None:
        self.end = end
        self.hold_at = hold_at
        self.done: list[int] = []
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()

    async def run(self, run: Run, store: Store, settings: Settings) -> None:
        del store, settings
        for number in range(int(run.resume_from or 0), self.end):
            if number == self.hold_at:
                self.held.set()
                await self.go_on.wait()
            self.done.append(number)
            run.report.entries_removed += 1
            await run.checkpoint(str(number + 1))


async def test_a_run_is_kept_for_longer_than_its_lease(make_shift: MakeShift) -> None:
    shift = await make_shift(job_lease_s=0.5)
    walker = Walker(hold_at=5)
    running = asyncio.create_task(carry_out(await take(shift), walker.run, shift))
    await walker.held.wait()
    begun = time.monotonic()
    while time.monotonic() < begun + 1.5:
        state = await shift.store.job_state("retention")
        assert state.lease_ms > 0
        assert not state.is_done
        await asyncio.sleep(0.05)
    walker.go_on.set()
    report = await running
    assert (report.state, report.entries_removed, report.resumed) == ("done", 10, 0)
    assert report.duration_ms >= 1500
    assert await shift.store.job_reports(9) == [report]


async def test_a_stopped_run_gives_its_lease_back_and_another_goes_on(make_shift: MakeShift) -> None:
    first, second = await make_shift(), await make_shift("worker:two")
    walker = Walker(hold_at=5)
    running = asyncio.create_task(carry_out(await take(first), walker.run, first))
    await walker.held.wait()
    first.stop.set()
    walker.go_on.set()  # the step under way comes to its end
    report = await running
    assert report.state == "cancelled"
    assert await first.store.job_reports(9) == []

    report = await run_job(second, "retention", walker.run)
    assert walker.done == list(range(10))
    assert (report.worker, report.resumed, report.entries_removed) == ("worker:two", 1, 10)


async def test_a_stuck_step_is_cut_off_when_the_worker_is_stopped(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runs.STEP_S", 0.2)
    walker = Walker(hold_at=3)
    running = asyncio.create_task(carry_out(await take(shift), walker.run, shift))
    await walker.held.wait()
    shift.stop.set()
    assert (await running).state == "cancelled"
    assert (await shift.store.job_state("retention")).lease_ms == 0
    assert (await take(shift)).report.entries_removed == 3


async def test_a_run_whose_worker_died_is_resumed_when_its_lease_has_run_out(make_shift: MakeShift) -> None:
    first, second = await make_shift(job_lease_s=0.6), await make_shift("worker:two", job_lease_s=0.6)
    walker = Walker(hold_at=5)
    run = await take(first)
    dead = asyncio.create_task(walker.run(run, first.store, first.settings))  # and nobody keeps its lease
    await walker.held.wait()
    await run.save()
    dead.cancel()
    assert await Run.take(second, "retention", "") == "held"
    await asyncio.sleep((await second.store.job_state("retention")).lease_ms / 1000 + 0.02)
    walker.go_on.set()
    report = await run_job(second, "retention", walker.run)
    assert walker.done == list(range(10))
    assert (report.run, report.resumed, report.entries_removed) == (run.id, 1, 10)


async def test_a_superseded_worker_ends_its_run_changes_nothing_and_reports_nothing(
    server: Server, make_shift: MakeShift
) -> None:
    first, second = await make_shift(job_lease_s=0.6), await make_shift("worker:two")
    ids = await send(first.store, *(to_all("alice") for _ in range(3)))
    walker = Walker(hold_at=5)
    run = await take(first)
    running = asyncio.create_task(carry_out(run, walker.run, first))
    await walker.held.wait()
    server.admin.delete(run.lease)  # as if the time had passed in a pause
    other = await take(second)

    with pytest.raises(Superseded):
        await first.store.trim("all", ids[2], TrimCause(lease=run.lease, token=run.token, run=run.id))
    assert numbers_in(server.admin, "all") == [1, 2, 3]
    with pytest.raises(Lost):
        await running
    assert walker.done == list(range(5))
    assert await first.store.job_reports(9) == []
    trimmed = await second.store.trim("all", ids[0], TrimCause(lease=other.lease, token=other.token))
    assert trimmed.removed == 1


async def test_a_job_that_is_refused_as_superseded_has_lost_its_run(shift: Shift) -> None:
    async def job(run: Run, store: Store, settings: Settings) -> None:
        del run, store, settings
        raise Superseded("lease")

    with pytest.raises(Lost):
        await carry_out(await take(shift), job, shift)
    assert await shift.store.job_reports(9) == []


async def test_a_job_that_fails_says_so_in_its_report_and_the_next_run_begins_anew(shift: Shift) -> None:
    async def job(run: Run, store: Store, settings: Settings) -> None:
        del store, settings
        await run.checkpoint("7")
        raise ValueError("a bug")

    report = await carry_out(await take(shift), job, shift)
    assert (report.state, report.errors, report.errors_count) == ("failed", ["ValueError: a bug"], 1)
    assert await shift.store.job_reports(9) == [report]
    again = await take(shift)
    again.begin()
    assert (again.resume_from, again.id == report.run) == ("", False)


async def test_what_is_wrong_with_one_thing_is_counted_and_told_in_bounds(shift: Shift) -> None:
    async def job(run: Run, store: Store, settings: Settings) -> None:
        del store, settings
        for number in range(50):
            run.error(f"stream {number}", WaypostError("not_found", "x" * 1000))
            run.repaired("mended", str(number))
        run.error("one", Uncertain("an error in the middle", has_answered=True))

    report = await run_job(shift, "retention", job)
    assert (report.errors_count, len(report.errors), len(report.errors[0])) == (51, 20, 300)
    assert (report.repairs, len(report.examples)) == ({"mended": 50}, 20)


async def test_a_store_that_never_answers_one_call_well_fails_the_run(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runs.RETRY_S_MAX", 0.001)
    calls = 0

    async def job(run: Run, store: Store, settings: Settings) -> None:
        nonlocal calls
        calls += 1
        run.error("everything", Uncertain("no answer in time"))

    report = await carry_out(await take(shift), job, shift)
    assert (report.state, calls) == ("failed", 11)


async def test_a_run_goes_on_when_the_store_is_back_and_walks_anew_on_another_server(
    server: Server, shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.door.PATIENCE_S", 0.3)  # there is no node that could open it
    for number in range(300):
        await shift.store.open_session(f"u{number}", "phone", "n1", {}, is_foreign=False)
    seen: set[str] = set()
    begun: list[str] = []

    async def job(run: Run, store: Store, settings: Settings) -> None:
        del settings
        begun.append(run.resume_from)
        async for _, users in run.walk("d", count=50):
            seen.update(users)
            if len(begun) == 1 and len(seen) > 100:
                server.kill()
                server.start()
            await store.forget_devices([(user, "") for user in users], 0, lease=run.lease, token=run.token)

    report = await run_job(shift, "devices", job)
    assert begun == ["", ""]
    assert seen == {f"u{number}" for number in range(300)}
    assert report.errors_count <= 1
    assert (await shift.store.fence_state()).is_open


async def test_a_cursor_of_another_server_process_is_refused(server: Server, shift: Shift) -> None:
    for number in range(100):
        await shift.store.open_session(f"u{number}", "phone", "n1", {}, is_foreign=False)
    _, cursor = await shift.store.scan_names("d", "", 10)
    assert cursor
    server.kill()
    server.start()
    await shift.store.reconnect()
    with pytest.raises(Fenced):
        await shift.store.scan_names("d", cursor, 10)
    assert (await shift.store.scan_names("d", "", 1000))[1] == ""
