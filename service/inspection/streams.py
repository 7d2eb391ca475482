"""Streams as operators see them: how each stands, who is behind, which policy applies and when it comes next."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from service.config import Settings
from service.core.names import ALL, EntryId, parse_stream
from service.core.retention import limit_texts, policy_of
from service.errors import WaypostError
from service.inspection.lag import Lag, begins, lag, messages, unread_after
from service.inspection.schedule import due_in_ms
from service.inspection.times import age_or_none, age_s, at_or_none, id_or_none, when, when_or_none
from service.store import Store
from service.store.sights import StreamDevice, StreamSight

Kind = Literal["user", "group", "all", ""]

RATE_S = 300  # of this long back numbers are counted: long enough to be steady, short enough to be of now
USERS_A_ROW = 20  # of a stream in a list whose devices are asked; the job `survey` asks everybody
USERS_ALONE = 2000  # of a stream that is looked at alone: some ten thousand short reads
_KEYS_A_STEP = 1000  # looked at by one SCAN for those who have devices: half a millisecond
_STEPS_MAX = 20  # of looking for somebody: among many keys of other kinds they lie far apart
DEVICES_A_USER = 20  # of whom many devices are asked at a time: those that were seen last


class StreamView(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream stands. `bytes` is the memory that its entries take in the store (reckoned from some of them);
    `oldest` and `newest` are entries that are there.

    `rate_per_min`: numbers that it gave out within the last five minutes, a minute; from the ids, so what was removed
    since is not in it. `nodes` are on its register: somebody is connected there, or was within `detach_linger_s`.
    `lag_messages` and `waiting_s` are those of the device that lacks most, `lag_device` (`user/device`), among the
    users that were asked: `lag_is_whole` is false where there are more of them, so that it may be more. `limits` is the
    policy in words, `policy_source` who says so; `next_trim` when the job `retention` comes next.
    """

    stream: str
    kind: str
    head: str
    floor: str
    entries: int
    bytes: int
    oldest: str | None
    oldest_at: str | None
    oldest_age_s: float | None
    newest: str | None
    newest_at: str | None
    newest_age_s: float | None
    members: int | None
    nodes: tuple[str, ...]
    rate_per_min: float
    lag_messages: int
    waiting_s: float
    lag_device: str
    lag_is_whole: bool
    policy: str
    policy_source: str
    limits: str
    next_trim: str | None
    next_trim_in_s: float | None


class StreamPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some streams. `next`: where the following page begins, null at the end. In an order they are those that the job
    `survey` found foremost at `order_as_of`; what is told of each is of now.
    """

    as_of: str
    streams: tuple[StreamView, ...]
    next: str | None
    order_as_of: str | None = None


async def next_trim(store: Store, settings: Settings) -> int | None:
    """When the job `retention` comes next (Redis ms), None for never. Asked once for any number of streams."""
    state = await store.job_state("retention")
    due = due_in_ms(settings.jobs.retention, state)
    return None if due is None else state.now_ms + due


async def streams_page(
    store: Store, settings: Settings, *, cursor: str = "", limit: int, kind: Kind = "", part: str = ""
) -> StreamPage:
    """A page of all streams, or of those of a kind, or with `part` in their name; in no order. About `limit` come at a
    time, and fewer at times. Raises `bad_request` for a cursor that is none.
    """
    names, onward = await store.streams_page(cursor, limit, kind, part)
    now_ms = await store.now_ms()
    return StreamPage(
        as_of=when(now_ms), streams=await stream_views(store, settings, names, now_ms), next=onward or None
    )


async def stream_views(
    store: Store, settings: Settings, names: Sequence[str], now_ms: int, *, users_max: int = USERS_A_ROW
) -> tuple[StreamView, ...]:
    """How these streams stand; what cannot be told of is left out."""
    trim_ms = await next_trim(store, settings)
    sights = [sight for sight in await store.stream_sights(names, now_ms - RATE_S * 1000) if sight is not None]
    worst = await worst_lags(store, sights, now_ms, users_max)
    return tuple(view(sight, settings, worst[sight.facts.stream], trim_ms, now_ms) for sight in sights)


class WorstLag(msgspec.Struct, frozen=True):
    """Of the devices that were asked the one that lacks most. `is_whole`: everybody's were asked."""

    device: str
    lag: Lag | None
    is_whole: bool


async def stream_view(store: Store, settings: Settings, stream: str) -> StreamView:
    """How one stream stands. Raises `bad_stream`, `bad_name`; `no_group` for a group that nobody made."""
    parse_stream(stream)
    found = await stream_views(store, settings, [stream], await store.now_ms(), users_max=USERS_ALONE)
    if not found:
        await store.stream_facts(stream)  # which says why
        raise WaypostError("no_group")  # made just now
    return found[0]


