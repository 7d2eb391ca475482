"""Server keys as they are kept, and the notices by which every node hears at once of what is no longer allowed."""

import msgspec
from redis.exceptions import RedisError

from service.core.server_keys import Scope, ServerKey
from service.store import decode, keys
from service.store.connection import reply_error
from service.store.context import Context
from service.store.records import Notice

NOTICES_KEPT = 1000  # a node reads each within a moment; one that stood still for longer asks about each key anew


class _Kept(msgspec.Struct):
    """The value of a key in `wp:keys`."""

    name: str
    scopes: list[Scope]
    digest: str
    created: int


_kept = msgspec.json.Decoder(_Kept)


def _key(key_id: str, raw: bytes) -> ServerKey | None:
    """None for one that cannot be read: it lets nobody in."""
    try:
        kept = _kept.decode(raw)
    except msgspec.DecodeError:
        return None
    return ServerKey(
        id=key_id, name=kept.name, scopes=frozenset(kept.scopes), digest=kept.digest, created_at=kept.created
    )


async def add_key(context: Context, key: ServerKey) -> None:
    """See `Store.add_key`."""
    kept = _Kept(key.name, sorted(key.scopes), key.digest, key.created_at)
    await context.link.call("HSET", keys.SERVER_KEYS, key.id, msgspec.json.encode(kept), is_write=True)


async def find_key(context: Context, key_id: str) -> ServerKey | None:
    """See `Store.find_key`."""
    raw = await context.link.call("HGET", keys.SERVER_KEYS, key_id, is_write=False)
    return None if raw is None else _key(key_id, raw)


async def all_keys(context: Context) -> list[ServerKey]:
    """See `Store.keys`."""
    fields = await context.link.call("HGETALL", keys.SERVER_KEYS, is_write=False)
    found = (_key(name.decode(), raw) for name, raw in zip(fields[0::2], fields[1::2], strict=True))
    return sorted((key for key in found if key is not None), key=lambda key: (key.created_at, key.id))


async def revoke_key(context: Context, key_id: str) -> bool:
    """See `Store.revoke_key`."""
    return await _tell(context, Notice("key_revoked", key=key_id), revoke=key_id)


async def tell_nodes(context: Context, notice: Notice) -> None:
    """See `Store.tell_nodes`."""
    await _tell(context, notice)


async def _tell(context: Context, notice: Notice, *, revoke: str = "") -> bool:
    fields = {name: value for name, value in msgspec.structs.asdict(notice).items() if value}
    [told] = await context.call("tell_nodes", {"fields": fields, "revoke": revoke, "cap": NOTICES_KEPT})
    return bool(told)


async def last_notice(context: Context) -> str:
    """See `Store.last_notice`."""
    [reply] = await context.link.pipeline([("XINFO", "STREAM", keys.NOTICES)], is_write=False)
    if isinstance(reply, RedisError):
        if "no such key" in str(reply):
            return "0-0"
        raise reply_error(reply, is_write=False) from reply
    return str(decode.entry_id(dict(zip(reply[0::2], reply[1::2], strict=True))[b"last-generated-id"]))
