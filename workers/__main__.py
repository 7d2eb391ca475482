"""The table of jobs, and who runs them when: what `waypost worker` runs.

Any number of workers look at every job now and then; whoever finds one due takes its lease. What time it is and when
the job last ran, Redis says. APScheduler only wakes us up to look: it goes by this machine's clock, which may be
wrong, or set, so a look is never far away, and a clock that jumps makes us look at once.
"""

import asyncio
import datetime
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from service.config import JOBS, Schedule, Settings
from service.errors import Unavailable, WaypostError
from service.inspection.schedule import due_in_ms
from service.log import Fields, Log, bound
from service.store import JobReport, Store, StoreOptions
from workers import audit, devices, groups, retention, survey
from workers.door import Door
from workers.runs import Job, Lost, Run, Shift, carry_out

log = Log("worker")

TABLE: Mapping[str, Job] = {
    "retention": retention.run,
    "devices": devices.run,
    "groups": groups.run,
    "audit": audit.run,
    "survey": survey.run,
}

LOOK_S = 10.0  # at the latest: another worker may have died, the schedule another worker goes by may be another
RETRY_S = 1.0  # a look that failed, or a job that is due and held, is looked at again after this
CLOCK_LOOK_S = 1.0
CLOCK_JUMP_S = 2.0  # more than this machine's clock is ever corrected by in small steps
END_S = 8.0  # for runs to save their progress and give their leases back: two bounded waits of `carry_out`
STORE_S = 20.0  # `once` waits this long for the store: longer than it takes to open one that no node opens
TRIES_MAX = 5  # of `once`, while other workers begin runs of the same job


class JobBusy(Exception):
    """Another worker is running this job."""


class JobLeft(Exception):
    """An earlier run was left unfinished, and is to be brought to its end first."""


async def run(settings: Settings) -> int:
    """Run all jobs by their schedules until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _shift(settings, stop) as shift:
        await Worker(shift, TABLE).work()
    return 0


async def once(settings: Settings, job: str, work: Job | None = None) -> JobReport:
    """Run one job now, whatever its schedule says; a run that was left unfinished is resumed instead.

    `work` is done in place of what the job usually does. Raises `JobLeft` then when there is an unfinished run: it
    would do all that the job usually does. Raises `JobBusy` when another worker is at it, `Lost`, and what the store
    raises. SIGTERM and SIGINT end it with a report whose state is `cancelled`.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _shift(settings, stop) as shift:
        waiting = asyncio.create_task(shift.door.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, stopping}, timeout=STORE_S, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            waiting.cancel()
            if not stop.is_set():
                raise Unavailable(shift.door.reason)
            return JobReport(name=job, run="", worker=shift.worker, state="cancelled")
        for _ in range(TRIES_MAX):
            state = await shift.store.job_state(job)
            taken = await Run.take(shift, job, state.slot)
            if isinstance(taken, Run):
                if work is not None and taken.report.resumed:
                    await taken.leave()
                    raise JobLeft(job)
                return await carry_out(taken, work or TABLE[job], shift)
            if taken == "held":
                break
        raise JobBusy(job)


@asynccontextmanager
async def _shift(settings: Settings, stop: asyncio.Event) -> AsyncIterator[Shift]:
    """A store and what else runs share. No node is named like a worker: both tell the store their names."""
    worker = f"worker:{socket.gethostname()}-{os.getpid()}"
    options = StoreOptions(call_timeout_s=settings.call_timeout_s, mailbox_ttl_s=settings.mailbox_ttl_s)
    store = await Store.connect(settings.redis_url, options=options)
    try:
        yield Shift(store, settings, worker, Door(store, worker), stop)
    finally:
        await store.close()


