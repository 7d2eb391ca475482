"""The wire `waypost.v1`: every frame as a tagged Struct, decoding what clients send, encoding what they get.

A WebSocket text frame holds one JSON object, or several, one per line. `decode` turns the bytes of one into frames;
`encode` and `encode_entry` give the bytes of one object each. Nothing here knows what a frame makes happen.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from service.core.entries import Durability, Entry, GapKind, Removal
from service.errors import ERRORS, WaypostError

KEY_LENGTH_MAX = 64  # characters; keys are clients' UUIDs or counters, kept for hours
REF_LENGTH_MAX = 64  # characters; echoed as it is
DEVICE_DEFAULT = "default"  # of a client that names none, and whose token names none
HISTORY_LIMIT_DEFAULT = 50  # messages of one answer, where the client does not say: a screen or two

Ref = int | Annotated[str, msgspec.Meta(max_length=REF_LENGTH_MAX)] | None
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_LENGTH_MAX)]


# -- client → server ---------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """First frame. `epoch` is that of `offsets` (None: the current one); `more`: frames of type `offsets` follow."""

    device: str | None = None
    offsets: dict[str, str] = {}
    token: str | None = None
    epoch: str | None = None
    more: bool = False


class Offsets(msgspec.Struct, tag="offsets", frozen=True):
    """More offsets of a `hello`; the last one comes without `more`."""

    offsets: dict[str, str]
    more: bool = False


class Send(msgspec.Struct, tag="send", frozen=True):
    """A message to a stream. `body` stays the JSON text that it was."""

    to: str
    body: Raw
    key: Key | None = None
    ref: Ref = None


class Join(msgspec.Struct, tag="join", frozen=True):
    """Become a member of `group`."""

    group: str
    ref: Ref = None


class Leave(msgspec.Struct, tag="leave", frozen=True):
    """Stop being a member of `group`."""

    group: str
    ref: Ref = None


class Ack(msgspec.Struct, tag="ack", frozen=True):
    """This device has everything up to these ids. With `ref` it is answered once stored."""

    offsets: dict[str, str]
    ref: Ref = None


# A question may wait for `welcome`: what it says is as short as what it can mean.
Place = Annotated[str, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=256)]


class AskHistory(msgspec.Struct, tag="history", frozen=True):
    """A look into the past of a stream, which moves nothing. Anchors are numbers, entry ids or RFC 3339 times."""

    stream: Name
    after: int | Place | None = None
    before: int | Place | None = None
    around: int | Place | None = None
    limit: int = HISTORY_LIMIT_DEFAULT
    with_: Name | None = msgspec.field(name="with", default=None)
    ref: Ref = None


class Auth(msgspec.Struct, tag="auth", frozen=True):
    """A fresh token of the same user, before the one that the connection signed in with has expired."""

    token: str
    ref: Ref = None


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Answered with `pong`."""

    ref: Ref = None


ClientFrame = Hello | Offsets | Send | Join | Leave | Ack | AskHistory | Auth | Ping
CLIENT_FRAMES: tuple[type[msgspec.Struct], ...] = (Hello, Offsets, Send, Join, Leave, Ack, AskHistory, Auth, Ping)


class Malformed(msgspec.Struct, frozen=True):
    """What could not be taken as a frame: answered with `error`; when `code` closes, the connection ends."""

    code: str
    detail: str
    ref: Ref = None


class _Envelope(msgspec.Struct):
    """What is needed of a refused frame to answer it."""

    type: str
    ref: Any = None


_client_frame: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_envelope = msgspec.json.Decoder(_Envelope)
_known_types = frozenset(str(kind.__struct_config__.tag) for kind in CLIENT_FRAMES)


def decode(data: bytes) -> list[ClientFrame | Malformed]:
    """The frames in one WebSocket text frame, in order; never raises.

    A line that parses but is no valid frame becomes a `Malformed` in its place and the rest goes on. What is not
    JSON, or no object with a `type`, becomes a `Malformed` with code `bad_frame`, and nothing after it is read.
    """
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:  # msgspec does not look into a body, and others would have to read it
            return [Malformed("bad_frame", "not UTF-8")]
    if b"\n" not in data:
        return [_decode_one(data)]
    frames: list[ClientFrame | Malformed] = []
    for line in data.split(b"\n"):
        if not line or line.isspace():
            continue
        frame = _decode_one(line)
        frames.append(frame)
        if isinstance(frame, Malformed) and frame.code == "bad_frame":
            # Perhaps it is one object printed over several lines, which is JSON like any other.
            whole = _decode_one(data)
            return frames if isinstance(whole, Malformed) and whole.code == "bad_frame" else [whole]
    return frames or [Malformed("bad_frame", "an empty frame")]


