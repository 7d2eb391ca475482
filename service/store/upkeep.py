"""What scheduled jobs do beside trimming: forget devices, drop groups, look whether everything agrees.

Every call that writes carries the lease and the token of its run, and does nothing once the run is another worker's.
"""

from collections.abc import Sequence

from redis.exceptions import RedisError

from service.core.names import group_stream
from service.store import keys
from service.store.connection import Command
from service.store.context import Context
from service.store.records import Audited, DeviceSweep, GroupStep

_DEVICES_A_CALL = 100  # looked at by one call, and a hundred more at most: a few milliseconds when all have to go
_NODES_A_CALL = 100


async def forget_devices(
    context: Context, users: Sequence[tuple[str, str]], idle_before_ms: int, *, lease: str, token: str
) -> list[DeviceSweep]:
    """See `Store.forget_devices`."""
    arg = {
        "epoch": context.epoch,
        "users": [
            {"user": user, "tag": context.layout.user_tag(user), "cursor": cursor or "0"} for user, cursor in users
        ],
        "idle_before": idle_before_ms,
        "limit": _DEVICES_A_CALL,
        "lease": lease,
        "token": token,
    }
    [rows] = await context.call("forget_devices", arg)
    return [
        DeviceSweep(user, "" if cursor == b"0" else cursor.decode(), seen, forgotten)
        for (user, _), (cursor, seen, forgotten) in zip(users, rows, strict=False)
    ]


async def empty_groups(context: Context, groups: Sequence[str], before_ms: int) -> list[str]:
    """See `Store.empty_groups`."""
    layout = context.layout
    commands: list[Command] = []
    for group in groups:
        stream = group_stream(group)
        commands.append(("HMGET", layout.group(group), "/members", "/emptied"))
        commands.append(("HGET", keys.key(layout.tag(stream), "h", stream), "head"))
    replies = await context.link.pipeline(commands, is_write=False) if commands else []
    found = []
    for group, settings, head in zip(groups, replies[0::2], replies[1::2], strict=True):
        if isinstance(settings, RedisError) or isinstance(head, RedisError):
            continue  # keys of another type: `audit` tells
        members, emptied = settings
        last_ms = max(_number((head or b"").partition(b"-")[0]), _number(emptied))
        if _number(members) == 0 and last_ms < before_ms:
            found.append(group)
    return found


def _number(raw: bytes | None) -> int:
    return int(raw) if raw and raw.isdigit() else 0


async def former_members(context: Context, group: str, cursor: str, count: int) -> tuple[list[str], str]:
    """See `Store.former_members`."""
    scan = ("HSCAN", context.layout.group(group), cursor or "0", "COUNT", count)
    after, fields = await context.link.call(*scan, is_write=False)
    users = [name.decode(errors="replace") for name in fields[0::2] if not name.startswith(b"/")]
    return users, "" if after == b"0" else after.decode()


async def drop_group(
    context: Context, group: str, users: Sequence[str], empty_before_ms: int, *, is_drop: bool, lease: str, token: str
) -> GroupStep:
    """See `Store.drop_group`."""
    arg = {
        "epoch": context.epoch,
        "group": group,
        "tag": context.layout.tag(group_stream(group)),
        "users": [{"user": user, "tag": context.layout.user_tag(user)} for user in users],
        "empty_before": empty_before_ms,
        "is_drop": is_drop,
        "lease": lease,
        "token": token,
    }
    status, looked, user = await context.call("drop_group", arg)
    return GroupStep(status.decode(), looked, user.decode())


async def audit_streams(
    context: Context, streams: Sequence[str], *, only_headless: bool, lease: str, token: str
) -> list[list[Audited]]:
    """See `Store.audit_streams`."""
    arg = {
        "epoch": context.epoch,
        "streams": [{"stream": stream, "tag": context.layout.tag(stream)} for stream in streams],
        "only_headless": only_headless,
        "lease": lease,
        "token": token,
    }
    [rows] = await context.call("audit_streams", arg)
    return [
        [Audited(kind.decode(), detail.decode(errors="replace"), count) for kind, detail, count in row] for row in rows
    ]


async def audit_nodes(
    context: Context, job: str, mailboxes: Sequence[str], silent_before_ms: int, *, lease: str, token: str
) -> tuple[list[str], list[str]]:
    """See `Store.audit_nodes`."""
    layout = context.layout
    arg = {
        "epoch": context.epoch,
        "tag": layout.tag(job),
        # A mailbox lies where the inbox of a user of the node's name would.
        "mailboxes": [keys.mailbox(layout.user_tag(name.rpartition(".")[0]), name) for name in mailboxes],
        "silent_before": silent_before_ms,
        "limit": _NODES_A_CALL,
        "lease": lease,
        "token": token,
    }
    deleted, silent = await context.call("audit_nodes", arg)
    return [raw.decode() for raw in deleted], [raw.decode() for raw in silent]
