"""The job `retention`: every stream, idle ones too, by its policy; and what was removed that somebody had not read."""

from collections.abc import Iterable

from service.config import Settings
from service.core.names import EntryId
from service.errors import WaypostError
from service.store import Store, TrimCause
from service.trimming import SCAN_KEYS, ripe_streams, trim_stream
from workers.runs import Run


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Trims all streams."""
    trimming = _Trimming(run, store, settings)
    async for _, names in run.walk("s", count=SCAN_KEYS):
        await trimming.trim(names)


async def run_on(run: Run, store: Store, settings: Settings, streams: Iterable[str]) -> None:
    """Trims these streams alone."""
    await _Trimming(run, store, settings).trim(list(streams))


class _Trimming:
    """What the steps of one run share."""

    def __init__(self, run: Run, store: Store, settings: Settings) -> None:
        self._run = run
        self._store = store
        self._settings = settings.retention
        self._cause = TrimCause(run=run.id, lease=run.lease, token=run.token)
        self._may_ask = settings.retention.unread_devices

    async def trim(self, names: list[str]) -> None:
        """Trims those of which something may go, and counts them all."""
        report = self._run.report
        now_ms = await self._store.now_ms()
        for name, is_ripe, oldest in await ripe_streams(self._store, self._settings, now_ms, names):
            report.streams_seen += 1
            if is_ripe is None:
                self._run.note_error(f"{name}: no stream, or a key that cannot be read")
                continue
            if not is_ripe:
                self._note_oldest(oldest)
                continue
            try:
                await self._trim_one(name, now_ms)
            except WaypostError as problem:
                self._run.error(name, problem)

    async def _trim_one(self, name: str, now_ms: int) -> None:
        report = self._run.report
        done = await trim_stream(self._store, name, self._settings, self._cause, now_ms)
        self._note_oldest(done.oldest)
        if done.floor == done.after:
            return
        report.streams_trimmed += 1
        report.entries_removed += done.entries
        report.bytes_removed += done.size
        # Asked afterwards: what was acknowledged meanwhile had been delivered.
        idle_before = max(0, now_ms - self._settings.device_idle_max * 1000)
        unread = await self._store.unread(
            name, done.after, done.floor, idle_before=idle_before, devices_max=self._may_ask
        )
        self._may_ask -= unread.asked
        report.unread_removed += unread.messages
        report.is_unread_whole = report.is_unread_whole and unread.is_whole

    def _note_oldest(self, oldest: EntryId | None) -> None:
        if oldest is not None:
            earlier = self._run.report.oldest_kept_ms
            self._run.report.oldest_kept_ms = oldest.ms if earlier is None else min(earlier, oldest.ms)