def decode_some(data: bytes, most: int) -> tuple[list[ClientFrame | Malformed], bytes]:
    """The frames of the first `most` lines, as `decode` gives them, and the lines that are left (b"" when none are).

    For who must answer a part of a message before taking the next one: each line may be answered with a longer one.
    """
    if data.count(b"\n") < most:
        return decode(data), b""
    *lines, rest = data.lstrip().split(b"\n", most)
    frames = decode(b"\n".join(lines))
    if any(isinstance(frame, Malformed) and frame.code == "bad_frame" for frame in frames):
        return decode(data), b""  # one object over many lines, or nothing after the bad line counts
    return frames, rest.lstrip()


def _decode_one(data: bytes) -> ClientFrame | Malformed:
    try:
        return _client_frame.decode(data)
    except msgspec.ValidationError as problem:
        return _explain(data, str(problem))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _explain_undecodable(data, "a string holds half of a surrogate pair")


def _explain_undecodable(data: bytes, problem: str) -> Malformed:
    """Tells JSON that msgspec does not take (half of a surrogate pair, which JavaScript can send; a number that no
    float holds) from no JSON.
    """
    try:
        given = json.loads(data.decode(), parse_constant=_refuse_constant, parse_int=_int_or_none)
    except (ValueError, RecursionError):
        return Malformed("bad_frame", "not JSON")
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        return Malformed("bad_frame", ERRORS["bad_frame"].text)
    return _refused(given["type"], problem, given.get("ref"))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _int_or_none(digits: str) -> int | None:
    """Python reads no number of thousands of digits; JSON sets no limit."""
    try:
        return int(digits)
    except ValueError:
        return None


def _echoable(ref: object) -> Ref:
    if isinstance(ref, str):  # half of a surrogate pair could not be written back
        is_whole = not any("\ud800" <= char <= "\udfff" for char in ref)
        return ref if len(ref) <= REF_LENGTH_MAX and is_whole else None
    return ref if type(ref) is int else None


def _explain(data: bytes, problem: str) -> Malformed:
    try:
        envelope = _envelope.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _explain_undecodable(data, problem)
    return _refused(envelope.type, problem, envelope.ref)


def _refused(kind: str, problem: str, ref: object) -> Malformed:
    if kind not in _known_types:
        return Malformed("unknown_type", f"no frame of type {kind[:40]!r}", _echoable(ref))
    return Malformed("bad_request", problem, _echoable(ref))


# -- server → client ---------------------------------------------------------------------------------------------------


class StreamState(msgspec.Struct, frozen=True):
    """One stream in `welcome`: where this connection starts, and what is to come."""

    offset: str
    head: str
    floor: str
    missed: int


class Welcome(msgspec.Struct, tag="welcome", frozen=True, omit_defaults=True):
    """The answer to `hello`. `more`: frames of type `streams` follow. `ping` and `expires_in` are in seconds; without
    the latter the sign-in does not expire.
    """

    user: str
    device: str
    node: str
    epoch: str
    ping: float
    limits: dict[str, int | float]
    streams: dict[str, StreamState]
    more: bool = False
    expires_in: float | None = None


class Streams(msgspec.Struct, tag="streams", frozen=True, omit_defaults=True):
    """More streams of a `welcome`."""

    streams: dict[str, StreamState]
    more: bool = False


class Message(msgspec.Struct, tag="message", frozen=True, omit_defaults=True):
    """A message, in its place in the stream."""

    stream: str
    id: str
    mid: str
    from_: str = msgspec.field(name="from")
    to: str
    body: Raw | UnsetType = UNSET
    redacted: bool = False


class Joined(msgspec.Struct, tag="joined", frozen=True, omit_defaults=True):
    """Somebody became a member; with `ref` the answer to one's own `join`."""

    stream: str
    id: str
    user: str
    group: str
    ref: Ref = None


class Left(msgspec.Struct, tag="left", frozen=True, omit_defaults=True):
    """Somebody stopped being a member; with `ref` the answer to one's own `leave`."""

    stream: str
    id: str
    user: str
    group: str
    ref: Ref = None


