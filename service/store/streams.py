"""Streams: publish, page, redact, and the register of mailboxes that want their entries."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

import msgspec
from redis.exceptions import RedisError

from service.core.entries import Durability, Page, Removal
from service.core.names import EntryId, group_of, parse_stream, user_stream
from service.store import decode
from service.store.context import Context, answer, command
from service.store.records import Attached, Outcome, Outgoing, Registration

_REFUSED = "bad_request"
NO_ORIGIN = (0, 0)  # as functions take it: connections and their sends are counted from 1

_Result: TypeAlias = tuple[str, int, int, int, int]  # status, the entry as the sender finds it, as the recipient does
_results = msgspec.msgpack.Decoder(list[_Result])


def _digest(*parts: str | bytes) -> str:
    """16 bytes in hex over parts that cannot run into each other (each is preceded by its length)."""
    state = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(len(raw).to_bytes(4, "big"))
        state.update(raw)
    return state.hexdigest()


def _message(context: Context, message: Outgoing) -> tuple[str | int, ...] | None:
    """A message as the function takes it; None when its body is no UTF-8 (msgpack strings are text)."""
    try:
        body = message.body.decode()
    except UnicodeDecodeError:
        return None
    tag = context.layout.tag
    own = user_stream(message.sender) if message.kind == "direct" else ""
    if own == message.to:
        own = ""
    connection, send = message.origin or NO_ORIGIN
    return (
        message.sender,
        message.to,
        tag(message.to),
        own,
        tag(own) if own else "",
        message.mid,
        body,
        message.device,
        connection,
        send,
        "" if message.key is None else _digest(message.to, message.sender, message.key),
        "" if message.key is None else _digest(message.body),
        message.trace,
        *((1,) if message.is_system else ()),
    )


def _rate(context: Context, batch: Sequence[Outgoing]) -> dict[str, object]:
    """What users may store, and where each sender's bucket is."""
    tag = context.layout.user_tag
    return {
        "per_s": context.options.user_sends_per_s,
        "burst": max(1, context.options.user_sends_burst),
        "tags": {message.sender: tag(message.sender) for message in batch if not message.is_system},
    }


async def publish(context: Context, batch: Sequence[Outgoing], mailbox: str) -> list[Outcome]:
    """See `Store.publish`."""
    messages = [_message(context, message) for message in batch]
    sent = [message for message in messages if message is not None]
    options = context.options
    durability = context.durability
    results: list[_Result] = []
    if sent:
        arg: dict[str, object] = {
            "epoch": context.epoch,
            "mailbox": mailbox,
            "mailbox_cap": options.mailbox_cap,
            "key_window": options.key_window_s,
            "messages": sent,
        }
        if options.user_sends_per_s > 0:
            arg["rate"] = _rate(context, batch)
        commands = [command("publish", arg)]
        wait_s = 0.0
        if options.wait_replicas:
            # WAIT speaks of the writes of its own connection, so it must follow on the same one.
            commands.append(("WAIT", options.wait_replicas, options.wait_timeout_ms))
            wait_s = options.wait_timeout_ms / 1000
        replies = await context.link.pipeline(commands, is_write=True, wait_s=wait_s)
        results = _results.decode(answer(replies[0])[0])
        # A call that wrote nothing (repeats only) has nothing that WAIT could have waited for.
        if (
            options.wait_replicas
            and not isinstance(replies[1], RedisError)
            and replies[1] >= options.wait_replicas
            and any(result[0] == "ok" for result in results)
        ):
            durability = "replicated"
    refused = Outcome(_REFUSED, None, None, is_duplicate=False, durability=durability)
    answers = iter(results)
    return [refused if message is None else _outcome(next(answers), durability) for message in messages]


def _outcome(result: _Result, durability: Durability) -> Outcome:
    status, ms, n, to_ms, to_n = result
    if status == "rate_limited":
        return Outcome(status, None, None, is_duplicate=False, durability=durability, retry_after=ms / 1000)
    if status in ("ok", "dup"):
        return Outcome(None, EntryId(ms, n), EntryId(to_ms, to_n), status == "dup", durability)
    return Outcome(status, None, None, is_duplicate=False, durability=durability)


async def page(
    context: Context, stream: str, after: EntryId, users: Sequence[str], *, max_entries: int, max_bytes: int
) -> Page:
    """See `Store.page`."""
    is_group = group_of(stream) is not None
    arg = {
        "epoch": context.epoch,
        "tag": context.layout.tag(stream),
        "stream": stream,
        "after": str(after),
        "users": list(users) if is_group else [],
        "max_entries": max_entries,
        "max_bytes": max_bytes,
    }
    reply = await context.call("page", arg, is_write=False)
    head, floor, before, entries, is_last, redactions, ledger, members = reply
    tombstones = (decode.redaction(raw) for raw in redactions)
    removals: list[Removal] = [line for line in map(decode.removal, ledger) if line is not None]
    return Page(
        stream=stream,
        after=after,
        head=decode.entry_id(head),
        floor=decode.entry_id(floor),
        before=decode.entry_id(before) if before else None,
        entries=tuple(decode.entry(raw, fields, stream) for raw, fields in entries),
        is_last=is_last == 1,
        redactions={tombstone.id.n: tombstone for tombstone in tombstones if tombstone is not None},
        removals=tuple(removals),
        stretches=(
            {user: decode.stretches(raw) for user, raw in zip(users, members, strict=True)} if is_group else None
        ),
    )


async def redact(context: Context, stream: str, entry: EntryId, by: str, *, only_sender: bool) -> EntryId | None:
    """See `Store.redact`. The function names the other inbox by what the entry says, read here beforehand."""
    layout = context.layout
    other = ""
    if parse_stream(stream)[0] == "user":
        found = await context.link.call("XRANGE", layout.stream(stream), str(entry), str(entry), is_write=False)
        if found:
            read = decode.entry(found[0][0], found[0][1], stream)
            other = read.to if read.to != stream else user_stream(read.sender)
    if other == stream or not other.startswith("user:"):
        other = ""
    arg = {
        "epoch": context.epoch,
        "tag": layout.tag(stream),
        "stream": stream,
        "id": str(entry),
        "by": by,
        "only_sender": only_sender,
        "other": other,
        "other_tag": layout.tag(other) if other else "",
        "mailbox_cap": context.options.mailbox_cap,
    }
    raw, is_new = await context.call("redact", arg)
    return decode.entry_id(raw) if is_new else None


def _wants(context: Context, wants: Sequence[Registration]) -> list[dict[str, object]]:
    tag = context.layout.tag
    return [{"tag": tag(want.stream), "stream": want.stream, "token": want.token} for want in wants]


async def attach(context: Context, mailbox: str, wants: Sequence[Registration]) -> dict[str, Attached]:
    """See `Store.attach`."""
    if not wants:
        return {}
    arg = {"epoch": context.epoch, "mailbox": mailbox, "wants": _wants(context, wants)}
    [rows] = await context.call("attach", arg)
    return {
        want.stream: Attached(decode.entry_id(row[0]), decode.entry_id(row[1]))
        for want, row in zip(wants, rows, strict=True)
        if row
    }


async def detach(context: Context, mailbox: str, wants: Sequence[Registration]) -> None:
    """See `Store.detach`."""
    if wants:
        await context.call("detach", {"epoch": context.epoch, "mailbox": mailbox, "wants": _wants(context, wants)})
