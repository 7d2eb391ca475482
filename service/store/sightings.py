"""Reads of streams, devices and jobs as they are kept, for operators. Plain: a full or fenced store answers too."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from service.core.entries import Entry, Redaction, Removal, Stretch
from service.core.names import ALL, ZERO, EntryId, group_of, group_stream, user_stream
from service.errors import WaypostError
from service.store import decode, facts, jobs, keys
from service.store.connection import Command, reply_error
from service.store.context import Context
from service.store.records import StreamFacts
from service.store.sights import (
    DeviceSight,
    EntryEvidence,
    JobSight,
    StreamBounds,
    StreamDevice,
    StreamSight,
    UserSight,
)

_HASHES_AT_ONCE = 50  # where each may have a thousand fields, which take a tenth of a millisecond or two
_AT_ONCE = 500  # commands of one pipeline: short reads, a few milliseconds of the server's time between others'


async def read(context: Context, commands: Sequence[Command], at_once: int = _AT_ONCE) -> list[Any]:
    """Any number of reads, in pipelines of bounded length; errors are among the replies."""
    replies: list[Any] = []
    for at in range(0, len(commands), at_once):
        replies += await context.link.pipeline(commands[at : at + at_once], is_write=False)
    return replies


def _checked(reply: Any) -> Any:  # noqa: ANN401 - whatever the server answers
    if isinstance(reply, RedisError):
        raise reply_error(reply, is_write=False) from reply
    return reply


# -- streams -----------------------------------------------------------------------------------------------------------


async def stream_sights(context: Context, streams: Sequence[str], since_ms: int) -> list[StreamSight | None]:
    """See `Store.stream_sights`."""
    commands: list[Command] = []
    counts = []
    for stream in streams:
        of_stream = [*facts.reads(context.layout, stream), _first_since(context, stream, since_ms)]
        counts.append(len(of_stream))
        commands += of_stream
    replies = await read(context, commands)
    found: list[StreamSight | None] = []
    for stream, count in zip(streams, counts, strict=True):
        own, replies = replies[:count], replies[count:]
        try:
            told: StreamFacts | None = facts.told(stream, own[:-1])
        except WaypostError:  # of a stream that cannot be told of, while the others can
            told = None
        found.append(None if told is None else StreamSight(told, _recent(told, own[-1])))
    return found


def _first_since(context: Context, stream: str, since_ms: int) -> Command:
    return ("XRANGE", context.layout.stream(stream), f"{since_ms}-0", "+", "COUNT", 1)


def _recent(told: StreamFacts, reply: Any) -> int:  # noqa: ANN401 - see `_checked`
    """Numbers are dense, so the first of a time and the head say how many there were in it."""
    if isinstance(reply, RedisError) or not reply:
        return 0
    return max(0, told.head.n - decode.entry_id(reply[0][0]).n + 1)


async def entries(
    context: Context, stream: str, *, above: EntryId | None, below: EntryId | None, limit: int, newest: bool
) -> list[Entry]:
    """See `Store.entries`."""
    if below == ZERO:  # which the server does not take for an end
        return []
    name = context.layout.stream(stream)
    low = "-" if above is None else f"({above}"
    high = "+" if below is None else f"({below}"
    if newest:
        rows = await context.link.call("XREVRANGE", name, high, low, "COUNT", limit, is_write=False)
    else:
        rows = await context.link.call("XRANGE", name, low, high, "COUNT", limit, is_write=False)
    found = [decode.entry(raw, fields, stream) for raw, fields in rows]
    return found[::-1] if newest else found


async def redactions(context: Context, stream: str, numbers: Sequence[int]) -> list[Redaction]:
    """See `Store.redactions`."""
    if not numbers:
        return []
    key = keys.key(context.layout.tag(stream), "z", stream)
    raw = await context.link.call("HMGET", key, *numbers, is_write=False)
    return [found for found in (decode.redaction(one) for one in raw if one is not None) if found is not None]


async def ledger(context: Context, stream: str, limit: int) -> list[Removal]:
    """See `Store.ledger`."""
    key = keys.key(context.layout.tag(stream), "x", stream)
    lines = await context.link.call("LRANGE", key, -limit, -1, is_write=False)
    return [line for line in map(decode.removal, reversed(lines)) if line is not None]


# -- devices -----------------------------------------------------------------------------------------------------------


class _DeviceLine(msgspec.Struct):
    first: int | None = None
    last: int | None = None
    node: str = ""


def _device_line(raw: bytes) -> _DeviceLine:
    try:
        return msgspec.json.decode(raw, type=_DeviceLine, strict=False)
    except msgspec.DecodeError:
        return _DeviceLine()


def _seen_last(reply: Any, most: int) -> tuple[list[tuple[str, _DeviceLine]], int]:  # noqa: ANN401 - see `_checked`
    """Of a user's devices those that were seen last, and how many there are in all."""
    fields = [] if isinstance(reply, RedisError) else reply
    rows = [
        (raw.decode(errors="replace"), _device_line(line)) for raw, line in zip(fields[0::2], fields[1::2], strict=True)
    ]
    rows.sort(key=lambda row: (-(row[1].last or 0), row[0]))
    return rows[:most], len(rows)


