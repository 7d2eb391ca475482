"""The part of the store's door that scheduled jobs go through. `Store` is the whole of it."""

from collections.abc import Sequence
from typing import Literal

from service.store import jobs, upkeep
from service.store.context import Context
from service.store.records import Audited, DeviceSweep, GroupStep, JobLease, JobReport, JobState


class ForJobs:
    """Scheduled jobs: who has which run, what is left of a run, and what they do beside trimming."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def now_ms(self) -> int:
        """Redis time in ms: the only clock that schedules, ages and limits go by."""
        return await jobs.now_ms(self._context)

    async def job_state(self, job: str) -> JobState:
        """When the job last began, whether that run is done, and what time it is."""
        return await jobs.job_state(self._context, job)

    async def take_job(
        self, job: str, slot: str, worker: str, ttl_ms: int
    ) -> JobLease | Literal["held", "done", "noted"]:
        """Take the job for `ttl_ms`: a new run, or the one that was left unfinished.

        `slot` is what `job_state` said; of all who saw the same one, one gets the run, and the others hear `held` or
        `done`. `noted`: the job was never seen before, and its schedule counts from now on. Renew the lease in time.
        """
        return await jobs.take_job(self._context, job, slot, worker, ttl_ms)

    async def renew_job(self, lease: JobLease, ttl_ms: int, progress: str) -> None:
        """Keep the run for `ttl_ms` longer and save its progress; with 0 leave it to whoever comes next.

        May be repeated. Raises `Superseded` when the lease has expired or is another's: stop at once.
        """
        await jobs.renew_job(self._context, lease, ttl_ms, progress)

    async def finish_job(self, lease: JobLease, report: JobReport) -> None:
        """The run is over: leave its report and give the lease back. May be repeated. Raises `Superseded`."""
        await jobs.finish_job(self._context, lease, report)

    async def job_reports(self, limit: int) -> list[JobReport]:
        """The reports of the last runs, newest first."""
        return await jobs.job_reports(self._context, limit)

    async def scan_names(self, letter: str, cursor: str, count: int = 100) -> tuple[list[str], str]:
        """Some names of keys of one kind ("s": streams, "d": users with devices, "g": groups, "m": mailboxes …).

        Begin with cursor "", go on with the one that is answered until that is "". Names may come twice; those that
        are there all the time come at least once. A cursor means nothing to another server process: with one of before,
        `Fenced`; `check_server`, and begin again.
        """
        return await jobs.scan_names(self._context, letter, cursor, count)

    # Upkeep, by jobs: `lease` and `token` are those of the run; all raise `Superseded` once it is another worker's

    async def forget_devices(
        self, users: Sequence[tuple[str, str]], idle_before_ms: int, *, lease: str, token: str
    ) -> list[DeviceSweep]:
        """Forget devices that were last seen before a moment of Redis time, and their offsets.

        `users` are pairs of a user and a cursor, "" to begin. Answers for the first of them at least; call again for
        those that are missing, and with their cursor for those that have one. May be repeated.
        """
        return await upkeep.forget_devices(self._context, users, idle_before_ms, lease=lease, token=token)

    async def empty_groups(self, groups: Sequence[str], before_ms: int) -> list[str]:
        """Those of the groups that seem to have been empty since before a moment of Redis time. A cheap look."""
        return await upkeep.empty_groups(self._context, groups, before_ms)

    async def former_members(self, group: str, cursor: str, count: int = 100) -> tuple[list[str], str]:
        """Some of those who are or were in a group; go on with the cursor until it is ""."""
        return await upkeep.former_members(self._context, group, cursor, count)

    async def drop_group(
        self, group: str, users: Sequence[str], empty_before_ms: int, *, is_drop: bool, lease: str, token: str
    ) -> GroupStep:
        """Look whether these former members stand in the way of dropping their group; with `is_drop`, drop it.

        A group goes when it has been empty since before that moment, its stream is empty, and every device of its
        former members has come to the end of their time in it. With the last of them goes everything but its head.
        May be repeated.
        """
        return await upkeep.drop_group(
            self._context, group, users, empty_before_ms, is_drop=is_drop, lease=lease, token=token
        )

    async def audit_streams(
        self, streams: Sequence[str], *, lease: str, token: str, only_headless: bool = False
    ) -> list[list[Audited]]:
        """Look whether what is kept of streams agrees, mend what has one right answer (`audit_streams.lua` lists both).

        Answers for the first of them at least; call again for those that are missing. May be repeated.
        """
        return await upkeep.audit_streams(self._context, streams, only_headless=only_headless, lease=lease, token=token)

    async def audit_nodes(
        self, job: str, mailboxes: Sequence[str], silent_before_ms: int, *, lease: str, token: str
    ) -> tuple[list[str], list[str]]:
        """Delete those of the mailboxes that would never expire, and take nodes off the list that were silent for long.

        `mailboxes` are names (`<node>.<random>`), `job` is whose lease it is. Returns the keys of the mailboxes and the
        nodes that are gone. May be repeated.
        """
        return await upkeep.audit_nodes(self._context, job, mailboxes, silent_before_ms, lease=lease, token=token)
