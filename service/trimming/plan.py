"""A plan of retention for the whole store: what a run would remove, who would lose what, how far back one may ask."""

import heapq
from collections.abc import AsyncIterator, Iterable

import msgspec

from service.config import Retention
from service.core.names import EntryId
from service.core.retention import DEFAULTS, Policy, horizon_s, policy_of
from service.store import Store
from service.trimming.streams import StreamPlan, plan_stream, ripe_streams

SCAN_KEYS = 500  # looked at by one SCAN, and at most so many streams in one question after it: a millisecond or two
WORST_STREAMS = 20  # that a plan names one by one: what fits on a screen


class PolicyPlan(msgspec.Struct, kw_only=True):
    """What a run would remove under one policy.

    `streams` are under it (one that nothing goes of may be counted twice while streams are being made), `to_trim` of
    them would lose `entries` of `size` bytes. `oldest_age_s` is the age of the oldest entry kept in any of them,
    `horizon_s` how long a device may stay away from the fastest of them and lose nothing, at the present rate (None:
    nothing is kept, or no end is in sight).
    """

    policy: str
    source: str
    streams: int = 0
    to_trim: int = 0
    entries: int = 0
    size: int = 0
    unread_devices: int = 0
    unread_messages: int = 0
    oldest_age_s: float | None = None
    horizon_s: float | None = None


class Plan(msgspec.Struct, kw_only=True):
    """What a run at `at_ms` (Redis time) would do. Nothing was changed.

    `unread_devices` would lose `unread_messages` for good (a device counts once for each stream);
    `is_unread_whole` is False where there were more devices than may be asked, so that there may be more. `worst` are
    the streams in which most would be lost, `unreadable` what is no stream, or has a key that cannot be read.
    """

    at_ms: int
    streams: int = 0
    entries: int = 0
    size: int = 0
    unread_devices: int = 0
    unread_messages: int = 0
    is_unread_whole: bool = True
    policies: list[PolicyPlan] = msgspec.field(default_factory=list)
    worst: list[StreamPlan] = msgspec.field(default_factory=list)
    unreadable: list[str] = msgspec.field(default_factory=list)


async def plan(store: Store, settings: Retention, streams: Iterable[str] | None = None) -> Plan:
    """What a run would do now, to all streams or to these. Reads in short calls, and changes nothing."""
    now_ms = await store.now_ms()
    made = Plan(at_ms=now_ms)
    policies = {policy.match: policy for policy in (*DEFAULTS, *settings.policies)}
    found = {match: PolicyPlan(policy=match, source=policy.source) for match, policy in policies.items()}
    planned: set[str] = set()  # of which something goes: few, where there are many
    asked = 0
    async for name, is_ripe, oldest in _streams(store, settings, now_ms, streams):
        if is_ripe is None:
            made.unreadable.append(name)
        if is_ripe is None or name in planned:  # a walk may show a name twice
            continue
        policy = policy_of(name, settings.policies)
        of_policy = found[policy.match]
        of_policy.streams += 1
        if is_ripe or policy.max_entries is not None or policy.max_bytes is not None:
            one = await plan_stream(store, name, settings, now_ms)
        else:
            one = _untouched(name, policy, oldest, now_ms, settings.device_idle_max)
        if one.upto is not None:
            planned.add(name)
            idle_before = max(0, now_ms - settings.device_idle_max * 1000)
            most = settings.unread_devices - asked
            unread = await store.unread(name, one.floor, one.upto, idle_before=idle_before, devices_max=most)
            asked += unread.asked
            one.unread_devices, one.unread_messages = unread.devices, unread.messages
            made.is_unread_whole = made.is_unread_whole and unread.is_whole
            made.worst = heapq.nlargest(WORST_STREAMS, [*made.worst, one], key=_badness)
        _add(of_policy, one)
    for of_policy in found.values():
        made.streams += of_policy.streams
        made.entries += of_policy.entries
        made.size += of_policy.size
        made.unread_devices += of_policy.unread_devices
        made.unread_messages += of_policy.unread_messages
    made.policies = list(found.values())
    return made


def _badness(one: StreamPlan) -> tuple[int, int, str]:
    return one.unread_messages, one.entries, one.stream


def _untouched(name: str, policy: Policy, oldest: EntryId | None, now_ms: int, idle_s: int) -> StreamPlan:
    """A stream from which nothing goes, of which all that matters is known."""
    one = StreamPlan(stream=name, policy=policy.match, source=policy.source)
    if oldest is not None:
        one.oldest_age_s = max(0.0, (now_ms - oldest.ms) / 1000)
        one.horizon_s = horizon_s(policy, name, entries=0, size=0, oldest_age_s=one.oldest_age_s, device_idle_s=idle_s)
    return one


def _add(of_policy: PolicyPlan, one: StreamPlan) -> None:
    of_policy.to_trim += one.upto is not None
    of_policy.entries += one.entries
    of_policy.size += one.size
    of_policy.unread_devices += one.unread_devices
    of_policy.unread_messages += one.unread_messages
    ages = [age for age in (of_policy.oldest_age_s, one.oldest_age_s) if age is not None]
    of_policy.oldest_age_s = max(ages, default=None)
    horizons = [horizon for horizon in (of_policy.horizon_s, one.horizon_s) if horizon is not None]
    of_policy.horizon_s = min(horizons, default=None)


async def _streams(
    store: Store, settings: Retention, now_ms: int, streams: Iterable[str] | None
) -> AsyncIterator[tuple[str, bool | None, EntryId | None]]:
    """The streams asked for, or all there are, each with whether it may have to be trimmed, and its oldest entry."""
    if streams is not None:
        for found in await ripe_streams(store, settings, now_ms, list(streams)):
            yield found
        return
    cursor = ""
    while True:
        names, cursor = await store.scan_names("s", cursor, SCAN_KEYS)
        for found in await ripe_streams(store, settings, now_ms, names):
            yield found
        if not cursor:
            return
