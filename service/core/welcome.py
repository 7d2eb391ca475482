"""The answer to `hello`: `welcome`, and `streams` frames where the user has many."""

from collections.abc import Mapping

import msgspec

from service.core.commands import Limits, Started
from service.core.frames import ServerFrame, Streams, StreamState, Welcome


class Greeting(msgspec.Struct, frozen=True):
    """What `welcome` says beside the streams. `ping` and `expires_in` (of the sign-in; None: never) are in seconds."""

    user: str
    device: str
    node: str
    epoch: str
    ping: float
    expires_in: float | None


def welcome(greeting: Greeting, streams: Mapping[str, Started], limits: Limits) -> list[ServerFrame]:
    """The frames, with at most `welcome_streams` streams in each."""
    listed = [(stream, _state_of(started)) for stream, started in streams.items()]
    most = limits.welcome_streams
    first, *others = [dict(listed[at : at + most]) for at in range(0, len(listed), most)] or [{}]
    told: dict[str, int | float] = msgspec.structs.asdict(limits)
    begin = Welcome(
        greeting.user,
        greeting.device,
        greeting.node,
        greeting.epoch,
        greeting.ping,
        told,
        first,
        more=bool(others),
        expires_in=greeting.expires_in,
    )
    return [begin, *(Streams(part, more=part is not others[-1]) for part in others)]


def _state_of(started: Started) -> StreamState:
    missed = max(0, started.head.n - started.start.n)
    return StreamState(str(started.start), str(started.head), str(started.floor), missed)
