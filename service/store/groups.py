"""Groups: making, configuring and deleting them; joining, leaving, and who is a member."""

import asyncio
from typing import Any

from service.core.entries import Stretch
from service.core.names import group_stream
from service.errors import Uncertain, WaypostError
from service.store import decode
from service.store.clock import DRIFT_MS
from service.store.context import Context
from service.store.records import GroupState, Late, Member, Membership, Role
from service.store.streams import NO_ORIGIN

_FORGET_CHUNK = 200  # members a call: bounds how long one call holds the server


def _arg(context: Context, group: str) -> dict[str, object]:
    return {
        "epoch": context.epoch,
        "group": group,
        "group_tag": context.layout.tag(group_stream(group)),
        "announce": context.options.announce,
    }


def _change_arg(
    context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None, by: str
) -> dict[str, object]:
    connection, send = origin or NO_ORIGIN
    return _arg(context, group) | {
        "user": user,
        "user_tag": context.layout.user_tag(user),
        "mailbox": mailbox,
        "mailbox_cap": context.options.mailbox_cap,
        "connection": connection,
        "send": send,
        "by": by,
    }


def _membership(reply: list[Any]) -> Membership:
    identity, head, is_new, is_announced = reply
    return Membership(decode.entry_id(identity), decode.entry_id(head), is_new == 1, is_announced == 1)


def _state(group: str, row: list[Any]) -> GroupState:
    is_open, announce, members, head, floor, role, since = row
    return GroupState(
        group,
        is_open == 1,
        announce,
        members,
        decode.entry_id(head),
        decode.entry_id(floor),
        decode.role(role),
        decode.entry_id(since) if since else None,
    )


async def _change(context: Context, name: str, arg: dict[str, object]) -> list[Any]:
    """Calls `name` so that it is carried out within `call_timeout_s` from now, or not at all.

    Refused as late although it was answered in time: the server's clock was set, or this process stood still. Nothing
    was written then, so it is asked once more, by the time that the refusal tells.
    """
    try:
        return await _timely(context, name, arg)
    except Late as refusal:
        context.clock.told(refusal.server_ms)
        return await _timely(context, name, arg)


async def _timely(context: Context, name: str, arg: dict[str, object]) -> list[Any]:
    time = asyncio.get_running_loop().time
    seconds = context.options.call_timeout_s
    end = time() + seconds + DRIFT_MS / 1000
    try:
        return await context.call(name, arg | context.clock.span(seconds))
    except Uncertain as problem:
        if not problem.has_answered:
            problem.open_for_s = max(0.0, end - time())
        raise


async def join(
    context: Context,
    user: str,
    group: str,
    *,
    mailbox: str,
    origin: tuple[int, int] | None,
    by: str,
    by_key: bool,
    may_enter: bool,
    role: Role | None,
) -> Membership:
    """See `Store.join`."""
    if role is not None and not by and not by_key:
        raise WaypostError("not_allowed")
    asker = "" if by_key or (by == user and role is None) else by
    arg = _change_arg(context, user, group, mailbox=mailbox, origin=origin, by=asker) | {
        "streams_max": context.options.streams_max,
        "members_max": context.options.members_max,
        "may_create": by_key or context.options.groups_create == "anyone",
        "may_enter": by_key or may_enter,
        "role": role or "",
    }
    return _membership(await _change(context, "join", arg))


async def leave(
    context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None, by: str, by_key: bool
) -> Membership:
    """See `Store.leave`."""
    asker = "" if by_key or by == user else by
    is_removed = by_key or asker != ""
    arg = _change_arg(context, user, group, mailbox=mailbox, origin=origin, by=asker) | {"is_removed": is_removed}
    try:
        return _membership(await _change(context, "leave", arg))
    except WaypostError as refusal:
        if by_key and refusal.code == "not_member":
            raise WaypostError("not_found", "not a member of this group") from refusal
        raise


async def configure_group(
    context: Context, group: str, *, is_open: bool | None, announce: int | None, by: str, by_key: bool
) -> tuple[GroupState, bool]:
    """See `Store.configure_group`."""
    asker = _asker(by, by_key=by_key)
    arg = _arg(context, group) | {
        "by": asker,
        "user_tag": context.layout.user_tag(asker) if asker else "",
        "may_create": by_key or context.options.groups_create == "anyone",
        "access": "" if is_open is None else "open" if is_open else "closed",
        "announce_to": -1 if announce is None else announce,
        "streams_max": context.options.streams_max,
    }
    row, is_new = await _change(context, "configure_group", arg)
    return _state(group, row), is_new == 1


async def delete_group(context: Context, group: str, *, by: str, by_key: bool) -> None:
    """See `Store.delete_group`."""
    await _change(context, "delete_group", _arg(context, group) | {"by": _asker(by, by_key=by_key)})


def _asker(by: str, *, by_key: bool) -> str:
    """Who has to be an owner, "" for a server key, which need not."""
    if not by and not by_key:
        raise WaypostError("not_allowed")
    return "" if by_key else by


async def group(context: Context, group: str, user: str | None) -> GroupState:
    """See `Store.group`."""
    [row] = await context.call("group", _arg(context, group) | {"user": user or ""}, is_write=False)
    return _state(group, row)


async def members(context: Context, group: str, cursor: str, count: int) -> tuple[list[Member], str]:
    """See `Store.members`."""
    scan = ("HSCAN", context.layout.group(group), decode.cursor(cursor), "COUNT", count)
    after, fields = await context.link.call(*scan, is_write=False)
    found = []
    for user, record in zip(fields[0::2], fields[1::2], strict=True):
        role, stretches = decode.role(record.partition(b"|")[0]), decode.stretches(record)
        if not user.startswith(b"/") and role is not None and stretches and stretches[-1].left is None:
            found.append(Member(user.decode(errors="replace"), role, stretches[-1].joined))
    return found, "" if after == b"0" else after.decode()


async def forget_members(context: Context, group: str, cursor: int, *, lease: str, token: str) -> int:
    """See `Store.forget_members`."""
    layout = context.layout
    scan = ("HSCAN", layout.group(group), cursor, "COUNT", _FORGET_CHUNK)
    following, found = await context.link.call(*scan, is_write=False)
    users = [
        user.decode()
        for user, record in zip(found[0::2], found[1::2], strict=True)
        if not user.startswith(b"/") and any(stretch.left for stretch in decode.stretches(record))
    ]
    for begin in range(0, len(users), _FORGET_CHUNK):  # a small hash comes whole, whatever is asked for
        arg = {
            "epoch": context.epoch,
            "group": group,
            "group_tag": layout.tag(group_stream(group)),
            "users": [
                {"user": user, "user_tag": layout.user_tag(user)} for user in users[begin : begin + _FORGET_CHUNK]
            ],
            "lease": lease,
            "token": token,
        }
        await context.call("forget", arg)
    return int(following)


async def group_exists(context: Context, group: str) -> bool:
    """See `Store.group_exists`."""
    name = context.layout.group(group)
    exists, access = await context.read([("EXISTS", name), ("HGET", name, "/access")])
    return bool(exists) and access != b"deleted"


async def is_member(context: Context, user: str, group: str) -> bool:
    """See `Store.is_member`. A membership record whose last stretch has no end is one of a member."""
    raw = await context.link.call("HGET", context.layout.group(group), user, is_write=False)
    return raw is not None and raw.endswith(b",")


async def stretches(context: Context, user: str, group: str) -> tuple[Stretch, ...]:
    """See `Store.stretches`."""
    return decode.stretches(await context.link.call("HGET", context.layout.group(group), user, is_write=False))
