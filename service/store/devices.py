"""Devices of users: opening a session, and how far each device has come in each stream."""

from collections.abc import Mapping, Sequence

from service.core.names import ALL, EntryId, group_of, group_stream, user_stream
from service.store import decode
from service.store.context import Context
from service.store.records import Commit, OpenedStream


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
