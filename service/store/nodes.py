"""Nodes: the server they work on, the fence, who is alive, and their mailboxes."""

import secrets
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from service.core.names import EntryId
from service.errors import Reset
from service.store import decode, functions, keys
from service.store.connection import Command, reply_error
from service.store.context import Context
from service.store.records import FenceState, StoreRefused

SCHEMA = 1  # what this release reads and writes
OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
_RECONCILE_CHUNK = 500  # streams a call: bounds how long one call holds the server
_RECONCILE_WAIT_MS = 2000  # how long a partition waits for nodes that are listed but do not come


async def check_server(context: Context) -> None:
    """See `Store.check_server`."""
    configs = ("maxmemory-policy", "appendonly", "appendfsync", "no-appendfsync-on-rewrite")
    replies = await context.link.pipeline(
        [("INFO", "server"), *(("CONFIG", "GET", name) for name in configs)], is_write=False
    )
    if isinstance(replies[0], RedisError):
        raise reply_error(replies[0], is_write=False) from replies[0]
    # CONFIG is refused by many hosted servers; what cannot be read is taken as the weaker promise.
    policy, appendonly, appendfsync, pauses_in_rewrite = (
        "" if isinstance(reply, RedisError) or not reply else reply[1].decode() for reply in replies[1:]
    )
    info = decode.server_info(replies[0])
    _check_version(info)
    _look_at_the_clock(context, info)
    if policy not in ("", "noeviction"):
        raise StoreRefused(f"maxmemory-policy is {policy}: the server would throw away messages; set it to noeviction")
    is_fsynced = appendonly == "yes" and appendfsync == "always" and pauses_in_rewrite == "no"
    context.durability = "fsynced" if is_fsynced else "memory"
    await fence_state(context)
    absent = await functions.missing(context.link)
    if absent:
        raise Reset(f"functions are missing on the server ({', '.join(absent)}): run `waypost migrate up`")


def _look_at_the_clock(context: Context, info: Mapping[str, str]) -> None:
    """Every look at the server tells its time too: at each opening of the fence, and every few beats."""
    context.clock.told(int(info["server_time_usec"]) // 1000)


def _check_version(info: Mapping[str, str]) -> None:
    product = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{product}_version", "0.0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST[product]:
        oldest = ".".join(map(str, OLDEST[product]))
        raise StoreRefused(f"the server is {product} {version}; Waypost needs {oldest} or newer")


async def fence_state(context: Context) -> FenceState:
    """See `Store.fence_state`. Also takes over the number of partitions, and checks the schema."""
    [meta] = await context.read([("HMGET", keys.META, "schema", "partitions")])
    if None in meta:
        raise Reset("the store was emptied or never migrated: run `waypost migrate up`")
    schema, partitions = int(meta[0]), int(meta[1])
    if schema != SCHEMA:
        hint = "run `waypost migrate up`" if schema < SCHEMA else "start a newer release of Waypost"
        raise StoreRefused(f"the store has schema {schema}, this release needs {SCHEMA}: {hint}")
    context.set_partitions(partitions)
    commands: list[Command] = [("HMGET", keys.epoch(tag), "epoch", "run") for tag in context.layout.tags]
    *fences, info = await context.read([*commands, ("INFO", "server")])
    epochs = {fence[0] for fence in fences}
    if None in epochs or len(epochs) != 1:
        raise Reset("the partitions do not agree on an epoch: run `waypost migrate up`")
    server = decode.server_info(info)
    _look_at_the_clock(context, server)
    server_run = server["run_id"]
    runs = {(fence[1] or b"").decode() for fence in fences}
    others = sorted(runs - {server_run})
    context.epoch = epochs.pop().decode()
    context.run = server_run
    return FenceState(context.epoch, others[0] if others else server_run, server_run, is_open=not others)


async def ping(context: Context) -> None:
    """See `Store.ping`."""
    await context.link.call("PING", is_write=False)


async def create_mailbox(context: Context, node: str) -> str:
    """See `Store.create_mailbox`."""
    mailbox = keys.mailbox(context.layout.user_tag(node), f"{node}.{secrets.token_hex(8)}")
    await context.call("mailbox", {"mailbox": mailbox, "ttl_ms": int(context.options.mailbox_ttl_s * 1000)})
    return mailbox


async def drop_mailbox(context: Context, mailbox: str) -> None:
    """See `Store.drop_mailbox`."""
    await context.link.call("DEL", mailbox, is_write=True)


async def heartbeat(context: Context, node: str, facts: Mapping[str, str]) -> list[str]:
    """See `Store.heartbeat`."""
    arg = {"node": node, "ttl_ms": int(context.options.mailbox_ttl_s * 1000), "facts": dict(facts)}
    [live] = await context.call("heartbeat", arg)
    return sorted(raw.decode() for raw in live)


async def nodes(context: Context) -> list[str]:
    """See `Store.nodes`."""
    return sorted(raw.decode() for raw in await context.link.call("ZRANGE", keys.NODES, 0, -1, is_write=False))


async def forget_node(context: Context, node: str) -> None:
    """See `Store.forget_node`."""
    for reply in await context.link.pipeline([("ZREM", keys.NODES, node), ("DEL", keys.node(node))], is_write=True):
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=True) from reply


async def reconcile(
    context: Context, node: str, live: Sequence[str], heads: Mapping[str, EntryId], *, is_late: bool
) -> bool:
    """See `Store.reconcile`."""
    layout = context.layout
    by_tag: dict[str, list[dict[str, str]]] = {tag: [] for tag in layout.tags}
    for stream, head in heads.items():
        by_tag[layout.tag(stream)].append({"stream": stream, "id": str(head)})
    # Every partition is told, also after one that still waits.
    states = [
        await _reconcile_partition(context, node, live, tag, streams, is_late=is_late)
        for tag, streams in by_tag.items()
    ]
    return all(states)


async def _reconcile_partition(
    context: Context, node: str, live: Sequence[str], tag: str, streams: Sequence[dict[str, str]], *, is_late: bool
) -> bool:
    is_open = False
    for begin in range(0, max(len(streams), 1), _RECONCILE_CHUNK):
        arg = {
            "epoch": context.epoch,
            "tag": tag,
            "node": node,
            "live": list(live),
            "final": begin + _RECONCILE_CHUNK >= len(streams),
            "wait_ms": _RECONCILE_WAIT_MS,
            "is_late": is_late,
            "streams": list(streams[begin : begin + _RECONCILE_CHUNK]),
        }
        [state] = await context.call("reconcile", arg)
        is_open = state == b"open"
    return is_open
