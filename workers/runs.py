"""One run of a job: the lease that makes it this worker's, how far it has come, its report, and how it ends.

A run belongs to whoever holds the job's lease. The lease is renewed in the background, and every call that writes
carries its token: a worker that was paused and has lost the lease changes nothing any more, however late its calls
arrive. A run that is left (a crash, a lost lease, SIGTERM) is resumed by the next worker from the last saved cursor,
and its report goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, NamedTuple, Self, TypeAlias

import msgspec

from service.config import Settings
from service.errors import Fenced, Uncertain, WaypostError
from service.log import Log
from service.store import JobLease, JobReport, Store, Superseded
from workers.door import Door

log = Log("worker")

SAVE_S = 1.0  # progress is saved this often: what a crash can make a run do again, and leave out of its report
RETRY_S = 0.1  # first pause after a step that failed; doubles
RETRY_S_MAX = 5.0
TRIES_MAX = 10  # failures in a row without any progress, of a store that is there: then the run has failed
STEP_S = 3.0  # what a step may take to end when the worker is stopped; steps are calls of milliseconds
PAUSE_S_MAX = 0.05  # between two steps; a step that took longer was waiting for something else
TEXTS_MAX = 20  # errors and examples in a report: enough to see what is wrong, and its size stays bounded
TEXT_LENGTH_MAX = 300  # characters of one


class Progress(msgspec.Struct):
    """What is saved of an unfinished run. `server` is the process that `cursor` belongs to."""

    cursor: str
    server: str
    report: JobReport


class Stopped(Exception):
    """The worker is being stopped: the job is to end here. Raised by `checkpoint`."""


class Lost(Exception):
    """The lease was lost: the run is another worker's now, and there is nothing to report here."""


