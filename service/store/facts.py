"""Looks at nodes and streams as they are, for administrators. Plain reads: a full or fenced store answers them too."""

from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from service.core.names import ALL, ZERO, EntryId, group_of
from service.errors import WaypostError
from service.store import decode, keys
from service.store.connection import Command, Reply, reply_error
from service.store.context import Context
from service.store.keys import Layout
from service.store.records import NodeFacts, StreamFacts

_SAMPLES = 5  # of a stream's inner nodes, by which the server reckons how much memory all of them take
_SCANS_MAX = 20  # steps of one page: names of one kind may lie far apart, and a page is to be short


async def node_facts(context: Context) -> list[NodeFacts]:
    """See `Store.node_facts`."""
    listed = await context.link.call("ZRANGE", keys.NODES, 0, -1, "WITHSCORES", is_write=False)
    seen = {name.decode(): int(float(score)) for name, score in zip(listed[0::2], listed[1::2], strict=True)}
    nodes = sorted(seen)
    rows = await context.read([("HGETALL", keys.node(node)) for node in nodes]) if nodes else []
    return [NodeFacts(node, seen[node], _facts(row)) for node, row in zip(nodes, rows, strict=True)]


def _facts(fields: list[bytes]) -> dict[str, str]:
    texts = [raw.decode(errors="replace") for raw in fields]
    return dict(zip(texts[0::2], texts[1::2], strict=True))


async def memory(context: Context) -> tuple[int, int]:
    """See `Store.memory`."""
    info = decode.server_info(await context.link.call("INFO", "memory", is_write=False))
    return int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))


async def stream_facts(context: Context, stream: str) -> StreamFacts:
    """See `Store.stream_facts`."""
    return told(stream, await context.link.pipeline(reads(context.layout, stream), is_write=False))


def reads(layout: Layout, stream: str) -> list[Command]:
    """The commands whose replies `told` reads."""
    name, group = layout.stream(stream), group_of(stream)
    # No transaction: a full store refuses those. The state comes last, so that nothing is above the head.
    commands: list[Command] = [
        ("XLEN", name),
        ("XRANGE", name, "-", "+", "COUNT", 1),
        ("XREVRANGE", name, "+", "-", "COUNT", 1),
        ("MEMORY", "USAGE", name, "SAMPLES", _SAMPLES),
        ("XINFO", "STREAM", name),
        ("HGETALL", keys.key(layout.tag(stream), "h", stream)),
    ]
    if group is not None:
        commands += [("EXISTS", layout.group(group)), ("HGET", layout.group(group), "/members")]
    return commands


def told(stream: str, replies: Sequence[Reply]) -> StreamFacts:
    """What the replies say of a stream. Raises `no_group`, and what an error among them stands for."""
    length, first, last, size, info, state, *rest = replies
    for reply in (length, first, last, state, *rest):
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=False) from reply
    if rest and not rest[0]:
        raise WaypostError("no_group")
    fields = dict(zip(state[0::2], state[1::2], strict=True))
    return StreamFacts(
        stream=stream,
        head=decode.entry_id(fields[b"head"]) if b"head" in fields else _last_given(info),
        floor=decode.entry_id(fields.get(b"floor", b"0-0")),
        entries=length,
        bytes=size if isinstance(size, int) else 0,
        oldest=decode.entry_id(first[0][0]) if first else None,
        newest=decode.entry_id(last[0][0]) if last else None,
        members=int(rest[1] or 0) if rest else None,
        nodes=nodes_in(fields),
    )


def nodes_in(fields: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """The nodes on a register, which is in the state of its stream."""
    return tuple(sorted({_node_of(field) for field in fields if field.startswith(b"wp:")}))


def _last_given(info: Reply) -> EntryId:
    """Stands in for a head that is missing, as it does in the functions. The server has an error for no stream."""
    if isinstance(info, RedisError):
        return ZERO
    return decode.entry_id(dict(zip(info[0::2], info[1::2], strict=True))[b"last-generated-id"])


def _node_of(mailbox: bytes) -> str:
    return keys.name_in(mailbox).rpartition(".")[0]


async def streams_page(context: Context, cursor: str, count: int, kind: str, part: str = "") -> tuple[list[str], str]:
    """See `Store.streams_page`. A cursor carries the run of its server: to another, it would skip names in silence."""
    at, _, run = cursor.partition("@")
    position = decode.cursor(at)
    if kind == ALL:
        there = await context.link.call("EXISTS", keys.key(context.layout.tag(ALL), "h", ALL), is_write=False)
        return [ALL] if there and not cursor and part in ALL else [], ""
    server = decode.server_info(await context.link.call("INFO", "server", is_write=False))["run_id"]
    if cursor and run != server:
        raise WaypostError("bad_request", "the store is on another server since this cursor was given out: begin again")
    pattern = keys.every("h", kind, part)
    found: dict[str, None] = {}
    for _ in range(_SCANS_MAX):
        scan = ("SCAN", position, "MATCH", pattern, "COUNT", count)
        after, names = await context.link.call(*scan, is_write=False)
        found |= dict.fromkeys(map(keys.name_in, names))
        position = int(after)
        if position == 0 or len(found) >= count:
            break
    return list(found), f"{position}@{server}" if position else ""