class Redacted(msgspec.Struct, tag="redacted", frozen=True):
    """The body of the entry `target` of this stream was taken away."""

    stream: str
    id: str
    target: str
    by: str


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why entries are gone. `at` is RFC 3339 in UTC."""

    kind: GapKind
    policy: str | None = None
    limit: str | None = None
    at: str | None = None


class Gap(msgspec.Struct, tag="gap", frozen=True, omit_defaults=True):
    """A stretch that no longer exists. `missed` is null when nobody can know."""

    stream: str
    after: str
    to: str
    missed: int | None
    cause: Cause
    next: str | None = None
    causes: tuple[Cause, ...] = ()


class Live(msgspec.Struct, tag="live", frozen=True, omit_defaults=True):
    """Everything of `welcome` has been caught up; with `stream`, that one has again."""

    stream: str | None = None


class Sent(msgspec.Struct, tag="sent", frozen=True, omit_defaults=True):
    """Stored. `stream` and `id` are where the sender finds it."""

    stream: str
    id: str
    mid: str
    duplicate: bool
    durability: Durability
    ref: Ref = None


# An entry as the frame that it is when it is pushed; of a type that this release does not know, too.
EntryFrame = Annotated[
    Raw,
    msgspec.Meta(
        description="A message, joined, left or redacted, or an entry of another type",
        extra_json_schema={"type": "object", "required": ["type", "stream", "id"]},
    ),
]


class History(msgspec.Struct, tag="history", frozen=True, omit_defaults=True):
    """The answer to `history`: entries as frames of their own, oldest first, and what is gone between them.

    `first` and `last` are the ids that it speaks of: where to go on, also when it shows nothing.
    """

    stream: str
    messages: tuple[EntryFrame, ...]
    floor: str
    head: str
    found_oldest: bool
    found_newest: bool
    gaps: tuple[Gap, ...]
    looked_at: int
    first: str | None = None
    last: str | None = None
    ref: Ref = None


class Acked(msgspec.Struct, tag="acked", frozen=True, omit_defaults=True):
    """The offsets of an `ack` are stored."""

    ref: Ref = None


class Authorised(msgspec.Struct, tag="authorised", frozen=True, omit_defaults=True):
    """The answer to `auth`: the token was taken. Without `expires_in` (seconds) it does not expire."""

    user: str
    expires_in: float | None = None
    ref: Ref = None


class Pong(msgspec.Struct, tag="pong", frozen=True, omit_defaults=True):
    """The answer to `ping`."""

    ref: Ref = None


class Error(msgspec.Struct, tag="error", frozen=True, omit_defaults=True):
    """A refusal. `retry`: the same thing may work later, after `retry_after` seconds where known."""

    code: str
    message: str
    retry: bool
    ref: Ref = None
    retry_after: float | None = None


ServerFrame = (
    Welcome
    | Streams
    | Message
    | Joined
    | Left
    | Redacted
    | Gap
    | Live
    | Sent
    | History
    | Acked
    | Authorised
    | Pong
    | Error
)

_encoder = msgspec.json.Encoder()
# A string as a whole (brackets in it do not count), or a bracket.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def encode(frame: ServerFrame) -> bytes:
    """The JSON of one frame, on one line."""
    return _encoder.encode(frame)


def error_frame(problem: WaypostError, ref: Ref = None) -> Error:
    """How a refusal is told on the wire."""
    return Error(
        code=problem.code, message=problem.detail, retry=problem.retry, ref=ref, retry_after=problem.retry_after
    )


def cause_of(removal: Removal) -> Cause:
    """How a line of the ledger is quoted in a `gap`."""
    at = datetime.fromtimestamp(removal.at / 1000, UTC).isoformat(timespec="milliseconds") if removal.at else None
    return Cause(removal.kind, removal.policy or None, removal.limit or None, at and at.replace("+00:00", "Z"))


def encode_entry(stream: str, entry: Entry) -> bytes:
    """The JSON of an entry of `stream`, the same bytes for every receiver.

    An entry of a type that this release does not know is given as it was stored: its type, place and fields.
    """
    entry_id = str(entry.id)
    if entry.type == "message":
        body: Raw | UnsetType = UNSET if entry.body is None else Raw(entry.body)
        return _encoder.encode(
            Message(stream, entry_id, entry.mid, entry.sender, entry.to, body, redacted=entry.is_redacted)
        )
    if entry.type == "joined":
        return _encoder.encode(Joined(stream, entry_id, entry.sender, entry.to.removeprefix("group:")))
    if entry.type == "left":
        return _encoder.encode(Left(stream, entry_id, entry.sender, entry.to.removeprefix("group:")))
    if entry.type == "redacted":
        return _encoder.encode(Redacted(stream, entry_id, entry.target, entry.sender))
    unknown: dict[str, Any] = {**(entry.extra or {}), "type": entry.type, "stream": stream, "id": entry_id}
    if entry.sender:
        unknown["from"] = entry.sender
    if entry.to:
        unknown["to"] = entry.to
    if entry.mid:
        unknown["mid"] = entry.mid
    if entry.target:
        unknown["target"] = entry.target
    if entry.body is not None:
        unknown["body"] = Raw(entry.body)
    return _encoder.encode(unknown)


def depth(body: bytes) -> int:
    """How many brackets of a JSON text lie within each other at most."""
    deepest = now = 0
    for token in _BRACKETS.finditer(body):
        if token[0] in b"[{":
            now += 1
            deepest = max(deepest, now)
        elif token[0] in b"]}":
            now -= 1
    return deepest


def one_line(body: bytes) -> bytes:
    """`body` without raw line breaks, which JSON has only as white space between tokens.

    Frames may hold several objects, one a line, so a body printed over several lines must not break its frame.
    """
    if b"\n" in body or b"\r" in body:
        return body.replace(b"\n", b" ").replace(b"\r", b" ")
    return body
