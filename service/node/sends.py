"""Sends: what one loop turn brings goes to the store in one call, and while it is on its way the next batch collects.

That is group commit: with `appendfsync always` a batch costs one fsync. One call is in flight, so what one connection
sends is stored in the order it was sent. The node repeats nothing: a send whose call failed is answered with an error,
and everything of the same connections that waited behind it fails too, so that nothing overtakes it.
"""

import asyncio
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from service.config import Settings
from service.core.commands import Publish
from service.core.names import EntryId, parse_stream, user_stream
from service.errors import Unavailable, WaypostError
from service.node.connection import Connection
from service.node.rates import too_fast
from service.store import BODY_INLINE_BYTES, Outcome, Outgoing, Store

if TYPE_CHECKING:
    from service.node.node import Node

# `reconcile` names the ids that were answered lately; a store that lags more than this has lost far more than a tail.
ANSWERED_KEPT_S = 60.0


class Asker(Protocol):
    """Who has asked for messages to be stored, and is told."""

    def stored(self, number: int, message: Outgoing, outcome: Outcome, *, is_read: bool) -> None:
        """A message is stored; `is_read`: its entry went into a mailbox that is read."""

    def failed(self, number: int, problem: WaypostError) -> None:
        """A message was refused, or its call failed."""

    def flush(self) -> None:
        """All that a call has said was told."""


