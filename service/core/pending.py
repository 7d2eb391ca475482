"""What a connection has asked for and not been answered yet, and in which order it may go out.

What one connection sends takes effect in the order it was sent: sends go out as they come, and a join or leave waits
for the sends before it, and holds back everything after it, until it is answered.
"""

from collections import deque

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


class Unanswered:
    """All that is pending of one connection, by number, in the order it was sent.

    `bytes` counts bodies and names of groups. `waiting` are the numbers held back by a change of membership,
    `changing` the number of the one under way (0: none), `unstored` counts sends that went out and whose call has not
    answered.
    """

    def __init__(self) -> None:
        self.pending: dict[int, Pending] = {}
        self.waiting: deque[int] = deque()
        self.changing = 0
        self.unstored = 0
        self.bytes = 0
        self._numbers = 0

    @property
    def count(self) -> int:
        """How many there have been."""
        return self._numbers

    def number(self) -> int:
        """A number for the next command."""
        self._numbers += 1
        return self._numbers

    def admit(self, pending: Pending) -> None:
        """It is asked for: `advance` says when it goes out."""
        self.pending[pending.command.number] = pending
        self.bytes += pending.size
        self.waiting.append(pending.command.number)

    def advance(self) -> list[Publish | ChangeMembership]:
        """What may go out now, in order."""
        out = []
        while self.waiting and not self.changing:
            command = self.pending[self.waiting[0]].command
            if isinstance(command, ChangeMembership):
                if self.unstored:
                    break
                self.changing = command.number
            else:
                self.unstored += 1
            self.waiting.popleft()
            out.append(command)
        return out

    def settle(self, number: int) -> Pending | None:
        """The call for `number` has been answered: what was held back by it may go. None: it was answered before."""
        pending = self.pending.get(number)
        if pending is None or pending.answer is not None:
            return None
        if isinstance(pending.command, ChangeMembership):
            self.changing = 0
        else:
            self.unstored -= 1
        return pending

    def forget(self, number: int) -> Pending:
        """The client has its answer."""
        pending = self.pending.pop(number)
        self.bytes -= pending.size
        return pending

    def give_up_waiting(self) -> list[Pending]:
        """Forgets all that is held back; returns it, for the client to be told."""
        waiting, self.waiting = self.waiting, deque()
        return [self.forget(number) for number in waiting]


def size_of(frame: ClientFrame) -> int:
    """What a frame that waits for `welcome` counts, in bytes or characters."""
    if isinstance(frame, Send):
        return len(frame.body)
    if isinstance(frame, Ack):
        return sum(len(stream) + len(offset) for stream, offset in frame.offsets.items())
    return len(frame.group) if isinstance(frame, Join | Leave) else 0
