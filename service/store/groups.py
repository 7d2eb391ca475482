"""Groups: joining, leaving, and who is a member."""

from typing import Any

from service.core.entries import Stretch
from service.core.names import group_stream
from service.store import decode
from service.store.context import Context
from service.store.records import Membership
from service.store.streams import origin_text


def _arg(context: Context, user: str, group: str, mailbox: str, origin: tuple[int, int] | None) -> dict[str, object]:
    return {
        "epoch": context.epoch,
        "user": user,
        "user_tag": context.layout.user_tag(user),
        "group": group,
        "group_tag": context.layout.tag(group_stream(group)),
        "mailbox": mailbox,
        "mailbox_cap": context.options.mailbox_cap,
        "origin": origin_text(origin),
        "announce": context.options.announce,
    }


def _membership(reply: list[Any]) -> Membership:
    identity, head, is_new, is_announced = reply
    return Membership(decode.entry_id(identity), decode.entry_id(head), is_new == 1, is_announced == 1)


async def join(
    context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None, by_key: bool
) -> Membership:
    """See `Store.join`."""
    arg = _arg(context, user, group, mailbox, origin) | {
        "streams_max": context.options.streams_max,
        "may_create": by_key or context.options.groups_create == "anyone",
        "may_join_closed": by_key,
    }
    return _membership(await context.call("join", arg))


async def leave(context: Context, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None) -> Membership:
    """See `Store.leave`."""
    return _membership(await context.call("leave", _arg(context, user, group, mailbox, origin)))


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
