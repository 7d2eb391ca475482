"""The nodes, and what each said of itself."""

import msgspec

from service.inspection.times import age_s, when
from service.store import Store


class NodeView(msgspec.Struct, frozen=True):
    """A node: when it was last heard, and what it said then (null or empty where it said nothing).

    `is_silent`: its facts have expired, so it is gone or stuck. `behind`: connection and stream, where it reads pages.
    `position` is the last number that it read of its mailbox; `lag_entries` and `lag_s` how much lay before its last
    beat there, and how long that took to come back. `load` is the share of a core that it used since the beat before;
    `memory_bytes` what it has in memory. `facts` is all of it as it was said.
    """

    node: str
    last_seen: str
    silent_s: float
    is_silent: bool
    version: str
    started: str | None
    uptime_s: float | None
    connections: int | None
    streams: int | None
    behind: int | None
    mailbox: str
    position: int | None
    lag_entries: int | None
    lag_s: float | None
    load: float | None
    memory_bytes: int | None
    facts: dict[str, str]


class Nodes(msgspec.Struct, frozen=True):
    """The nodes on the list, those included that have been silent for a while."""

    as_of: str
    nodes: tuple[NodeView, ...]


async def nodes(store: Store) -> Nodes:
    """All nodes, by name."""
    found = await store.node_facts()
    now_ms = await store.now_ms()
    return Nodes(when(now_ms), tuple(_view(one.node, one.last_seen, one.facts, now_ms) for one in found))


def _view(node: str, seen_ms: int, facts: dict[str, str], now_ms: int) -> NodeView:
    uptime_s = _number(facts.get("uptime_s"))
    return NodeView(
        node=node,
        last_seen=when(seen_ms),
        silent_s=age_s(seen_ms, now_ms),
        is_silent=not facts,
        version=facts.get("version", ""),
        started=None if uptime_s is None else when(seen_ms - uptime_s * 1000),
        uptime_s=None if uptime_s is None else uptime_s + age_s(seen_ms, now_ms),
        connections=_count(facts.get("connections")),
        streams=_count(facts.get("streams")),
        behind=_count(facts.get("behind")),
        mailbox=facts.get("mailbox", ""),
        position=_count(facts.get("position")),
        lag_entries=_count(facts.get("lag_entries")),
        lag_s=_number(facts.get("lag_s")),
        load=_number(facts.get("load")),
        memory_bytes=_count(facts.get("memory_bytes")),
        facts=facts,
    )


def _number(text: str | None) -> float | None:
    """What a node of another release said may be anything."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None
