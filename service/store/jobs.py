"""Scheduled jobs: when each last began, the lease of a run, how far it has come, and the reports."""

from typing import Literal

import msgspec

from service.errors import Fenced
from service.store import decode, keys
from service.store.context import Context
from service.store.records import JobLease, JobReport, JobState

REPORTS_KEPT = 1000  # a week of four jobs at an hour, and days of one at five minutes; about a kilobyte each

_report = msgspec.json.Decoder(JobReport)


async def job_state(context: Context, job: str) -> JobState:
    """See `Store.job_state`."""
    tag = context.layout.tag(job)
    commands = [("HMGET", keys.job(tag, job), "slot", "run", "done"), ("PTTL", keys.job_lease(tag, job)), ("TIME",)]
    (slot, run, done), lease_ms, time = await context.read(commands)
    return JobState(
        slot="" if slot is None else slot.decode(),
        run="" if run is None else run.decode(),
        is_done=done != b"0",
        lease_ms=max(0, lease_ms),
        now_ms=_ms(time),
    )


def _ms(time: list[bytes]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000


async def now_ms(context: Context) -> int:
    """See `Store.now_ms`."""
    return _ms(await context.link.call("TIME", is_write=False))


async def take_job(
    context: Context, job: str, slot: str, worker: str, ttl_ms: int
) -> JobLease | Literal["held", "done", "noted"]:
    """See `Store.take_job`."""
    tag = context.layout.tag(job)
    arg = {"epoch": context.epoch, "tag": tag, "job": job, "slot": slot, "worker": worker, "ttl_ms": ttl_ms}
    outcome, *rest = await context.call("job_take", arg)
    match outcome:
        case b"taken":
            token, run, progress = (raw.decode() for raw in rest)
            return JobLease(job, keys.job_lease(tag, job), token, run, progress)
        case b"held":
            return "held"
        case b"done":
            return "done"
        case _:
            return "noted"


def _arg(context: Context, lease: JobLease) -> dict[str, object]:
    return {"epoch": context.epoch, "tag": context.layout.tag(lease.job), "job": lease.job, "token": lease.token}


async def renew_job(context: Context, lease: JobLease, ttl_ms: int, progress: str) -> None:
    """See `Store.renew_job`."""
    await context.call("job_renew", _arg(context, lease) | {"ttl_ms": ttl_ms, "progress": progress})


async def finish_job(context: Context, lease: JobLease, report: JobReport) -> None:
    """See `Store.finish_job`."""
    text = msgspec.json.encode(report).decode()
    facts = {"run": lease.run, "state": report.state, "report": text, "cap": REPORTS_KEPT}
    await context.call("job_finish", _arg(context, lease) | facts)


async def job_reports(context: Context, limit: int) -> list[JobReport]:
    """See `Store.job_reports`."""
    found = await context.link.call("XREVRANGE", keys.JOBS, "+", "-", "COUNT", limit, is_write=False)
    reports = []
    for _, fields in found:
        values = dict(zip(fields[0::2], fields[1::2], strict=True))
        try:
            reports.append(_report.decode(values.get(b"report", b"")))
        except msgspec.DecodeError:
            continue  # of a later release, or by hand
    return reports


async def scan_names(context: Context, letter: str, cursor: str, count: int) -> tuple[list[str], str]:
    """See `Store.scan_names`. A cursor carries the run of its server: to another, it would skip names in silence."""
    at, _, run = cursor.partition("@")
    scan = ("SCAN", at or "0", "MATCH", keys.every(letter), "COUNT", count)
    (after, names), info = await context.read([scan, ("INFO", "server")])
    server = decode.server_info(info)["run_id"]
    if cursor and run != server:
        raise Fenced("the server is another one than the one that was being walked")
    return [keys.name_in(name) for name in names], "" if after == b"0" else f"{after.decode()}@{server}"
