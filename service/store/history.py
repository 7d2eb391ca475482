"""Looking into the history of a stream: one call, all of one moment."""

from service.core.entries import Entry
from service.core.history import Past, Question
from service.core.names import EntryId, group_of, parse_stream
from service.store import decode
from service.store.context import Context


async def history(context: Context, user: str | None, question: Question, *, max_bytes: int, looked_max: int) -> Past:
    """See `Store.history`."""
    is_whole = user is None
    if user is None:
        kind, name = parse_stream(question.stream)
        user = name if kind == "user" else ""
    anchor, stream = question.anchor, question.stream
    by, at = anchor.split
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(stream),
        "stream": stream,
        "user": user,
        "by": by,
        "at": str(at) if isinstance(at, EntryId) else at,
        "check": str(anchor.at) if isinstance(anchor.at, EntryId) else "",
        "back": question.back,
        "most": question.limit,
        "is_forward": question.is_forward,
        "max_bytes": max_bytes,
        "partner": question.partner,
        "looked_max": looked_max,
    }
    reply = await context.call("history", arg, is_write=False)
    now, head, floor, split, neighbours, entries, low, high, redactions, ledger, record = reply
    before, after, redacted = neighbours or (None, None, None)
    tombstones = (decode.redaction(raw) for raw in (*redactions, *filter(None, [redacted])))
    removals = (decode.removal(raw) for raw in ledger)
    return Past(
        now=now,
        head=decode.entry_id(head),
        floor=decode.entry_id(floor),
        split=decode.entry_id(split),
        before=decode.entry_id(before) if before else None,
        after=decode.entry_id(after) if after else None,
        entries=tuple(
            decode.entry(raw, fields, stream) if fields else Entry(decode.entry_id(raw), "", "", "")
            for raw, fields in entries
        ),
        low=decode.entry_id(low) if low else None,
        high=decode.entry_id(high) if high else None,
        redactions={tombstone.id.n: tombstone for tombstone in tombstones if tombstone is not None},
        removals=tuple(line for line in removals if line is not None),
        stretches=decode.stretches(record) if group_of(stream) is not None and not is_whole else None,
    )
