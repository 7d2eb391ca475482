"""Retention: trimming, looking at what a trim would do, measuring, and who has not read what goes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from service.core.entries import Stretch
from service.core.names import EntryId, parse_stream
from service.core.retention import Cut, Hold
from service.store import decode, jobs, keys
from service.store.context import Context
from service.store.records import Survey, TrimCause, Trimmed, Unread

MEASURE_TTL_S = 7 * 86_400  # a measure that nobody goes on with is of a policy that is no more
_USERS_AT_A_TIME = 100  # of whom devices are asked for in one pipeline: a few hundred short reads


def _hold(hold: Hold | None) -> dict[str, object] | None:
    return None if hold is None else {"user": hold.user, "upto": str(hold.upto), "idle_before": hold.idle_before}


async def trim(
    context: Context,
    stream: str,
    upto: EntryId | None,
    cause: TrimCause,
    *,
    keep: int,
    keep_bytes: int | None,
    hold: Hold | None,
    limit: int,
) -> Trimmed:
    """See `Store.trim`."""
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(stream),
        "stream": stream,
        "upto": "" if upto is None else str(upto),
        "limit": limit,
        "keep": keep,
        "keep_bytes": -1 if keep_bytes is None else keep_bytes,
        "hold": _hold(hold),
        "kind": cause.kind,
        "policy": cause.policy,
        "limit_name": cause.limit,
        "run": cause.run,
        "lease": cause.lease,
        "token": cause.token,
    }
    removed, floor, more, size, is_held, before, oldest = await context.call("trim", arg)
    return Trimmed(
        removed,
        decode.entry_id(floor),
        more == 1,
        size,
        is_held == 1,
        decode.entry_id(before),
        _id_or_none(oldest),
    )


async def ripe(context: Context, streams: Mapping[str, Sequence[Cut]]) -> list[tuple[str, bool | None, EntryId | None]]:
    """See `Store.ripe`."""
    rows = []
    for stream, cuts in streams.items():
        ages = [cut.upto for cut in cuts if cut.upto is not None]
        counts = [cut.keep for cut in cuts if cut.upto is None and cut.keep_bytes is None]
        sizes = [cut.keep_bytes for cut in cuts if cut.keep_bytes is not None]
        rows.append(
            {
                "tag": context.layout.tag(stream),
                "stream": stream,
                "upto": str(max(ages)) if ages else "",
                "entries": min(counts, default=-1),
                "bytes": min(sizes, default=-1),
            }
        )
    if not rows:
        return []
    [found] = await context.call("ripe", {"epoch": context.epoch, "streams": rows}, is_write=False)
    told: list[tuple[str, bool | None, EntryId | None]] = []
    for stream, row in zip(streams, found, strict=True):
        told.append((stream, row[0] == 1, _id_or_none(row[1])) if row else (stream, None, None))
    return told


async def survey(
    context: Context,
    stream: str,
    upto: EntryId | None,
    *,
    keep: int,
    over: int | None,
    hold: Hold | None,
    after: EntryId | None,
    skipped: int,
    limit: int,
) -> Survey:
    """See `Store.survey`."""
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(stream),
        "stream": stream,
        "after": "" if after is None else str(after),
        "skipped": skipped,
        "upto": "" if upto is None else str(upto),
        "limit": limit,
        "keep": keep,
        "hold": _hold(hold),
        "over": -1 if over is None else over,
    }
    entries, size, last, more, is_held, stands = await context.call("survey", arg, is_write=False)
    head, floor, length, oldest, measured_upto, measured, now = stands
    return Survey(
        entries=entries,
        size=size,
        last=_id_or_none(last),
        more=more == 1,
        is_held=is_held == 1,
        head=decode.entry_id(head),
        floor=decode.entry_id(floor),
        length=length,
        oldest=_id_or_none(oldest),
        measured_upto=_id_or_none(measured_upto),
        measured=int(measured),
        now_ms=int(now),
    )


def _id_or_none(raw: bytes) -> EntryId | None:
    return decode.entry_id(raw) if raw else None


async def measure(context: Context, stream: str, *, limit: int) -> tuple[int, bool]:
    """See `Store.measure`."""
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(stream),
        "stream": stream,
        "limit": limit,
        "ttl": MEASURE_TTL_S,
    }
    size, more = await context.call("measure", arg)
    return int(size), more == 1


async def unread(
    context: Context, stream: str, after: EntryId, to: EntryId, *, idle_before: int, devices_max: int
) -> Unread:
    """See `Store.unread`."""
    devices = messages = asked = 0
    async for users in _audience(context, stream):
        for stretches, offset in await _offsets(context, stream, users, idle_before):
            if asked == devices_max:
                return Unread(devices, messages, asked, is_whole=False)
            asked += 1
            lacking = sum(
                max(0, min(to, stretch.left or to).n - max(after, offset, stretch.joined).n) for stretch in stretches
            )
            devices += lacking > 0
            messages += lacking
    return Unread(devices, messages, asked, is_whole=True)


_EVER = (Stretch(EntryId(0, 0)),)


_Audience: TypeAlias = list[tuple[str, tuple[Stretch, ...]]]  # users, and what of the stream is theirs


async def _audience(context: Context, stream: str) -> AsyncIterator[_Audience]:
    """Whoever a stream is for, some at a time. Somebody may come twice."""
    kind, name = parse_stream(stream)
    if kind == "user":
        yield [(name, _EVER)]
        return
    some = _members if kind == "group" else _everybody
    cursor = ""
    while True:
        found, cursor = await some(context, name, cursor)
        yield found
        if not cursor:
            return


async def _members(context: Context, group: str, cursor: str) -> tuple[_Audience, str]:
    scan = ("HSCAN", context.layout.group(group), cursor or "0", "COUNT", _USERS_AT_A_TIME)
    after, fields = await context.link.call(*scan, is_write=False)
    records = zip(fields[0::2], fields[1::2], strict=True)
    found = [(user.decode(), decode.stretches(record)) for user, record in records if not user.startswith(b"/")]
    return found, "" if after == b"0" else after.decode()


async def _everybody(context: Context, _name: str, cursor: str) -> tuple[_Audience, str]:
    users, cursor = await jobs.scan_names(context, "d", cursor, 10 * _USERS_AT_A_TIME)
    return [(user, _EVER) for user in users], cursor


async def _offsets(
    context: Context, stream: str, audience: _Audience, idle_before: int
) -> list[tuple[tuple[Stretch, ...], EntryId]]:
    """For each device that is not idle and has an offset of the stream: what is its user's, and the offset."""
    layout = context.layout
    listed = await context.read([("HGETALL", keys.key(layout.user_tag(user), "d", user)) for user, _ in audience])
    found = [
        (layout.offsets(user, device.decode()), stretches)
        for (user, stretches), devices in zip(audience, listed, strict=True)
        for device, record in zip(devices[0::2], devices[1::2], strict=True)
        if not _is_idle(record, idle_before)
    ]
    stored = await context.read([("HGET", key, stream) for key, _ in found])
    return [
        (stretches, decode.entry_id(raw.split(b" ", 1)[0]))
        for (_, stretches), raw in zip(found, stored, strict=True)
        if raw is not None
    ]


def _is_idle(record: bytes, idle_before: int) -> bool:
    """Whether a device was seen last before that; one whose record cannot be read counts as there."""
    try:
        return bool(msgspec.json.decode(record)["last"] < idle_before)
    except (msgspec.DecodeError, KeyError, TypeError):
        return False
