"""The entries of a stream as operators see them: bodies masked unless they ask, and what is gone said where it was."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from service.core.anchors import parse_anchor
from service.core.entries import Entry, Redaction, Removal
from service.core.names import PART_MAX, EntryId, parse_stream
from service.errors import WaypostError
from service.inspection.times import age_s, when
from service.store import Store

LIMIT_MAX = 1000  # entries of one answer
SCAN_BUDGET = 5000  # entries that are looked at for those from one user: 25 short reads
_STEP = 200
LEDGER_LINES = 20


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry. `body` is null unless it was asked for; `body_bytes` is how long it is, null where there is none.
    `target` is what a `redacted` entry took away. Of a message that was redacted, `redacted_by` and `redacted_at` say
    who and when.
    """

    id: str
    at: str
    age_s: float
    type: str
    sender: str
    to: str
    mid: str
    device: str
    target: str = ""
    trace: str = ""
    body_bytes: int | None = None
    body: Raw | None = None
    redacted_by: str | None = None
    redacted_at: str | None = None


class LedgerLine(msgspec.Struct, frozen=True):
    """What lay above `after` up to `to` is gone: how many, why (`trimmed` or `lost`), and by which limit of which
    policy.
    """

    after: str
    to: str
    count: int
    kind: str
    policy: str
    limit: str
    at: str
    age_s: float
    run: str


class Entries(msgspec.Struct, frozen=True):
    """Some entries of a stream, oldest first. `looked_at` entries were looked at of `entries` that there are; with a
    filter by sender there may be more matches beyond: `is_whole` is false then.
    """

    stream: str
    as_of: str
    entries: tuple[EntryView, ...]
    looked_at: int
    of: int
    is_whole: bool


async def entries(
    store: Store,
    stream: str,
    *,
    after: str | None = None,
    before: str | None = None,
    limit: int,
    sender: str = "",
    bodies: bool = False,
) -> Entries:
    """The newest entries, those after an id or a time, or those before. Raises `bad_stream`, `bad_name`, `bad_anchor`,
    `bad_request`, and `no_group`.
    """
    parse_stream(stream)
    facts = await store.stream_facts(stream)
    above = None if after is None else _place(after, is_after=True)
    below = None if before is None else _place(before, is_after=False)
    newest = after is None or before is not None
    found: list[Entry] = []
    looked_at, is_whole = 0, True
    while len(found) < limit:
        step = min(_STEP, limit) if not sender else _STEP
        some = await store.entries(stream, above=above, below=below, limit=step, newest=newest)
        looked_at += len(some)
        wanted = [entry for entry in some if not sender or entry.sender == sender]
        if newest:
            found = [*wanted, *found]
            below = some[0].id if some else below
        else:
            found += wanted
            above = some[-1].id if some else above
        if len(some) < step:
            break
        if looked_at >= SCAN_BUDGET and sender:
            is_whole = False
            break
    found = found[-limit:] if newest else found[:limit]
    now_ms = await store.now_ms()
    gone = await _redactions(store, stream, found, is_filtered=bool(sender))
    views = {entry.id: view(entry, now_ms, bodies=bodies) for entry in found}
    views |= {one.id: _tombstone(one, now_ms) for one in gone}
    in_order = tuple(views[one] for one in sorted(views))
    return Entries(stream, when(now_ms), in_order, looked_at, facts.entries, is_whole)


def _place(text: str, *, is_after: bool) -> EntryId:
    """Where an id or a time lies. A number alone lies nowhere without a search."""
    anchor = parse_anchor(text, None, None) if is_after else parse_anchor(None, text, None)
    if isinstance(anchor.at, EntryId):
        return anchor.at
    by, at = anchor.split
    if by != "ms" or isinstance(at, EntryId):
        raise WaypostError("bad_anchor", "say an entry id, <ms>-<n>, or a time, 2026-01-31T09:15:00Z")
    return EntryId(at, PART_MAX) if is_after else EntryId(at + 1, 0)


async def _redactions(store: Store, stream: str, found: Sequence[Entry], *, is_filtered: bool) -> list[Redaction]:
    """The messages between those found whose bodies were taken away: their numbers are missing."""
    if len(found) < 2 or is_filtered:
        return []
    there = {entry.id.n for entry in found}
    first, last = found[0].id.n, found[-1].id.n
    missing = [n for n in range(max(first, last - 2 * LIMIT_MAX), last) if n not in there]
    return await store.redactions(stream, missing)


def view(entry: Entry, now_ms: int, *, bodies: bool) -> EntryView:
    """An entry as it is told."""
    return EntryView(
        id=str(entry.id),
        at=when(entry.id.ms),
        age_s=age_s(entry.id.ms, now_ms),
        type=entry.type,
        sender=entry.sender,
        to=entry.to,
        mid=entry.mid,
        device=entry.device,
        target=entry.target,
        trace=entry.trace,
        body_bytes=None if entry.body is None else len(entry.body),
        body=Raw(entry.body) if bodies and entry.body is not None else None,
    )


def _tombstone(one: Redaction, now_ms: int) -> EntryView:
    return EntryView(
        id=str(one.id),
        at=when(one.id.ms),
        age_s=age_s(one.id.ms, now_ms),
        type="message",
        sender=one.sender,
        to=one.to,
        mid=one.mid,
        device="",
        redacted_by=one.by,
        redacted_at=when(one.at),
    )


async def ledger(store: Store, stream: str, limit: int = LEDGER_LINES) -> tuple[LedgerLine, ...]:
    """The last removals from a stream, newest first."""
    found = await store.ledger(stream, limit)
    now_ms = await store.now_ms()
    return tuple(ledger_line(line, now_ms) for line in found)


def ledger_line(line: Removal, now_ms: int) -> LedgerLine:
    """A removal as it is told."""
    return LedgerLine(
        str(line.after),
        str(line.to),
        line.count,
        line.kind,
        line.policy,
        line.limit,
        when(line.at),
        age_s(line.at, now_ms),
        line.run,
    )