class Worker:
    """Looks at jobs, and runs those that are due, until its shift's `stop` is set."""

    def __init__(self, shift: Shift, table: Mapping[str, Job]) -> None:
        self._shift = shift
        self._table = table
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._at_work: set[str] = set()  # those of them that are carrying out a run
        self._scheduler = AsyncIOScheduler(
            timezone=datetime.UTC,
            # However late it is woken, it looks; and once for all the times that it was not.
            job_defaults={"misfire_grace_time": None, "coalesce": True},
        )

    async def work(self) -> None:
        """Until stopped."""
        self._scheduler.start()
        watch = asyncio.create_task(self._watch_clock())
        try:
            for name in self._table:
                self._look_in(name, 0.0)
            schedules = ", ".join(f"{name} {self._schedule(name).text}" for name in self._table)
            log.info("worker_started", worker=self._shift.worker, detail=schedules)
            await self._shift.stop.wait()
            log.info("worker_stopping", worker=self._shift.worker)
        finally:
            watch.cancel()
            self._scheduler.shutdown(wait=False)
            await self._end_looks()
            await asyncio.gather(watch, return_exceptions=True)

    def _schedule(self, name: str) -> Schedule:
        schedule: Schedule = getattr(self._shift.settings.jobs, name)
        return schedule

    def _look_in(self, name: str, pause_s: float) -> None:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=pause_s)
        self._scheduler.add_job(self._look, DateTrigger(at, datetime.UTC), args=[name], id=name, replace_existing=True)

    async def _look(self, name: str) -> None:
        """What the scheduler calls. The look is a task of its own: the scheduler's are cut off when it is shut down."""
        if name not in self._looking and not self._shift.stop.is_set():
            self._looking[name] = asyncio.create_task(self._look_at(name), name=f"job {name}")

    async def _look_at(self, name: str) -> None:
        pause_s = LOOK_S
        try:
            if not self._shift.store.run:  # it was never reached yet
                await self._shift.door.wait()
            pause_s = await self._run_if_due(name)
        except WaypostError as problem:
            log.warning("look_failed", worker=self._shift.worker, job=name, detail=problem.detail)
            await self._shift.door.wait()
            pause_s = RETRY_S
        except Lost:
            log.warning("run_lost", worker=self._shift.worker, job=name)
        except Exception as error:  # noqa: BLE001 - a bug in one job is not to cost the others their runs
            log.error("job_broken", traceback=error, job=name)
        finally:
            del self._looking[name]
            if not self._shift.stop.is_set():
                self._look_in(name, pause_s)

    async def _run_if_due(self, name: str) -> float:
        """Run the job if it is due. Returns how long to wait before the next look."""
        shift = self._shift
        state = await shift.store.job_state(name)
        due_ms = due_in_ms(self._schedule(name), state)
        if due_ms == 0:
            # An unfinished run may have come to its end by now. Then nothing is due: no slot is "" but the first.
            taken = await Run.take(shift, name, state.slot if state.is_done else "")
            if isinstance(taken, Run):
                log.info("run_started", worker=shift.worker, job=name, job_run=taken.id, count=taken.report.resumed)
                self._at_work.add(name)
                try:
                    with bound(job=name, job_run=taken.id):
                        _say(await carry_out(taken, self._table[name], shift))
                finally:
                    self._at_work.discard(name)
            return 0.0 if taken != "held" else RETRY_S
        waits = [LOOK_S] if due_ms is None else [LOOK_S, due_ms / 1000]
        if not state.is_done:  # somebody is at it: resumed as soon as that one's lease has run out
            waits.append(state.lease_ms / 1000 + 0.01)
        return min(waits)

    async def _watch_clock(self) -> None:
        """The scheduler waits for a time of this machine's clock. When that is set, it may wait for hours: look now."""
        offset = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(CLOCK_LOOK_S)
            moved = time.time() - time.monotonic() - offset
            if abs(moved) > CLOCK_JUMP_S:
                log.warning("clock_jumped", worker=self._shift.worker, delay_s=moved)
                for name in self._table:
                    if name not in self._looking:
                        self._look_in(name, 0.0)
            offset += moved

    async def _end_looks(self) -> None:
        """Runs under way end by themselves after their present step; who only looks, or waits, is cut off."""
        looking = dict(self._looking)
        for name, task in looking.items():
            if name not in self._at_work:
                task.cancel()
        if looking:
            _, late = await asyncio.wait(looking.values(), timeout=END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*looking.values(), return_exceptions=True)


def _say(report: JobReport) -> None:
    """The line that every run leaves in the log."""
    ended = Fields(job=report.name, job_run=report.run, took_ms=report.duration_ms, detail=summary(report))
    if report.errors:
        ended["error"] = "; ".join(report.errors)
    if report.state == "failed" or report.errors:
        log.warning("run_failed" if report.state == "failed" else "run_done", **ended)
    else:
        log.info("run_done" if report.state == "done" else "run_left", **ended)


def summary(report: JobReport) -> str:
    """What a run did, in a line: everything that is not zero."""
    counts = {
        name.replace("_", " "): value
        for name in report.__struct_fields__
        if type(value := getattr(report, name)) is int and value and not name.endswith("_ms")
    }
    counts |= {f"repaired {kind}": count for kind, count in report.repairs.items()}
    counts |= {f"found {kind}": count for kind, count in report.findings.items()}
    return ", ".join(f"{value} {name}" for name, value in counts.items()) or "nothing to do"


def lines(report: JobReport) -> list[str]:
    """A report for people, a line each thing."""
    found = [
        f"{report.name}: {report.state} in {report.duration_ms / 1000:.3f} s ({report.run or 'not begun'})",
        summary(report),
    ]
    if report.state == "cancelled":
        found.append("left unfinished: the next worker resumes it")
    found += [f"  {example}" for example in report.examples]
    return found + [f"  error: {error}" for error in report.errors]


if __name__ == "__main__":
    sys.exit(f"scheduled jobs ({', '.join(JOBS)}) are run by `waypost worker`")
