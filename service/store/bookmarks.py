"""Bases of bookmarks, as they are kept for a device."""

from collections.abc import Sequence

from service.core.bookmarks import Base, Mangled, decode_base
from service.store.context import Context

# Of a device: as many pages and tabs of one browser may come back to where they were.
KEPT_MAX = 64
ORDER = "/order"  # the field that lists the others, oldest first; no name has a slash


async def keep(
    context: Context, user: str, device: str, base: Base, *, origin: str, forget: Sequence[str], keep_s: float
) -> None:
    """See `Store.keep_base`."""
    arg = {
        "epoch": base.epoch,
        "user": user,
        "tag": context.layout.user_tag(user),
        "device": device,
        "name": base.name,
        "origin": origin,
        "base": base.encode(),
        "forget": list(forget),
        "ttl_ms": max(1, int(keep_s * 1000)),
        "kept_max": KEPT_MAX,
    }
    await context.call("keep_bookmark", arg)


async def find(context: Context, user: str, device: str, name: str) -> tuple[Base | None, str]:
    """See `Store.find_base`."""
    kept, order = await context.link.call("HMGET", context.layout.bases(user, device), name, ORDER, is_write=False)
    try:
        base = None if kept is None else decode_base(name, kept)
    except Mangled:
        base = None
    return base, (order or b"").decode(errors="replace")
