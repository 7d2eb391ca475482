"""The job `survey`: numbers that are dear, for operators: totals by kind, and which streams and devices are foremost.

Every stream and every device is looked at once, in short pipelines; what is kept is bounded by `survey_rows`, however
many streams there are (`service/inspection/survey.py`). A run that was left begins anew: what it had found so far is
not saved, and a run takes seconds.
"""

from collections.abc import Sequence

import msgspec

from service.config import Settings
from service.core.names import ALL, EntryId, is_stream, parse_stream
from service.core.retention import policy_of
from service.errors import WaypostError
from service.inspection.lag import Lag, lag, stands_at, unread_after, with_loss
from service.inspection.streams import RATE_S, rate_per_min
from service.inspection.survey import ORDERS, DeviceRank, Foremost, Order, StreamRank, Total
from service.store import Store
from service.store.sights import DeviceSight, Kept, StreamBounds, SurveyOrder
from workers.runs import Run

STREAMS_A_STEP = 50  # some seven short commands each
USERS_A_STEP = 50  # their devices, and of these whatever has an offset
OFFSETS_A_STEP = 1000  # three short reads each, in pipelines
DEVICES_A_USER = 50  # those that were seen last: more are of somebody whose client makes names up


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Looks at every stream, then at the devices of every user, and keeps what is foremost."""
    run.resume_from = ""
    run.report.streams_seen = run.report.devices_seen = 0
    surveying = _Surveying(run, store, settings)
    await surveying.begin()
    async for letter, names in run.walk("hd"):
        try:
            if letter == "h":
                await surveying.streams(names)
            else:
                await surveying.users(names)
        except WaypostError as problem:
            run.error(f"{names[0] if names else letter} and others", problem)
    await surveying.keep()


class _Surveying:
    """What the steps of one run share."""

    def __init__(self, run: Run, store: Store, settings: Settings) -> None:
        self._run = run
        self._store = store
        self._settings = settings
        self._now_ms = 0
        self._totals = {kind: Total(kind=kind) for kind in ("user", "group", ALL)}
        self._foremost = {order: Foremost(settings.survey_rows) for order in ORDERS}
        self._devices = Foremost(settings.survey_rows)

    async def begin(self) -> None:
        """All rates and ages are of this moment."""
        self._now_ms = await self._store.now_ms()

    async def streams(self, names: Sequence[str]) -> None:
        """Counts these streams. One may come twice while others are being made: then it is counted twice."""
        for at in range(0, len(names), STREAMS_A_STEP):
            some = [name for name in names[at : at + STREAMS_A_STEP] if is_stream(name)]
            for sight in await self._store.stream_sights(some, self._now_ms - RATE_S * 1000):
                if sight is None:
                    continue
                facts, rate = sight.facts, rate_per_min(sight)
                total = self._totals[parse_stream(facts.stream)[0]]
                total.streams += 1
                total.entries += facts.entries
                total.bytes += facts.bytes
                total.rate_per_min += rate
                self._offer("entries", facts.stream, facts.entries)
                self._offer("bytes", facts.stream, facts.bytes)
                self._offer("rate", facts.stream, rate)
                self._run.report.streams_seen += 1
            await self._run.breathe()

    def _offer(self, order: Order, stream: str, value: float, device: str = "") -> None:
        self._foremost[order].offer(stream, value, StreamRank(stream, value, device))

    async def users(self, names: Sequence[str]) -> None:
        """Looks how far the devices of these users have come."""
        for at in range(0, len(names), USERS_A_STEP):
            found = await self._store.devices_of(names[at : at + USERS_A_STEP], DEVICES_A_USER)
            some: list[DeviceSight] = []
            offsets = 0
            for device in (device for devices, _ in found for device in devices):
                some.append(device)
                offsets += len(device.offsets)
                self._run.report.devices_seen += 1
                if offsets >= OFFSETS_A_STEP:
                    await self._look_at(some)
                    await self._run.breathe()
                    some, offsets = [], 0
            await self._look_at(some)
            await self._run.breathe()

    async def _look_at(self, devices: Sequence[DeviceSight]) -> None:
        pairs = list(
            dict.fromkeys((stream, one.user) for one in devices for stream in one.offsets if is_stream(stream))
        )
        stands = dict(zip(pairs, await self._store.bounds(pairs), strict=True))
        behind: list[tuple[DeviceSight, StreamBounds, EntryId, EntryId]] = []
        for device in devices:
            for stream in device.offsets:
                bounds = stands.get((stream, device.user))
                if bounds is None or bounds.stretches == ():
                    continue
                offset = stands_at(device, bounds)
                after = unread_after(offset, bounds.head, bounds.stretches)
                if after is not None:
                    behind.append((device, bounds, offset, after))
        firsts = await self._store.first_above([(bounds.stream, after) for _, bounds, _, after in behind])
        for (device, bounds, offset, _), first in zip(behind, firsts, strict=True):
            how_far = lag(offset, bounds.head, bounds.floor, bounds.stretches, first=first, now_ms=self._now_ms)
            self._note(device, bounds, how_far)

    def _note(self, device: DeviceSight, bounds: StreamBounds, how_far: Lag) -> None:
        stream, name = bounds.stream, f"{device.user}/{device.device}"
        self._offer("lag", stream, how_far.messages, name)
        self._offer("wait", stream, how_far.waiting_s, name)
        policy = policy_of(stream, self._settings.retention.policies)
        idle_s = self._settings.retention.device_idle_max
        told = with_loss(how_far, stream, bounds.head, policy, last_seen=device.last_seen, idle_s=idle_s)
        row = DeviceRank(
            user=device.user,
            device=device.device,
            stream=stream,
            lag_messages=told.messages,
            waiting_s=told.waiting_s,
            last_seen_ms=device.last_seen,
            loses_ms=told.loses_ms,
            loses_by=told.loses_by,
        )
        self._devices.offer(name, told.messages, row)

    async def keep(self) -> None:
        """Keeps all that was found, part by part, in place of what was kept before."""
        parts: dict[SurveyOrder, list[object]] = {order: self._foremost[order].rows() for order in ORDERS}
        parts["devices"] = self._devices.rows()
        parts["totals"] = list(self._totals.values())
        run = self._run
        for part, rows in parts.items():
            kept = Kept(self._now_ms, run.id, msgspec.to_builtins(rows))
            await self._store.keep_survey(part, kept, job=run.report.name, lease=run.lease, token=run.token)
            await run.breathe()
