"""The client's end of the wire `waypost.v1`: encoding what a client says, decoding what a server answers.

The frames themselves are those of `service/core/frames.py`. What this release does not know is told apart here: an
entry of an unknown type has a place in its stream, so it becomes an `Unknown`; any other frame of an unknown type has
nothing to say to this client, and is left out.
"""

import json

import msgspec

from service.core import frames
from service.core.frames import ClientFrame, ServerFrame


class WireError(Exception):
    """What came is not the wire: the connection is of no use any more."""


class Unknown(msgspec.Struct, frozen=True):
    """An entry that this release cannot read, mostly for its type. It is counted and acknowledged like any other.

    `raw` is the JSON text of the frame, on one line, as it came.
    """

    type: str
    stream: str
    id: str
    raw: bytes


Entry = frames.Message | frames.Joined | frames.Left | frames.Redacted | Unknown
Frame = ServerFrame | Unknown


# Frames that this client must understand to go on; any other that it cannot read is an entry, or none of its business.
_VITAL: tuple[type[msgspec.Struct], ...] = (
    frames.Welcome,
    frames.Streams,
    frames.Gap,
    frames.Live,
    frames.Sent,
    frames.Acked,
    frames.Pong,
    frames.Error,
)
_vital_types = frozenset(str(kind.__struct_config__.tag) for kind in _VITAL)
_entry_types = frozenset({"message", "joined", "left", "redacted"})
_decoder: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)
_encoder = msgspec.json.Encoder()


def encode(frame: ClientFrame) -> bytes:
    """The JSON of a client's frame, on one line."""
    return _encoder.encode(frame)


def encode_event(frame: Frame) -> bytes:
    """The JSON of a server's frame, on one line: as it came for an `Unknown`, fields known to this release else."""
    return frame.raw if isinstance(frame, Unknown) else _encoder.encode(frame)


def decode(data: bytes) -> list[Frame]:
    """The frames in one WebSocket message, one a line, in order. Raises `WireError` for what is no frame."""
    decoded = [_decode_one(line) for line in data.split(b"\n") if line and not line.isspace()]
    return [frame for frame in decoded if frame is not None]


def _decode_one(line: bytes) -> Frame | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        return _decode_unknown(line, problem)


def _decode_unknown(line: bytes, problem: Exception) -> Unknown | None:
    """A JSON text that is no frame as this release knows them, or that its decoder does not take.

    An entry that stayed unread would end this connection and each one after it, so none is: that is what `Unknown` is.
    """
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not isinstance(kind := given.get("type"), str) or kind in _vital_types:
        raise WireError(str(problem))
    stream, entry = given.get("stream"), given.get("id")
    if isinstance(stream, str) and isinstance(entry, str):
        return Unknown(kind, stream, entry, line.strip())
    if kind in _entry_types:
        raise WireError(str(problem))
    return None
