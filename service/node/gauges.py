"""What a node measures for `/metrics`: gauges, of which the dear ones are taken in the background, now and then.

What other processes know (the reports of scheduled jobs, the store's memory) every node reads from the store by itself,
seldom: whoever looks takes the newest of what nodes say.
"""

import asyncio
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

from service.config import JOBS, Settings
from service.errors import WaypostError
from service.metrics import METRICS, Snapshot, Values
from service.node.connection import Connection
from service.node.vitals import resident_bytes
from service.store import JobReport, Store

if TYPE_CHECKING:
    from service.node.node import Node

LOOK_S = 10.0  # at every connection's buffer and at the descriptors: milliseconds, where there are thousands
ASK_S = 30.0  # between two times that the store is asked: jobs run every few minutes
REPORTS = 40  # of jobs that are read at a time; a job that reports seldom is remembered from earlier readings
_DESCRIPTORS = Path("/proc/self/fd")  # Linux; elsewhere their number is left out
_STARTED_AT = time.time()  # of this module, which is early in the life of a node


class Gauges:
    """The gauges of a node. `run` takes the dear ones; `snapshot` puts everything together."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._settings = settings
        self._buffered = 0
        self._descriptors: dict[str, dict[str, float]] = {}
        self._asked: Values = {}
        self._reports: dict[str, JobReport] = {}  # the last one of each job

    async def run(self) -> None:
        """Looks and asks for as long as the node lives."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_often())
            group.create_task(self._ask_seldom())

    async def _look_often(self) -> None:
        while True:
            self._buffered = sum(_buffered(connection) for connection in self._node.connections.values())
            self._descriptors = _descriptors()
            await asyncio.sleep(LOOK_S)

    async def _ask_seldom(self) -> None:
        while True:
            await self._node.fence.wait_until_open()
            try:
                await self.ask()
            except WaypostError as problem:
                self._node.out_of_reach(problem)
            await asyncio.sleep(ASK_S)

    async def ask(self) -> None:
        """Reads what the store knows. Raises what it raises."""
        for report in reversed(await self._store.job_reports(REPORTS)):
            if report.name in JOBS and report.started_ms:
                self._reports[report.name] = report
        started: dict[str, float] = {}
        for job in JOBS:
            state = await self._store.job_state(job)
            if state.slot.isdecimal():
                started[job] = int(state.slot) / 1000
        used, limit = await self._store.memory()
        asked = _of_reports(self._reports)
        asked["waypost_job_last_start_timestamp_seconds"] = started
        asked["waypost_store_memory_bytes"] = {"": used}
        if limit:
            asked["waypost_store_memory_limit_bytes"] = {"": limit}
        asked["waypost_jobs_as_of_timestamp_seconds"] = {"": time.time()}
        self._asked = asked

    def snapshot(self) -> Snapshot:
        """All that the node has counted and measured. Takes about a millisecond for thousands of streams."""
        counted, histograms = self._node.numbers.counted(self._store.call_numbers)
        values = counted | self._measured() | self._descriptors | self._asked | _process()
        return Snapshot(self._node.name, time.monotonic(), values, histograms)

    def _measured(self) -> Values:
        node, settings = self._node, self._settings
        behind: set[Connection] = set()
        streams_behind = 0
        for track in node.delivery.tracks.values():
            if track.behind:
                behind.update(track.behind)
                streams_behind += len(track.behind)
        sends, sends_bytes = node.sends.waiting
        reasons = node.not_ready()
        schedules = {job: getattr(settings.jobs, job) for job in JOBS}
        return {
            "waypost_sends_waiting": {"": sends},
            "waypost_sends_waiting_bytes": {"": sends_bytes},
            "waypost_connections_limit": {"": settings.limits.connections},
            "waypost_connections_behind": {"": len(behind)},
            "waypost_streams_behind": {"": streams_behind},
            "waypost_streams_attached": {"": node.attachments.count},
            "waypost_write_buffer_bytes": {"": self._buffered},
            "waypost_mailbox_lag_entries": {"": node.reader.lag_entries},
            "waypost_mailbox_lag_seconds": {"": node.reader.lag_s(time.monotonic())},
            "waypost_ready": {"": float(not reasons)},
            "waypost_not_ready": _kinds(reasons),
            "waypost_draining_seconds": {"": node.ending.took_s},
            "waypost_drain_limit_seconds": {"": settings.drain_s},
            "waypost_nodes": {"": node.nodes_alive},
            "waypost_snapshot_age_seconds": {"": 0.0},
            "waypost_job_interval_seconds": {job: one.every for job, one in schedules.items() if not one.cron},
        }


def _kinds(reasons: list[str]) -> dict[str, float]:
    """The reasons as the metric has them: the word before the colon."""
    [known] = METRICS["waypost_not_ready"].labels.values()
    kinds = dict.fromkeys(known, 0.0)
    for reason in reasons:
        kind = reason.partition(":")[0]
        kinds[kind if kind in kinds else "other"] = 1.0
    return kinds


def _buffered(connection: Connection) -> int:
    try:
        return connection.socket.buffered_bytes
    except RuntimeError:  # uvloop's, for a socket that is just going
        return 0


def _of_reports(reports: dict[str, JobReport]) -> Values:
    [states] = [values for name, values in METRICS["waypost_job_last_state"].labels.items() if name == "state"]
    return {
        "waypost_job_last_state": {
            f"{job},{state}": float(report.state == state) for job, report in reports.items() for state in states
        },
        "waypost_job_last_duration_seconds": {job: one.duration_ms / 1000 for job, one in reports.items()},
        "waypost_job_last_errors": {job: one.errors_count for job, one in reports.items()},
        "waypost_job_last_removed_entries": {job: one.entries_removed for job, one in reports.items()},
        "waypost_job_last_unread_lost_entries": {job: one.unread_removed for job, one in reports.items()},
    }


def _process() -> Values:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values: Values = {
        "waypost_process_cpu_seconds_total": {"": usage.ru_utime + usage.ru_stime},
        "waypost_process_start_time_seconds": {"": _STARTED_AT},
    }
    resident = resident_bytes()
    return values if resident is None else values | {"waypost_process_resident_memory_bytes": {"": resident}}


def _descriptors() -> Values:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    values: Values = {} if soft == resource.RLIM_INFINITY else {"waypost_process_max_fds": {"": soft}}
    try:
        return values | {"waypost_process_open_fds": {"": len(os.listdir(_DESCRIPTORS))}}  # noqa: PTH208 - no Path for each
    except OSError:
        return values
