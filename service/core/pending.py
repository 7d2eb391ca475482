"""What a connection has asked for and not been answered yet."""

import msgspec

from service.core.commands import ChangeMembership, Publish
from service.core.frames import Ack, ClientFrame, Join, Joined, Leave, Left, Ref, Send, Sent
from service.core.names import EntryId, parse_id

Answer = Sent | Left | Joined


class Pending(msgspec.Struct):
    """A send or a change of membership without an answer to the client yet.

    `stream` is where its entry will be seen on this connection. Once the call has answered, `answer` waits for its
    place: on a live stream until the reader gets to that entry, and it takes its place; that to a joining, from which a
    client counts anew, until everything of the stream before it has passed.
    """

    ref: Ref
    command: Publish | ChangeMembership
    size: int
    stream: str
    mid: str = ""
    answer: Answer | None = None
    is_held: bool = False  # the reader was at the entry before the call had its answer, and the answer matters

    @property
    def joins_at(self) -> EntryId | None:
        """Where the membership begins, when this is a joining whose answer waits."""
        return parse_id(self.answer.id) if isinstance(self.answer, Joined) else None


def size_of(frame: ClientFrame) -> int:
    """What a frame that waits for `welcome` counts, in bytes or characters."""
    if isinstance(frame, Send):
        return len(frame.body)
    if isinstance(frame, Ack):
        return sum(len(stream) + len(offset) for stream, offset in frame.offsets.items())
    return len(frame.group) if isinstance(frame, Join | Leave) else 0