class Run:
    """A run as its job sees it.

    `id` names the run (the ledger's lines carry it); `lease` and `token` go with every call that writes. The job counts
    into `report`. `resume_from` is the cursor to begin at, "" for the beginning.
    """

    def __init__(self, shift: "Shift", lease: JobLease, holds_until: float) -> None:
        self.id = lease.run
        self.lease = lease.lease
        self.token = lease.token
        self.worker = shift.worker
        self.resume_from = ""
        self.report = JobReport(name=lease.job, run=lease.run, worker=shift.worker, started_ms=int(lease.token) // 1000)
        self._cursor = ""
        self._server = shift.store.run
        self._store = shift.store
        self._grant = lease
        self._ttl_s = shift.settings.job_lease_s
        self._stop = shift.stop
        self._saved_at = self._begun_at = time.monotonic()
        self._stepped_at = self._begun_at
        self._spent_ms = 0  # by those who had the run before
        self._holds_until = holds_until  # monotonic: how long the lease lasts, as far as this worker may believe
        self._saving = asyncio.Lock()
        self._take_over(lease)

    @classmethod
    async def take(cls, shift: "Shift", job: str, slot: str) -> Self | Literal["held", "done", "noted"]:
        """Take the job's lease, and with it a run; else why not. Raises what `Store.take_job` raises."""
        asked_at = time.monotonic()
        ttl_s = shift.settings.job_lease_s
        lease = await shift.store.take_job(job, slot, shift.worker, round(ttl_s * 1000))
        return lease if isinstance(lease, str) else cls(shift, lease, asked_at + ttl_s)

    def _take_over(self, lease: JobLease) -> None:
        """Go on with what another worker has left, if anything was saved and can be read."""
        first_token = lease.run.rpartition("-")[2]
        if first_token == lease.token:
            return
        try:
            saved = msgspec.json.decode(lease.progress, type=Progress)
        except msgspec.DecodeError:  # nothing was saved, or by another release: the run begins again, which is harmless
            self.report.started_ms = int(first_token) // 1000
        else:
            self.report, self._cursor, self._server = saved.report, saved.cursor, saved.server
            self.report.worker, self.report.state = self.worker, "running"
            self._spent_ms = self.report.duration_ms
        self.report.resumed += 1

    # -- for the job ---------------------------------------------------------------------------------------------------

    async def checkpoint(self, cursor: str) -> None:
        """Everything before `cursor` is done: a run that is resumed begins there. Call it after each bounded step.

        Raises `Stopped` when the worker is being stopped, `Superseded` when the run is another's; let them pass.
        """
        self._cursor = cursor
        if self._stop.is_set():
            raise Stopped
        if time.monotonic() - self._saved_at >= min(SAVE_S, self._ttl_s / 3):
            try:
                await self.save()
            except WaypostError:
                pass  # the lease is kept in the background, and the next step hears of it too
        # As long as the step took: a run uses at most half of the server's time, messages come in between.
        await asyncio.sleep(min(time.monotonic() - self._stepped_at, PAUSE_S_MAX))
        self._stepped_at = time.monotonic()

    async def breathe(self) -> None:
        """The same between bounded steps that the cursor does not tell apart, such as those of one large group."""
        await self.checkpoint(self._cursor)

    async def walk(self, letters: str, count: int = 100) -> AsyncIterator[tuple[str, list[str]]]:
        """The names of all keys of these kinds, some at a time, from where the run is to resume; checkpoints itself.

        One cursor for all: "s 17" is within the keys of letter s. Names may come twice.
        """
        at, _, cursor = (self.resume_from or f"{letters[0]} ").partition(" ")
        if at not in letters:
            return
        for letter in letters[letters.index(at) :]:
            while True:
                names, cursor = await self._store.scan_names(letter, cursor, count)
                yield letter, names
                if not cursor:
                    break
                await self.checkpoint(f"{letter} {cursor}")
            following = letters[letters.index(letter) + 1 :]
            await self.checkpoint(f"{following[0]} " if following else "end")

    def error(self, what: str, problem: WaypostError) -> None:
        """Something went wrong with one thing, and the run goes on: counted, and told in the report.

        Raises `problem` itself when it is not of this thing alone: the store is away, fenced, or refuses.
        """
        if _is_of_the_store(problem):
            raise problem
        self.note_error(f"{what}: {problem.detail}")

    def note_error(self, text: str) -> None:
        """Counted; the first few are told."""
        self.report.errors_count += 1
        if len(self.report.errors) < TEXTS_MAX:
            self.report.errors.append(text[:TEXT_LENGTH_MAX])

    def repaired(self, kind: str, example: str, count: int = 1) -> None:
        """Something was mended."""
        self.report.repairs[kind] = self.report.repairs.get(kind, 0) + count
        self._example(f"{kind}: {example}")

    def found(self, kind: str, example: str, count: int = 1) -> None:
        """Something is not as it should be, and is not mended here."""
        self.report.findings[kind] = self.report.findings.get(kind, 0) + count
        self._example(f"{kind}: {example}")

    def _example(self, text: str) -> None:
        if len(self.report.examples) < TEXTS_MAX:
            self.report.examples.append(text[:TEXT_LENGTH_MAX])

    # -- for who carries it out ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The job is about to be called, for the first time or again."""
        # A cursor of SCAN means nothing to another process of the server.
        if self._server != self._store.run:
            self._cursor, self._server = "", self._store.run
        self.resume_from = self._cursor

    @property
    def cursor(self) -> str:
        """How far the run has come."""
        return self._cursor

    async def save(self, *, release: bool = False) -> None:
        """Save the progress, and renew the lease or give it back. Raises what `Store.renew_job` raises."""
        async with self._saving:  # an older progress must not be sent after a newer one
            self._saved_at = time.monotonic()
            self.report.duration_ms = self._spent_ms + round((self._saved_at - self._begun_at) * 1000)
            progress = msgspec.json.encode(Progress(self._cursor, self._server, self.report)).decode()
            asked_at = time.monotonic()
            await self._store.renew_job(self._grant, 0 if release else round(self._ttl_s * 1000), progress)
            self._holds_until = asked_at + self._ttl_s

    async def keep(self) -> None:
        """Renew the lease for as long as that works; returns when it is lost."""
        pause = self._ttl_s / 3
        while time.monotonic() < self._holds_until:
            await asyncio.sleep(min(pause, max(0.0, self._holds_until - time.monotonic())))
            try:
                async with asyncio.timeout(max(0.0, self._holds_until - time.monotonic())):
                    await self.save()
                pause = self._ttl_s / 3
            except Superseded:
                return
            except (WaypostError, TimeoutError):
                pause = min(self._ttl_s / 10, 1.0)

    async def leave(self) -> None:
        """Save the progress and give the lease back. If that fails, the lease expires by itself. Raises `Lost`."""
        self.report.state = "cancelled"
        try:
            async with asyncio.timeout(STEP_S):
                await self.save(release=True)
        except (WaypostError, TimeoutError):
            pass
        except Superseded as problem:
            raise Lost from problem

    async def finish(self) -> None:
        """Leave the report. Tries for as long as the lease may be believed to last; then raises `Superseded`."""
        self.report.duration_ms = self._spent_ms + round((time.monotonic() - self._begun_at) * 1000)
        pause = RETRY_S
        while True:
            try:
                return await self._store.finish_job(self._grant, self.report)
            except WaypostError as problem:
                if time.monotonic() >= self._holds_until:
                    raise Superseded(problem.detail) from problem
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)