def view(sight: StreamSight, settings: Settings, worst: WorstLag, trim_ms: int | None, now_ms: int) -> StreamView:
    """A row, of what was read."""
    facts = sight.facts
    policy = policy_of(facts.stream, settings.retention.policies)
    return StreamView(
        stream=facts.stream,
        kind=parse_stream(facts.stream)[0],
        head=str(facts.head),
        floor=str(facts.floor),
        entries=facts.entries,
        bytes=facts.bytes,
        oldest=id_or_none(facts.oldest),
        oldest_at=at_or_none(facts.oldest),
        oldest_age_s=age_or_none(facts.oldest, now_ms),
        newest=id_or_none(facts.newest),
        newest_at=at_or_none(facts.newest),
        newest_age_s=age_or_none(facts.newest, now_ms),
        members=facts.members,
        nodes=facts.nodes,
        rate_per_min=rate_per_min(sight),
        lag_messages=0 if worst.lag is None else worst.lag.messages,
        waiting_s=0.0 if worst.lag is None else worst.lag.waiting_s,
        lag_device=worst.device,
        lag_is_whole=worst.is_whole,
        policy=policy.match,
        policy_source=policy.source,
        limits=", ".join(limit_texts(policy).values()) or "keeps everything",
        next_trim=when_or_none(trim_ms),
        next_trim_in_s=None if trim_ms is None else age_s(now_ms, trim_ms),
    )


def rate_per_min(sight: StreamSight) -> float:
    """Numbers a minute, over the time that `recent` counts."""
    return sight.recent * 60 / RATE_S


# -- who is behind -----------------------------------------------------------------------------------------------------


async def worst_lags(store: Store, sights: Iterable[StreamSight], now_ms: int, users_max: int) -> dict[str, WorstLag]:
    """Per stream the device that lacks most, among those of at most about `users_max` users."""
    facts = {sight.facts.stream: sight.facts for sight in sights}
    asked, is_whole = [], {}
    for stream in facts:
        users, is_whole[stream] = await _users(store, stream, users_max)
        asked.append((stream, users))
    most: dict[str, tuple[StreamDevice, EntryId, int] | None] = {}
    for (stream, _), devices in zip(asked, await store.stream_devices(asked, DEVICES_A_USER), strict=True):
        most[stream] = _most_behind(devices, stream, facts[stream].head, facts[stream].floor)
    behind = [(stream, found) for stream, found in most.items() if found is not None]
    starts = [
        (stream, unread_after(offset, facts[stream].head, device.stretches) or offset)
        for stream, (device, offset, _) in behind
    ]
    firsts = dict(zip((stream for stream, _ in behind), await store.first_above(starts), strict=True))
    found: dict[str, WorstLag] = {}
    for stream, one_of in facts.items():
        worst = most[stream]
        if worst is None:
            found[stream] = WorstLag("", None, is_whole[stream])
            continue
        device, offset, _ = worst
        how_far = lag(offset, one_of.head, one_of.floor, device.stretches, first=firsts[stream], now_ms=now_ms)
        found[stream] = WorstLag(f"{device.user}/{device.device}", how_far, is_whole[stream])
    return found


async def _users(store: Store, stream: str, most: int) -> tuple[list[str], bool]:
    """Some of those whom a stream is for, and whether that is all of them."""
    kind, name = parse_stream(stream)
    if kind == "user":
        return [name], True
    users: dict[str, None] = {}
    cursor = ""
    for _ in range(_STEPS_MAX):
        if kind == ALL:
            some, cursor = await store.scan_names("d", cursor, _KEYS_A_STEP)
        else:
            members, cursor = await store.members(name, cursor, most)
            some = [member.user for member in members]
        users |= dict.fromkeys(some)
        if not cursor or len(users) >= most:
            break
    return list(users)[:most], not cursor and len(users) <= most


def _most_behind(
    devices: Iterable[StreamDevice], stream: str, head: EntryId, floor: EntryId
) -> tuple[StreamDevice, EntryId, int] | None:
    """The device that lacks most, its offset, and how many numbers it lacks; None when none lacks any."""
    most: tuple[StreamDevice, EntryId, int] | None = None
    for device in devices:
        offset = device.offset or begins(stream, head, floor, device.stretches)
        lacking = messages(offset, head, device.stretches)
        if lacking and (most is None or lacking > most[2]):
            most = device, offset, lacking
    return most