async def devices(context: Context, users: Sequence[str], most: int) -> list[tuple[list[DeviceSight], int]]:
    """Devices of users with their offsets, of each those that were seen last, and how many there are in all."""
    layout = context.layout
    listed = await read(context, [("HGETALL", keys.key(layout.user_tag(user), "d", user)) for user in users])
    chosen = [_seen_last(reply, most) for reply in listed]
    commands: list[Command] = [
        ("HGETALL", layout.offsets(user, device))
        for user, (rows, _) in zip(users, chosen, strict=True)
        for device, _ in rows
    ]
    replies = iter(await read(context, commands, _HASHES_AT_ONCE))
    found = []
    for user, (rows, count) in zip(users, chosen, strict=True):
        sights = [
            DeviceSight(user, device, line.first, line.last, line.node, _offsets(next(replies)))
            for device, line in rows
        ]
        found.append((sights, count))
    return found


def _offsets(reply: Any) -> dict[str, tuple[EntryId, str]]:  # noqa: ANN401 - see `_checked`
    found: dict[str, tuple[EntryId, str]] = {}
    fields = [] if isinstance(reply, RedisError) else reply
    for stream, value in zip(fields[0::2], fields[1::2], strict=True):
        at, _, epoch = value.partition(b" ")
        try:
            found[stream.decode()] = decode.entry_id(at), epoch.decode()
        except ValueError:
            continue  # it is read as none by the functions, too
    return found


async def stream_devices(
    context: Context, asked: Sequence[tuple[str, Sequence[str]]], devices_max: int
) -> list[list[StreamDevice]]:
    """See `Store.stream_devices`."""
    layout = context.layout
    pairs = [(stream, user) for stream, users in asked for user in users]
    commands: list[Command] = []
    for stream, user in pairs:
        commands += [("HGETALL", keys.key(layout.user_tag(user), "d", user)), *_membership(context, stream, user)]
    replies = iter(await read(context, commands))
    chosen: list[tuple[str, str, str, _DeviceLine, tuple[Stretch, ...] | None]] = []
    for stream, user in pairs:
        rows, _ = _seen_last(next(replies), devices_max)
        stretches = _stretches(stream, replies)
        chosen += [(stream, user, device, line, stretches) for device, line in rows]
    stored = await read(
        context, [("HGET", layout.offsets(user, device), stream) for stream, user, device, *_ in chosen]
    )
    found: dict[str, list[StreamDevice]] = {stream: [] for stream, _ in asked}
    for (stream, user, device, line, stretches), raw in zip(chosen, stored, strict=True):
        offset = None if raw is None or isinstance(raw, RedisError) else _offsets([stream.encode(), raw]).get(stream)
        found[stream].append(StreamDevice(user, device, line.last, None if offset is None else offset[0], stretches))
    return [found[stream] for stream, _ in asked]


def _membership(context: Context, stream: str, user: str) -> list[Command]:
    """What to ask for `_stretches`."""
    group = group_of(stream)
    return [] if group is None else [("HGET", context.layout.group(group), user)]


def _stretches(stream: str, replies: Iterator[Any]) -> tuple[Stretch, ...] | None:
    """A user's memberships, of the next reply; None, and no reply, where the stream is no group's."""
    if group_of(stream) is None:
        return None
    record = next(replies)
    return () if isinstance(record, RedisError) else decode.stretches(record)


