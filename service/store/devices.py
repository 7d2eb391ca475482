"""Devices of users: opening a session, and how far each device has come in each stream."""

from collections.abc import Mapping, Sequence

from service.core.names import ALL, EntryId, group_of, group_stream, user_stream
from service.errors import WaypostError
from service.store import decode
from service.store.context import Context
from service.store.records import Commit, OpenedStream, StreamProgress

PROGRESS_MAX = 200  # streams a call: about a millisecond


async def open_session(
    context: Context, user: str, device: str, node: str, offsets: Mapping[str, EntryId], *, is_foreign: bool
) -> list[OpenedStream]:
    """See `Store.open_session`.

    The user's groups are read before the call, because a function on a cluster must be told its keys: those of the
    user's list, and those that the device still has an offset of. A group joined in between is told by the `joined`
    entry in the inbox, which this session will deliver; one left in between is denied by the group itself.
    """
    layout = context.layout
    listed = await context.link.call("HKEYS", layout.user(user), is_write=False)
    known = await context.link.call("HKEYS", layout.offsets(user, device), is_write=False)
    groups = {group_stream(raw.decode()) for raw in listed}
    groups |= {stream for stream in map(bytes.decode, known) if group_of(stream) is not None}
    streams = [user_stream(user), *sorted(groups), ALL]
    arg = {
        "epoch": context.epoch,
        "user": user,
        "tag": layout.user_tag(user),
        "device": device,
        "node": node,
        "is_foreign": is_foreign,
        "devices_max": context.options.devices_max,
        "streams": [
            {"stream": stream, "tag": layout.tag(stream), "brought": str(offsets.get(stream, ""))} for stream in streams
        ],
    }
    [rows] = await context.call("open", arg)
    return [
        OpenedStream(
            stream=name.decode(),
            offset=decode.entry_id(offset),
            start=decode.entry_id(start),
            head=decode.entry_id(head),
            floor=decode.entry_id(floor),
            foreign=decode.entry_id(foreign) if foreign else None,
        )
        for name, offset, start, head, floor, foreign in rows
    ]


async def progress(
    context: Context, user: str, device: str, *, after: str, limit: int
) -> tuple[list[StreamProgress], str]:
    """See `Store.progress`. The user's list names more groups than there may be; the function looks at each."""
    layout = context.layout
    listed = await context.link.call("HKEYS", layout.user(user), is_write=False)
    streams = [user_stream(user), ALL, *sorted(group_stream(raw.decode()) for raw in listed)]
    if after:
        if after in streams[:2]:
            streams = streams[streams.index(after) + 1 :]
        elif group_of(after) is not None:
            streams = [stream for stream in streams[2:] if stream > after]
        else:
            raise WaypostError("bad_request", "not a place in this list")
    wanted = streams[: max(1, min(limit, PROGRESS_MAX))]
    if not wanted:
        return [], ""
    arg = {
        "epoch": context.epoch,
        "user": user,
        "tag": layout.user_tag(user),
        "device": device,
        "streams": [{"stream": stream, "tag": layout.tag(stream)} for stream in wanted],
    }
    [rows] = await context.call("progress", arg, is_write=False)
    found = [
        StreamProgress(name.decode(), decode.entry_id(head), decode.entry_id(floor), decode.entry_id(offset))
        for name, head, floor, offset in rows
    ]
    return found, wanted[-1] if len(wanted) < len(streams) else ""


async def commit(context: Context, commits: Sequence[Commit]) -> None:
    """See `Store.commit`."""
    layout = context.layout
    rows = [
        {
            "user": one.user,
            "tag": layout.user_tag(one.user),
            "device": one.device,
            "offsets": [
                {"stream": stream, "tag": layout.tag(stream), "id": str(entry)} for stream, entry in one.offsets.items()
            ],
        }
        for one in commits
    ]
    if rows:
        await context.call("commit", {"epoch": context.epoch, "seen_ms": context.options.seen_ms, "commits": rows})
