"""The client's end of the wire `waypost.v1`: encoding what a client says, decoding what a server answers.

The frames themselves are those of `service/core/frames.py`. What this release does not know is told apart here: an
entry of an unknown type has a place in its stream, so it becomes an `Unknown`; any other frame of an unknown type has
nothing to say to this client, and is left out.
"""

import msgspec

from service.core import frames
from service.core.frames import ClientFrame, ServerFrame


class WireError(Exception):
    """What came is not the wire: the connection is of no use any more."""


class Unknown(msgspec.Struct, frozen=True):
    """An entry of a type that this release does not know. It is counted and acknowledged like any other.

    `raw` is the JSON text of the frame, on one line, as it came.
    """

    type: str
    stream: str
    id: str
    raw: bytes


Entry = frames.Message | frames.Joined | frames.Left | frames.Redacted | Unknown
Frame = ServerFrame | Unknown


class _Envelope(msgspec.Struct):
    """What every entry has, whatever its type."""

    type: str
    stream: str | None = None
    id: str | None = None


_KINDS: tuple[type[msgspec.Struct], ...] = (
    frames.Welcome,
    frames.Streams,
    frames.Message,
    frames.Joined,
    frames.Left,
    frames.Redacted,
    frames.Gap,
    frames.Live,
    frames.Sent,
    frames.Acked,
    frames.Pong,
    frames.Error,
)
_known_types = frozenset(str(kind.__struct_config__.tag) for kind in _KINDS)
_decoder: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)
_envelope = msgspec.json.Decoder(_Envelope)
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
    except msgspec.ValidationError as problem:
        return _decode_unknown(line, str(problem))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise WireError(f"not JSON: {problem}") from problem


def _decode_unknown(line: bytes, problem: str) -> Unknown | None:
    """A valid JSON text that is no frame as this release knows them."""
    try:
        envelope = _envelope.decode(line)
    except msgspec.DecodeError as error:
        raise WireError(str(error)) from error
    if envelope.type in _known_types:
        raise WireError(f"{envelope.type}: {problem}")
    if envelope.stream is None or envelope.id is None:
        return None
    return Unknown(envelope.type, envelope.stream, envelope.id, line.strip())
