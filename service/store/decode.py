"""From raw replies to records. What cannot be read never raises: the numbers of a stream must go on."""

from typing import TypeAlias

import msgspec

from service.core.entries import Arrival, Entry, Redaction, Removal, Stretch
from service.core.frames import one_line
from service.core.names import EntryId, parse_id
from service.errors import WaypostError
from service.store.records import Beat, Notice, Role

UNKNOWN = "unknown"  # the type of an entry that stands in its stream but cannot be read

CURSOR_DIGITS = 19  # of a scan; the server refuses what does not fit into 64 bits

# Fields that no client is shown: the number of another person's inbox, the sending device, the trace.
_HIDDEN = frozenset({b"r", b"d", b"p"})

Fields: TypeAlias = list[bytes]


def entry_id(raw: bytes) -> EntryId:
    """An id as the server or a function answers it."""
    ms, _, n = raw.partition(b"-")
    return EntryId(int(ms), int(n))


def role(raw: bytes) -> Role | None:
    """The role in a membership record, None for what is none."""
    return "owner" if raw == b"owner" else "member" if raw == b"member" else None


def cursor(text: str) -> int:
    """The cursor of a scan, as it was answered or "" to begin. Raises `bad_request` for anything else."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS):
        raise WaypostError("bad_request", "not a cursor that was given out")
    return int(text)


def server_info(raw: bytes) -> dict[str, str]:
    """What INFO answers, by name."""
    lines = (line.partition(":") for line in raw.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def entry(raw_id: bytes, fields: Fields, stream: str) -> Entry:
    """An entry of `stream`. One that cannot be read gets type `unknown`, with what is readable in `extra`."""
    identity = entry_id(raw_id)
    parts = iter(fields)
    values = dict(zip(parts, parts, strict=True))
    try:
        return _entry(identity, values)
    except (KeyError, ValueError, RecursionError, WaypostError):
        readable = {_readable(name): _readable(value) for name, value in values.items() if name not in _HIDDEN}
        return Entry(identity, UNKNOWN, readable.get("f", ""), stream, extra=readable)


class _Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record of a mailbox entry, as `_post.lua` writes it. Without a type: like the record before it."""

    stream: str
    ms: int
    n: int
    connection: int
    send: int
    type: str = ""
    sender: str = ""
    to: str = ""
    mid: str = ""
    body: str = ""
    target: str = ""
    trace: str = ""
    by_reference: int = 0


_records = msgspec.msgpack.Decoder(list[_Record])


def received(fields: Fields) -> list[Arrival] | Beat | None:
    """What an entry of a mailbox brings; None when it cannot be read: it then counts as lost."""
    try:
        name, value = fields
        if name == b"beat":
            return Beat(int(value))
        return _arrivals(_records.decode(value)) if name == b"r" else None
    except (ValueError, RecursionError, WaypostError):
        return None


def _arrivals(records: list[_Record]) -> list[Arrival]:
    """Raises ValueError (bad JSON, or nothing that a record could be like) or WaypostError for a broken one."""
    arrivals = []
    common, body = None, None
    for record in records:
        if record.type:
            common, body = record, _checked_body(record)
        elif common is None:
            raise ValueError("like the record before it, and there is none")
        entry = Entry(
            EntryId(record.ms, record.n),
            common.type,
            common.sender,
            common.to,
            common.mid,
            body,
            "",
            common.target,
            common.trace,
        )
        origin = (record.connection, record.send) if record.connection else None
        arrivals.append(Arrival(record.stream, entry, origin, common.by_reference == 1))
    return arrivals


def _checked_body(record: _Record) -> bytes | None:
    if record.type == "redacted":
        parse_id(record.target)
    if record.body:
        return _as_body(record.body.encode())
    if record.type == "message" and not record.by_reference:
        raise ValueError("a message without a body")
    return None


def _as_body(raw: bytes) -> bytes:
    """A body goes into frames as it is: one that is not JSON, or has line breaks, would break every frame it shares."""
    _json.decode(raw)
    return one_line(raw)


_json = msgspec.json.Decoder(msgspec.Raw)


def _entry(identity: EntryId, values: dict[bytes, bytes]) -> Entry:
    """Consumes `values`. Raises KeyError, ValueError (bad UTF-8, bad JSON) or WaypostError for a broken one."""
    kind = values.pop(b"t").decode()
    body = values.pop(b"b", None)
    if body is not None:
        body.decode()
        body = _as_body(body)
    elif kind == "message":
        raise KeyError("b")
    target = values.pop(b"x", b"").decode()
    if kind == "redacted":
        parse_id(target)
    values.pop(b"r", None)  # the number of another person's inbox is shown to nobody
    return Entry(
        identity,
        kind,
        values.pop(b"f").decode(),
        values.pop(b"o").decode(),
        values.pop(b"i", b"").decode(),
        body,
        values.pop(b"d", b"").decode(),
        target,
        values.pop(b"p", b"").decode(),
        extra={_readable(name): _readable(value) for name, value in values.items()} if values else None,
    )


def _readable(raw: bytes) -> str:
    return raw.decode(errors="replace")


def notice(fields: Fields) -> Notice | None:
    """What a notice tells all nodes; None when it cannot be read: of a later release, or by hand."""
    parts = iter(fields)
    try:
        return msgspec.convert(
            {name.decode(): value.decode() for name, value in zip(parts, parts, strict=True)}, Notice
        )
    except ValueError:
        return None


class _RedactionLine(msgspec.Struct):
    id: str
    by: str
    at: int
    sender: str
    to: str
    mid: str


class _RemovalLine(msgspec.Struct):
    after: str
    to: str
    count: int
    kind: str
    at: int
    policy: str = ""
    limit: str = ""
    run: str = ""


_redaction = msgspec.json.Decoder(_RedactionLine)
_removal = msgspec.json.Decoder(_RemovalLine)


def redaction(raw: bytes) -> Redaction | None:
    """A tombstone, None when it cannot be read."""
    try:
        line = _redaction.decode(_readable(raw))
        return Redaction(parse_id(line.id), line.by, line.at, line.sender, line.to, line.mid)
    except (msgspec.DecodeError, WaypostError):
        return None


def removal(raw: bytes) -> Removal | None:
    """A line of the ledger, None when it cannot be read."""
    try:
        line = _removal.decode(_readable(raw))
        kind = msgspec.convert(line.kind, type=Removal.__annotations__["kind"])
        return Removal(
            parse_id(line.after), parse_id(line.to), line.count, kind, line.at, line.policy, line.limit, line.run
        )
    except (msgspec.DecodeError, WaypostError):
        return None


def stretches(raw: bytes | None) -> tuple[Stretch, ...]:
    """The membership record of one user in a group, `role|joined,left;joined,`; None means never a member.

    A stretch that cannot be read entitles to nothing.
    """
    if raw is None:
        return ()
    found = []
    for part in raw.partition(b"|")[2].split(b";"):
        joined, _, left = part.partition(b",")
        try:
            found.append(Stretch(entry_id(joined), entry_id(left) if left else None))
        except ValueError:
            continue
    return tuple(found)
