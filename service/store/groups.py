"""Groups: joining, leaving, and who is a member."""

import asyncio
from typing import Any

from service.core.entries import Stretch
from service.core.names import group_stream
from service.errors import Uncertain
from service.store import decode
from service.store.clock import DRIFT_MS
from service.store.context import Context
from service.store.records import Late, Membership
from service.store.streams import NO_ORIGIN

_FORGET_CHUNK = 200  # members a call: bounds how long one call holds the server


def _arg(context: Context, user: str, group: str, mailbox: str, origin: tuple[int, int] | None) -> dict[str, object]:
    connection, send = origin or NO_ORIGIN
    return {
        "epoch": context.epoch,
        "user": user,
        "user_tag": context.layout.user_tag(user),
        "group": group,
        "group_tag": context.layout.tag(group_stream(group)),
        "mailbox": mailbox,
        "mailbox_cap": context.options.mailbox_cap,
        "connection": connection,
        "send": send,
        "announce": context.options.announce,
    }


def _membership(reply: list[Any]) -> Membership:
    identity, head, is_new, is_announced = reply
    return Membership(decode.entry_id(identity), decode.entry_id(head), is_new == 1, is_announced == 1)


async def _change(context: Context, name: str, arg: dict[str, object]) -> Membership:
    """Calls `name` so that it is carried out within `call_timeout_s` from now, or not at all.

    Refused as late although it was answered in time: the server's clock was set, or this process stood still. Nothing
    was written then, so it is asked once more, by the time that the refusal tells.
    """
    try:
        return await _timely(context, name, arg)
    except Late as refusal:
        context.clock.told(refusal.server_ms)
        return await _timely(context, name, arg)


async def _timely(context: Context, name: str, arg: dict[str, object]) -> Membership:
    time = asyncio.get_running_loop().time
    seconds = context.options.call_timeout_s
    end = time() + seconds + DRIFT_MS / 1000
    try:
        return _membership(await context.call(name, arg | context.clock.span(seconds)))
    except Uncertain as problem:
        if not problem.has_answered:
            problem.open_for_s = max(0.0, end - time())
        raise


async def join(
    context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None, by_key: bool
) -> Membership:
    """See `Store.join`."""
    arg = _arg(context, user, group, mailbox, origin) | {
        "streams_max": context.options.streams_max,
        "may_create": by_key or context.options.groups_create == "anyone",
        "may_join_closed": by_key,
    }
    return await _change(context, "join", arg)


async def leave(context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None) -> Membership:
    """See `Store.leave`."""
    return await _change(context, "leave", _arg(context, user, group, mailbox, origin))


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
    return bool(await context.link.call("EXISTS", context.layout.group(group), is_write=False))


async def is_member(context: Context, user: str, group: str) -> bool:
    """See `Store.is_member`. A membership record whose last stretch has no end is one of a member."""
    raw = await context.link.call("HGET", context.layout.group(group), user, is_write=False)
    return raw is not None and raw.endswith(b",")


async def stretches(context: Context, user: str, group: str) -> tuple[Stretch, ...]:
    """See `Store.stretches`."""
    return decode.stretches(await context.link.call("HGET", context.layout.group(group), user, is_write=False))