async def bounds(context: Context, asked: Sequence[tuple[str, str]]) -> list[StreamBounds | None]:
    """See `Store.bounds`."""
    layout = context.layout
    commands: list[Command] = []
    for stream, user in asked:
        commands += [("HGETALL", keys.key(layout.tag(stream), "h", stream)), *_membership(context, stream, user)]
    replies = iter(await read(context, commands))
    found: list[StreamBounds | None] = []
    for stream, _ in asked:
        state, stretches = next(replies), _stretches(stream, replies)
        if isinstance(state, RedisError):
            found.append(None)
            continue
        fields = dict(zip(state[0::2], state[1::2], strict=True))
        found.append(
            StreamBounds(
                stream,
                decode.entry_id(fields.get(b"head", b"0-0")),
                decode.entry_id(fields.get(b"floor", b"0-0")),
                stretches,
                facts.nodes_in(fields),
            )
        )
    return found


async def user_sight(context: Context, user: str, devices_max: int) -> UserSight:
    """See `Store.user_sight`."""
    layout = context.layout
    [(found, count)] = await devices(context, [user], devices_max)
    listed = await context.link.call("HKEYS", layout.user(user), is_write=False)
    groups = {group_stream(raw.decode(errors="replace")) for raw in listed}
    groups |= {stream for device in found for stream in device.offsets if group_of(stream) is not None}
    streams = [user_stream(user), ALL, *sorted(groups)]
    stand = await bounds(context, [(stream, user) for stream in streams])
    now_ms = await jobs.now_ms(context)
    by_name = {one.stream: one for one in stand if one is not None and one.stretches != ()}
    if user_stream(user) not in by_name:
        raise WaypostError("internal", f"the state of {user_stream(user)} cannot be read")
    return UserSight(user, now_ms, context.epoch, tuple(found), count, by_name)


async def first_above(context: Context, asked: Sequence[tuple[str, EntryId]]) -> list[EntryId | None]:
    """See `Store.first_above`."""
    commands: list[Command] = [
        ("XRANGE", context.layout.stream(stream), f"({after}", "+", "COUNT", 1) for stream, after in asked
    ]
    replies = await read(context, commands)
    return [None if isinstance(reply, RedisError) or not reply else decode.entry_id(reply[0][0]) for reply in replies]


# -- one entry ---------------------------------------------------------------------------------------------------------


async def evidence(context: Context, stream: str, entry: EntryId, user: str) -> EntryEvidence:
    """See `Store.evidence`."""
    layout, group = context.layout, group_of(stream)
    name, tag = layout.stream(stream), layout.tag(stream)
    commands: list[Command] = [
        ("XRANGE", name, str(entry), str(entry)),
        ("XREVRANGE", name, f"({entry}" if entry > ZERO else "0-0", "-", "COUNT", 1),
        ("XRANGE", name, f"({entry}", "+", "COUNT", 1),
        ("HGET", keys.key(tag, "z", stream), str(entry.n)),
        ("LRANGE", keys.key(tag, "x", stream), 0, -1),
    ]
    if group is not None:
        commands.append(("EXISTS", layout.group(group)))
    found, below, above, redacted, lines, *exists = map(_checked, await read(context, commands))
    [stands] = await bounds(context, [(stream, user)])
    if stands is None:
        raise WaypostError("internal", f"the state of {stream} cannot be read")
    redaction = None if redacted is None else decode.redaction(redacted)
    known = [decode.entry_id(rows[0][0]) for rows in (below, above) if rows]
    known += [redaction.id] if redaction is not None else []
    other = next((one for one in known if one.n == entry.n and one != entry), None)
    removals = tuple(line for line in map(decode.removal, lines) if line is not None)
    return EntryEvidence(
        bounds=stands,
        entry=decode.entry(found[0][0], found[0][1], stream) if found else None,
        redaction=redaction if redaction is not None and redaction.id == entry else None,
        other=other,
        removals=removals,
        group_exists=bool(exists[0]) if exists else None,
    )


# -- jobs, mailboxes ---------------------------------------------------------------------------------------------------


async def job_sight(context: Context, job: str) -> JobSight:
    """See `Store.job_sight`."""
    lease = keys.job_lease(context.layout.tag(job), job)
    worker, lease_ms = await context.read([("HGET", lease, "worker"), ("PTTL", lease)])
    return JobSight("" if worker is None else worker.decode(errors="replace"), max(0, lease_ms))
