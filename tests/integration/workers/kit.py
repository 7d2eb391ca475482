"""What tests of jobs share: taking a run that is due, and carrying it out."""

from service.store import JobReport
from workers.__main__ import TABLE
from workers.runs import Job, Run, Shift, carry_out


async def take(shift: Shift, job: str = "retention") -> Run:
    """A run, which must be to be had."""
    taken = await Run.take(shift, job, (await shift.store.job_state(job)).slot)
    if taken == "noted":
        taken = await Run.take(shift, job, (await shift.store.job_state(job)).slot)
    assert isinstance(taken, Run), taken
    return taken


async def run_job(shift: Shift, name: str, job: Job | None = None) -> JobReport:
    """One run of a job from begin to end; its report as it is in the store."""
    report = await carry_out(await take(shift, name), job or TABLE[name], shift)
    assert report.state == "done", report
    [stored, *_] = await shift.store.job_reports(1)
    assert stored == report
    return stored