class Posted:
    """Somebody who asks for one message, and waits for what becomes of it."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def stored(self, _number: int, _message: Outgoing, outcome: Outcome, *, is_read: bool) -> None:
        """See `Asker`."""
        del is_read
        if not self.outcome.done():  # else nobody waits any more
            self.outcome.set_result(outcome)

    def failed(self, _number: int, problem: WaypostError) -> None:
        """See `Asker`."""
        if not self.outcome.done():
            self.outcome.set_exception(problem)

    def flush(self) -> None:
        """See `Asker`."""


class _Waiting(msgspec.Struct, frozen=True):
    asker: Asker
    number: int
    message: Outgoing
    nth: int  # of all that this node was asked to store
    since: float  # monotonic


class Sends:
    """The queue of sends of a node, and the task that hands them over."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._limits = settings.limits
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._asked = 0
        self._settled = asyncio.Event()  # something was answered
        self._open_from = 1  # what was asked before this is answered
        self._refused: set[Asker] = set()  # over the bounds in this turn of the loop
        self._answered: tuple[dict[str, EntryId], dict[str, EntryId]] = ({}, {})
        self._rotated = time.monotonic()
        # Message ids that the node makes: unique per process, and cheap.
        self._mid_prefix = secrets.token_urlsafe(9)
        self._mids = 0

    def put(self, connection: Connection, command: Publish) -> None:
        """Queues a send; it goes with the next call. Over the node's bounds it is refused at once, and so is what the
        same connection sends along with it: nothing overtakes it.
        """
        session = connection.session
        if connection in self._refused or self._is_full(len(command.body)):
            if not self._refused:
                asyncio.get_running_loop().call_soon(self._refused.clear)
            self._refused.add(connection)
            self._node.numbers.refused_send("unavailable")
            session.failed(command.number, Unavailable("too many sends wait on this node"))
            return
        message = Outgoing(
            kind=_kind_of(command.to),
            sender=connection.user,
            to=command.to,
            mid=session.mid_of(command.number, self._new_mid()),
            body=command.body,
            device=session.device,
            origin=(connection.number, command.number),
            key=command.key,
            is_system=bool(connection.principal.key),
        )
        self._queue_up(connection, command.number, message)

    async def post(
        self, sender: str, to: str, body: bytes, key: str | None, *, is_system: bool
    ) -> tuple[Outgoing, Outcome]:
        """Stores one message that no connection sends, and returns it with what became of it.

        `is_system`: a server key sends it. Raises the code of a refusal, `unavailable` and `uncertain`.
        """
        if not self._node.fence.is_open or self._is_full(len(body)):
            self._node.numbers.refused_send("unavailable")
            raise Unavailable
        mid = key or self._new_mid()
        message = Outgoing(_kind_of(to), sender, to, mid, body, device="", origin=None, key=key, is_system=is_system)
        posted = Posted()
        self._queue_up(posted, 0, message)
        return message, await posted.outcome

    def _is_full(self, size: int) -> bool:
        return (
            len(self._queue) >= self._limits.node_unanswered_sends
            or self._bytes + size > self._limits.node_unanswered_bytes
        )

    @property
    def waiting(self) -> tuple[int, int]:
        """How many messages wait for a call, and how many bytes their bodies are."""
        return len(self._queue), self._bytes

    def _new_mid(self) -> str:
        self._mids += 1
        return f"{self._mid_prefix}.{self._mids}"

    def _queue_up(self, asker: Asker, number: int, message: Outgoing) -> None:
        if not self._queue:
            self._idle.clear()
            self._wake.set()
        self._asked += 1
        self._queue.append(_Waiting(asker, number, message, self._asked, time.monotonic()))
        self._bytes += len(message.body)

    async def run(self) -> None:
        """Hands over batches for as long as the node lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await asyncio.sleep(0)  # all that this turn of the loop brings goes together
                if self._node.fence.is_open:
                    await self._hand_over(self._take())
                else:  # nobody is to wait for a store that does not answer
                    waiting, self._queue, self._bytes = list(self._queue), deque(), 0
                    self._fail(waiting, Unavailable())
                self._open_from = self._queue[0].nth if self._queue else self._asked + 1
                self._settled.set()
            self._idle.set()

    async def finish(self) -> None:
        """Waits until everything that is queued now is answered; others may go on to send."""
        last = self._asked
        while self._open_from <= last:
            self._settled.clear()
            await self._settled.wait()

    def answered(self) -> dict[str, EntryId]:
        """Per stream the highest id answered in the last minute."""
        older, newer = self._answered
        return {**older, **newer}

    def note(self, stream: str, entry: EntryId) -> None:
        """An id was answered that no send has made: of a join or leave."""
        newest = self._answered[1]
        newest[stream] = max(entry, newest.get(stream, entry))

    def forget_answered(self) -> None:
        """Another history: the ids answered belong to none that exists."""
        self._answered = ({}, {})

    def _take(self) -> list[_Waiting]:
        """The next batch: bounded by messages, and by what Redis copies, which is bytes for each mailbox."""
        batch: list[_Waiting] = []
        copies = 1 + self._node.nodes_alive
        cost = 0
        while self._queue and len(batch) < self._limits.batch_messages:
            size = len(self._queue[0].message.body)
            cost += size + min(size, BODY_INLINE_BYTES) * copies
            if batch and cost > self._limits.batch_bytes:
                break
            batch.append(self._queue.popleft())
            self._bytes -= size
        return batch

    async def _hand_over(self, batch: list[_Waiting]) -> None:
        mailbox, numbers = self._node.reader.mailbox, self._node.numbers
        numbers.batches.observe(len(batch))
        try:
            outcomes = await self._store.publish([waiting.message for waiting in batch], mailbox)
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            self._fail(batch, problem)
            return
        except Exception as error:  # noqa: BLE001 - a bug: whether it was stored nobody knows, and the next batch must go on
            self._node.log.error("publish_failed", traceback=error, count=len(batch))
            self._fail(batch, WaypostError("uncertain"))
            return
        self._note(batch, outcomes)
        # In doubt the entry may have gone into a mailbox that nobody reads any more: then the answer does not wait for
        # it.
        is_read = bool(mailbox) and mailbox == self._node.reader.mailbox
        limited = set()
        now, observe, duplicates, refused = time.monotonic(), numbers.stored_s.observe, 0, 0
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome.code is None:
                if outcome.is_duplicate:
                    duplicates += 1
                else:
                    observe(now - waiting.since)
                waiting.asker.stored(waiting.number, waiting.message, outcome, is_read=is_read)
                continue
            refused += 1
            numbers.refused_send(outcome.code)
            if outcome.code == "rate_limited":
                numbers.too_fast("user_sends")
                limited.add(waiting.asker)
                waiting.asker.failed(waiting.number, too_fast("messages of this user", outcome.retry_after or 0.0))
            else:
                waiting.asker.failed(waiting.number, WaypostError(outcome.code))
        numbers.sends["stored"] += len(batch) - duplicates - refused
        numbers.sends["duplicate"] += duplicates
        if limited:  # what they sent after it must not overtake it
            for _ in self._take_back(limited):
                numbers.refused_send("rate_limited")
        for asker in {waiting.asker for waiting in batch}:
            asker.flush()

    def _fail(self, batch: list[_Waiting], problem: WaypostError) -> None:
        """The call failed: so does what the same connections have waiting."""
        failed = {waiting.asker for waiting in batch}
        for waiting in batch:
            self._node.numbers.refused_send(problem.code)
            waiting.asker.failed(waiting.number, problem.for_client())
        for waiting in self._take_back(failed):
            self._node.numbers.refused_send("unavailable")
            waiting.asker.failed(waiting.number, Unavailable("what was sent before it failed"))
        for asker in failed:
            asker.flush()

    def _take_back(self, askers: set[Asker]) -> list[_Waiting]:
        """Takes what these have waiting out of the queue."""
        queue, self._queue, taken = self._queue, deque(), []
        for waiting in queue:
            if waiting.asker in askers:
                taken.append(waiting)
                self._bytes -= len(waiting.message.body)
            else:
                self._queue.append(waiting)
        return taken

    def _note(self, batch: list[_Waiting], outcomes: list[Outcome]) -> None:
        """Remembers what was given out: for a server that comes back with less, and a mailbox that brings it not."""
        now = time.monotonic()
        if now - self._rotated > ANSWERED_KEPT_S:
            self._answered = (self._answered[1], {})
            self._rotated = now
        given: dict[str, EntryId] = {}
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome.id is None or outcome.is_duplicate:
                continue
            if waiting.message.kind == "direct":
                given[user_stream(waiting.message.sender)] = outcome.id
            if outcome.recipient_id is not None:
                given[waiting.message.to] = outcome.recipient_id
        self._answered[1].update(given)
        self._node.attachments.expect(given)


def _kind_of(to: str) -> Literal["direct", "group", "all"]:
    kind, _ = parse_stream(to)
    return "direct" if kind == "user" else "group" if kind == "group" else "all"
