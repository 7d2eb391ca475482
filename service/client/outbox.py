"""What a client has asked for and is not answered yet: in order, repeated until there is an answer.

Operations go out in batches, one WebSocket frame each, and a batch only when the one before it is answered. That is
what keeps the order: when a call fails the node fails everything that waited behind it, and with a batch in one frame
nothing can still be on its way that would then overtake. A lost connection or a retryable refusal puts operations back
to the front, and they go again with the same keys, so that each takes effect once.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from service.client.backoff import Backoff
from service.client.events import Closed, GaveUp, Refused
from service.client.wire import encode
from service.core import frames
from service.core.frames import Error, Joined, Left, Message, Sent

# Servers forget keys after `key_window_s`, a minute at the least. What was first sent longer ago than this is repeated
# only after the replay, in which we may find it.
KEY_IS_SAFE_S = 50.0

Answer = Sent | Joined | Left


class Bounds(msgspec.Struct, frozen=True):
    """What a server takes in one frame: from `limits` of its `welcome`."""

    operations: int = 64
    frame_bytes: int = 131_072


class Operation:
    """One send, join or leave.

    Once there is nothing more to be done for it `is_settled`, with either `answer` or `problem`, or, for a `leave`
    that had its effect without our hearing of it, with neither.
    """

    __slots__ = ("answer", "first_tried", "frame", "is_settled", "line", "number", "problem", "seen", "tries")

    def __init__(self, number: int, frame: frames.Send | frames.Join | frames.Leave) -> None:
        self.number = number
        self.frame = frame
        self.line = encode(frame)
        self.tries = 0
        self.first_tried = 0.0
        self.seen: Sent | None = None  # what came among the entries: our own message, so it is stored
        self.is_settled = False
        self.answer: Answer | None = None
        self.problem: Refused | GaveUp | Closed | None = None

    def settle(self, answer: Answer | None = None, problem: Refused | GaveUp | Closed | None = None) -> None:
        """There is nothing more to be done."""
        self.is_settled, self.answer, self.problem = True, answer, problem


class Outbox:
    """All operations that are not settled, in the order they were asked for."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._waiting: deque[Operation] = deque()
        self._flying: dict[int, Operation] = {}  # the batch on its way, by `ref`
        self._again: list[Operation] = []  # of that batch: refused for now
        self._backoff = Backoff(jitter)
        self._not_before = 0.0
        self._settled: list[Operation] = []

    def __bool__(self) -> bool:
        """Whether anything is not settled."""
        return bool(self._waiting or self._flying or self._again)

    # -- in: what the program wants ------------------------------------------------------------------------------------

    def add(self, operation: Operation) -> None:
        """Puts an operation behind the others."""
        self._waiting.append(operation)

    def withdraw(self, operation: Operation) -> None:
        """Nobody waits for it any more: it is not sent (again). Once on its way it may take effect all the same."""
        operation.settle()
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.is_settled)

    def end(self, problem: GaveUp | Closed) -> None:
        """Nothing more will be sent."""
        self.lost()
        for operation in self._waiting:
            self._settle(operation, problem=problem)
        self._waiting.clear()

    # -- in: what the server says --------------------------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        """The answer to one of the batch; anything else is let pass."""
        operation = self._land(answer.ref)
        if operation is not None:
            self._settle(operation, answer)
            self._backoff.reset()

    def refused(self, error: Error, now: float) -> None:
        """A refusal of one of the batch: for good, or to be repeated after a pause."""
        operation = self._land(error.ref)
        if operation is None:
            return
        if error.retry:
            if not self._again:  # one pause for a batch that failed as a whole
                self._not_before = now + self._backoff.pause(error.retry_after)
            self._again.append(operation)
        elif error.code == "not_member" and isinstance(operation.frame, frames.Leave) and operation.tries > 1:
            self._settle(operation)  # the first try had its effect, and its answer was lost
        else:
            self._settle(operation, problem=Refused(error.code, error.message))

    def lost(self) -> None:
        """The connection is gone, or the batch failed: what is not answered goes back to the front."""
        batch = sorted([*self._flying.values(), *self._again], key=lambda operation: operation.number)
        self._waiting.extendleft(operation for operation in reversed(batch) if not operation.is_settled)
        self._flying, self._again = {}, []

    def saw(self, message: Message) -> None:
        """A message of our own user has come. If it is one that we wait to hear of, it is stored."""
        for operation in (*self._flying.values(), *self._again, *self._waiting):
            if not operation.tries:
                return
            frame = operation.frame
            if isinstance(frame, frames.Send) and (frame.key, frame.to) == (message.mid, message.to):
                # `memory` is the least that can be said of a stored message.
                operation.seen = Sent(message.stream, message.id, message.mid, True, "memory", operation.number)

    # -- out -----------------------------------------------------------------------------------------------------------

    def batch(self, now: float, bounds: Bounds, *, is_live: bool) -> bytes:
        """The next frame to send, b"" for none now. `is_live`: everything that was missed has come."""
        if self._flying or now < self._not_before:
            return b""
        if self._again:
            self.lost()
        lines: list[bytes] = []
        size = 0
        while self._waiting and len(lines) < bounds.operations:
            operation = self._waiting[0]
            if operation.tries and now - operation.first_tried > KEY_IS_SAFE_S:
                if operation.seen is not None:
                    self._settle(self._waiting.popleft(), operation.seen)
                    continue
                if not is_live:
                    break
            if len(operation.line) > bounds.frame_bytes:
                detail = f"the frame has {len(operation.line)} bytes; the limit is {bounds.frame_bytes}"
                self._settle(self._waiting.popleft(), problem=Refused("body_too_large", detail))
                continue
            size += len(operation.line) + 1
            if lines and size > bounds.frame_bytes:
                break
            self._flying[operation.number] = self._waiting.popleft()
            operation.first_tried = operation.first_tried if operation.tries else now
            operation.tries += 1
            lines.append(operation.line)
        return b"\n".join(lines)

    def due(self, now: float) -> float | None:
        """When `batch` will have something though nothing happens until then, None for never."""
        return self._not_before if self and not self._flying and now < self._not_before else None

    def settled(self) -> list[Operation]:
        """Operations that were settled since the last call."""
        settled, self._settled = self._settled, []
        return settled

    # -- inside --------------------------------------------------------------------------------------------------------

    def _land(self, ref: frames.Ref) -> Operation | None:
        return self._flying.pop(ref, None) if isinstance(ref, int) else None

    def _settle(
        self,
        operation: Operation,
        answer: Answer | None = None,
        problem: Refused | GaveUp | Closed | None = None,
    ) -> None:
        if not operation.is_settled:  # else it was withdrawn
            operation.settle(answer, problem)
            self._settled.append(operation)
