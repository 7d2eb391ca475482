"""The scheduled jobs: which is due when, who is at it, and what the last runs did."""

from typing import Literal

import msgspec

from service.config import JOBS, Schedule, Settings
from service.inspection.schedule import due_in_ms
from service.inspection.times import age_s, when, when_or_none
from service.store import JobReport, JobState, Store

RUNS = 5  # of each job that are told of
REPORTS_LOOKED_AT = 1000  # all that are kept, of all jobs


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `state`: `never` (no worker has seen it yet), `idle`, `running`, or `left` (unfinished, to be resumed).

    `holder` is the worker that has its lease, for `lease_s` more unless it is renewed; "" for nobody. `next_run`: now
    where it is due and no worker has begun. `runs` are the reports of the last ones, newest first; `last_state` is that
    of the newest, "" for none.
    """

    job: str
    schedule: str
    state: Literal["never", "idle", "running", "left"]
    last_began: str | None
    last_began_age_s: float | None
    last_state: str
    next_run: str | None
    next_run_in_s: float | None
    holder: str
    lease_s: float
    runs: tuple[JobReport, ...]


class JobsView(msgspec.Struct, frozen=True):
    """All scheduled jobs."""

    as_of: str
    jobs: tuple[Job, ...]


async def jobs(store: Store, settings: Settings, *, runs: int = RUNS) -> JobsView:
    """All jobs, with the reports of their last runs."""
    reports = await store.job_reports(REPORTS_LOOKED_AT)
    found = []
    for name in JOBS:
        state, sight = await store.job_state(name), await store.job_sight(name)
        own = tuple([report for report in reports if report.name == name][:runs])
        found.append(_job(name, getattr(settings.jobs, name), state, own, holder=sight.holder, lease_ms=sight.lease_ms))
    return JobsView(when(await store.now_ms()), tuple(found))


def _job(
    name: str, schedule: Schedule, state: JobState, runs: tuple[JobReport, ...], *, holder: str, lease_ms: int
) -> Job:
    began = int(state.slot) if state.slot.isdigit() else None
    due = due_in_ms(schedule, state)
    if not state.slot:
        how: Literal["never", "idle", "running", "left"] = "never"
    elif state.is_done:
        how = "idle"
    else:
        how = "running" if holder else "left"
    return Job(
        job=name,
        schedule=schedule.text,
        state=how,
        last_began=when_or_none(began),
        last_began_age_s=None if began is None else age_s(began, state.now_ms),
        last_state=runs[0].state if runs else "",
        next_run=None if due is None else when(state.now_ms + due),
        next_run_in_s=None if due is None else due / 1000,
        holder=holder,
        lease_s=lease_ms / 1000,
        runs=runs,
    )