Job: TypeAlias = Callable[[Run, Store, Settings], Awaitable[None]]


def _is_of_the_store(problem: WaypostError) -> bool:
    """Whether this says something about the store as a whole, and not about the one thing that was asked for."""
    has_answered = isinstance(problem, Uncertain) and problem.has_answered
    return problem.code in ("unavailable", "uncertain", "storage_full") and not has_answered


class Shift(NamedTuple):
    """What the runs of one worker share. When `stop` is set they end after their present step."""

    store: Store
    settings: Settings
    worker: str
    door: Door
    stop: asyncio.Event


async def carry_out(run: Run, job: Job, shift: Shift) -> JobReport:
    """Carry out a run to its end; returns its report, which is in the store unless its state is `cancelled`.

    Raises `Lost` when the lease was lost, and `CancelledError` when this task is cancelled; another worker resumes
    the run then. When `shift.stop` is set, the run is left for another to resume at once.
    """
    work = asyncio.create_task(_work(run, job, shift))
    keep = asyncio.create_task(run.keep())
    stopping = asyncio.create_task(shift.stop.wait())
    try:
        await asyncio.wait({work, keep, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done() and not work.done() and not keep.done():
            await asyncio.wait({work, keep}, timeout=STEP_S, return_when=asyncio.FIRST_COMPLETED)
        if keep.done() and not work.done():
            keep.result()  # raises what is a bug here
            raise Lost
        work.cancel()
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
        if isinstance(outcome, Superseded):
            raise Lost
        if isinstance(outcome, Stopped | asyncio.CancelledError):
            await run.leave()
            return run.report
        if isinstance(outcome, BaseException):
            run.note_error(f"{type(outcome).__name__}: {outcome}")
            log.error("run_broken", traceback=outcome, job=run.report.name, job_run=run.id)
        run.report.state = "failed" if outcome else "done"
        try:
            await run.finish()
        except Superseded as problem:
            raise Lost from problem
        return run.report
    finally:
        for task in (work, keep, stopping):
            task.cancel()
        await asyncio.gather(work, keep, stopping, return_exceptions=True)


async def _work(run: Run, job: Job, shift: Shift) -> None:
    """Calls the job, and again from its cursor when the store went away under it."""
    failures = 0
    while True:
        run.begin()
        before = run.cursor
        try:
            return await job(run, shift.store, shift.settings)
        except WaypostError as problem:
            failures = failures + 1 if run.cursor == before else 1
            if not _is_of_the_store(problem) or failures > TRIES_MAX:
                raise
            if not isinstance(problem, Fenced):
                run.note_error(f"store: {problem.detail}")
            log.warning("run_interrupted", job=run.report.name, job_run=run.id, detail=problem.detail)
        await asyncio.sleep(min(RETRY_S * 2 ** (failures - 1), RETRY_S_MAX))
        await shift.door.wait()
