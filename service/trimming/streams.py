"""Trimming by policy: what a run does to a stream, and the same told beforehand as a plan.

Both walk a stream by the same cuts in the same order, and leave the choice of entries to one piece of code in the
store; so a plan names what a run at that moment would remove.
"""

import asyncio
import time

import msgspec

from service.config import Retention
from service.core.names import ZERO, EntryId, is_stream
from service.core.retention import Cut, Hold, cuts, hold, horizon_s, policy_of
from service.store import Store, Survey, TrimCause


class StreamTrimmed(msgspec.Struct, kw_only=True):
    """What a run removed from one stream: `entries` of `size` bytes, all the numbers above `after` up to `floor`.

    `oldest` is the oldest entry that stays (None: none does). `is_held`: unread messages were kept beyond a limit.
    """

    stream: str
    policy: str
    entries: int = 0
    size: int = 0
    after: EntryId = ZERO
    floor: EntryId = ZERO
    oldest: EntryId | None = None
    is_held: bool = False


class StreamPlan(msgspec.Struct, kw_only=True):
    """What a run would remove from one stream now, and how the stream stands.

    `entries` of `size` bytes would go, the last of them `upto` (None: nothing would); `limits` says how many by which
    limit. `kept` entries stay, the oldest of them `oldest_age_s` old (None: none stays). `horizon_s` is how long a
    device may stay away and lose nothing, at the present rate (None: no end is in sight).
    """

    stream: str
    policy: str
    source: str
    floor: EntryId = ZERO
    entries: int = 0
    size: int = 0
    upto: EntryId | None = None
    limits: dict[str, int] = msgspec.field(default_factory=dict)
    is_held: bool = False
    kept: int = 0
    oldest_age_s: float | None = None
    horizon_s: float | None = None
    unread_devices: int = 0
    unread_messages: int = 0


async def breathe(began: float) -> None:
    """Leaves the store to others for as long as the step since `began` (monotonic) took it: a job uses half at most."""
    await asyncio.sleep(time.monotonic() - began)


async def ripe_streams(
    store: Store, settings: Retention, now_ms: int, names: list[str]
) -> list[tuple[str, bool | None, EntryId | None]]:
    """Which of the streams have something that their policy may let go, each with its oldest entry.

    None for what is no stream, or cannot be read: a key that somebody made by hand is not to cost the others anything.
    """
    began = time.monotonic()
    asked = {name: cuts(policy_of(name, settings.policies), now_ms) for name in names if is_stream(name)}
    found = await store.ripe(asked)
    await breathe(began)
    return found + [(name, None, None) for name in names if name not in asked]


async def trim_stream(store: Store, stream: str, settings: Retention, cause: TrimCause, now_ms: int) -> StreamTrimmed:
    """Carries out the policy of one stream, in bounded steps, the limits one after another.

    `now_ms` is Redis time at the beginning of the run; `cause` brings its lease, token and run. Raises `Superseded`.
    May be cancelled between steps, and done again.
    """
    policy = policy_of(stream, settings.policies)
    held = hold(policy, stream, now_ms, settings.device_idle_max)
    done: StreamTrimmed | None = None
    if policy.max_bytes is not None:
        await _measure(store, stream)
    for cut in cuts(policy, now_ms):
        why = msgspec.structs.replace(cause, policy=policy.match, limit=cut.limit)
        has_more = True
        while has_more:
            began = time.monotonic()
            step = await store.trim(stream, cut.upto, why, keep=cut.keep, keep_bytes=cut.keep_bytes, hold=held)
            done = done or StreamTrimmed(stream=stream, policy=policy.match, after=step.before)
            done.entries += step.removed
            done.size += step.size
            done.floor, done.oldest = step.floor, step.oldest
            done.is_held = done.is_held or step.is_held
            has_more = step.more
            await breathe(began)
    return done or StreamTrimmed(stream=stream, policy=policy.match)


async def _measure(store: Store, stream: str) -> None:
    has_more = True
    while has_more:
        began = time.monotonic()
        _, has_more = await store.measure(stream)
        await breathe(began)


async def plan_stream(store: Store, stream: str, settings: Retention, now_ms: int) -> StreamPlan:
    """What `trim_stream` would do at `now_ms` (Redis time). Changes nothing."""
    policy = policy_of(stream, settings.policies)
    held = hold(policy, stream, now_ms, settings.device_idle_max)
    plan = StreamPlan(stream=stream, policy=policy.match, source=policy.source)
    walk = _Walk(store, stream, held)
    stands = await walk.look()
    total = await walk.size(stands) if policy.max_bytes is not None else 0
    for cut in cuts(policy, now_ms):
        over = None if cut.keep_bytes is None else max(0, total - plan.size - cut.keep_bytes)
        entries, size = await walk.by(cut, over)
        if entries:
            plan.limits[cut.limit] = entries
        plan.entries += entries
        plan.size += size
    plan.floor, plan.upto, plan.is_held = stands.floor, walk.at, walk.is_held
    plan.kept = max(0, stands.length - plan.entries)
    if walk.oldest is not None:
        plan.oldest_age_s = max(0.0, (now_ms - walk.oldest.ms) / 1000)
        plan.horizon_s = horizon_s(
            policy,
            stream,
            entries=plan.kept,
            size=max(0, total - plan.size),
            oldest_age_s=plan.oldest_age_s,
            device_idle_s=settings.device_idle_max,
        )
    return plan


class _Walk:
    """Goes along a stream from its oldest entry, cut by cut, as trimming would, and removes nothing."""

    def __init__(self, store: Store, stream: str, held: Hold | None) -> None:
        self._store = store
        self._stream = stream
        self._held = held
        self._passed = 0  # entries
        self.at: EntryId | None = None  # the last entry that would go
        self.oldest: EntryId | None = None  # the first that would stay
        self.is_held = False

    async def look(self) -> Survey:
        """How the stream stands."""
        stands = await self._store.survey(self._stream, ZERO)
        self.oldest = stands.oldest
        return stands

    async def size(self, stands: Survey) -> int:
        """Bytes of the whole stream: what was measured before, and what came since."""
        size, at, has_more = 0, None, True
        if stands.measured_upto is not None and stands.measured_upto >= stands.floor:
            size, at = stands.measured, stands.measured_upto
        while has_more:
            began = time.monotonic()
            step = await self._store.survey(self._stream, None, after=at)
            size, at, has_more = size + step.size, step.last or at, step.more
            await breathe(began)
        return size

    async def by(self, cut: Cut, over: int | None) -> tuple[int, int]:
        """Entries and bytes that this cut would remove after those before it. `over`: bytes that have to go."""
        entries = size = 0
        has_more = True
        while has_more:
            began = time.monotonic()
            step = await self._store.survey(
                self._stream,
                cut.upto,
                keep=cut.keep,
                over=None if over is None else max(0, over - size),
                hold=self._held,
                after=self.at,
                skipped=self._passed,
            )
            entries, size = entries + step.entries, size + step.size
            self._passed += step.entries
            self.at, self.oldest = step.last or self.at, step.oldest
            self.is_held = self.is_held or step.is_held
            has_more = step.more
            await breathe(began)
        return entries, size
