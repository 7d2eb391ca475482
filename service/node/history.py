"""Looking back, and taking away: questions after the history of streams, and redactions.

Questions are bounded per node, in order of asking, and answered one after the other to each connection, as long as its
socket takes the answers: what one client costs is an answer beside its fixed buffer. They wait for nothing that the
connection sends, and hold nothing up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from service.config import Limits
from service.core import frames, history
from service.core.commands import LookBack
from service.core.entries import Stretch
from service.core.frames import Ref
from service.core.history import History, Question
from service.core.names import EntryId, group_of
from service.errors import Unavailable, Uncertain, WaypostError
from service.node.connection import Connection, gap_frame
from service.store import Store

if TYPE_CHECKING:
    from service.node.node import Node


class Histories:
    """All that a node is asked about the past, by connections and over HTTP."""

    def __init__(self, node: "Node", store: Store, limits: Limits) -> None:
        self._node = node
        self._store = store
        self._limits = limits
        self._in_flight = asyncio.Semaphore(limits.histories_in_flight)
        self._unanswered = 0
        self._waiting: dict[Connection, deque[LookBack]] = {}
        self._answering: set[Connection] = set()

    # -- for connections -----------------------------------------------------------------------------------------------

    def put(self, connection: Connection, command: LookBack) -> None:
        """A session asks; it is told in its turn (`looked_back`)."""
        self._waiting.setdefault(connection, deque()).append(command)
        self.go_on(connection)

    def go_on(self, connection: Connection) -> None:
        """Answers what a connection has asked, unless that is done already, or its socket is full."""
        if connection in self._waiting and connection not in self._answering and connection.has_room():
            self._answering.add(connection)
            self._node.spawn(self._answer_all(connection), connection)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._waiting.pop(connection, None)

    async def _answer_all(self, connection: Connection) -> None:
        try:
            while (waiting := self._waiting.get(connection)) and connection.has_room():
                answer = await self._answer(connection.user, waiting.popleft())
                if not connection.is_closed:
                    connection.session.looked_back(answer)
                    connection.flush()
        except Exception as error:  # noqa: BLE001 - a bug: the client comes back, and asks again
            self._node.log.error("history_failed", traceback=error, connection=connection.number)
            connection.break_off()
        finally:
            self._answering.discard(connection)
            if not self._waiting.get(connection):
                self.forget(connection)

    async def _answer(self, user: str, command: LookBack) -> frames.History | frames.Error:
        try:
            return history_frame(command.question.stream, await self.read(user, command.question), command.ref)
        except WaypostError as problem:
            return frames.error_frame(problem, command.ref)

    # -- for everybody -------------------------------------------------------------------------------------------------

    async def read(self, user: str | None, question: Question) -> History:
        """What `user` is answered; None: a server key, whose every stream is, an inbox as its owner sees it.

        Raises `bad_anchor`, `not_member` (to a key `no_group`), `unavailable`.
        """
        async with self._turn():
            try:
                past = await self._store.history(
                    user, question, max_bytes=self._limits.page_bytes, looked_max=self._limits.history_looked_at
                )
            except WaypostError as problem:
                self._node.out_of_reach(problem)
                raise problem.for_client() from problem
        return history.answer(past, history.owner_of(question.stream) if user is None else user, question)

    async def redact(
        self, by: str, stream: str, entry: EntryId, *, is_system: bool = False
    ) -> tuple[bool, EntryId | None]:
        """Takes away the body of a message that the user `by` sent, in a stream that the user may look into.
        `is_system`: a server key asks, `by` names it, and any message goes.

        Returns whether that was done now (False: it was before), and the id of the `redacted` entry if it is the
        user's to know: a former member's it is not. May be repeated. Raises `not_member` for a group that the user
        never was in, `not_found`, `not_allowed`, `unavailable`, `uncertain`.
        """
        async with self._turn():
            try:
                stretches = None if is_system else await self._stretches_around(by, stream, entry)
                told = await self._store.redact(stream, entry, by, only_sender=not is_system)
            except Uncertain as problem:
                self._node.out_of_reach(problem)
                raise WaypostError("uncertain", "no answer from the store; may be redacted", retry=True) from problem
            except WaypostError as problem:
                self._node.out_of_reach(problem)
                raise problem.for_client() from problem
        if told is None:
            return False, None
        self._node.sends.note(stream, told)
        return True, told if stretches is None or history.is_of(stretches, told) else None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the few calls that are on their way at once; so many may wait for theirs. Raises `Unavailable`, also
        for one that waited while the store went away.
        """
        self._check_is_open()
        if self._unanswered >= self._limits.node_unanswered_sends:  # they are small, but they wait like sends
            raise Unavailable("too much is waiting for the store")
        self._unanswered += 1
        try:
            async with self._in_flight:
                self._check_is_open()
                yield
        finally:
            self._unanswered -= 1

    def _check_is_open(self) -> None:
        if not self._node.fence.is_open:
            raise Unavailable

    async def _stretches_around(self, user: str, stream: str, entry: EntryId) -> tuple[Stretch, ...] | None:
        """The user's times of membership, None where the stream is no group's. Of what is not the user's nothing is
        told, not even whether it is there: raises `not_member`, and `not_found` for an entry outside of them.
        """
        group = group_of(stream)
        if group is None:
            return None
        stretches = tuple(await self._store.stretches(user, group))
        if not stretches:
            raise WaypostError("not_member")
        if not history.is_of(stretches, entry):
            raise WaypostError("not_found")
        return stretches


def history_frame(stream: str, found: History, ref: Ref = None) -> frames.History:
    """How an answer is told on the wire."""
    return frames.History(
        stream=stream,
        messages=tuple(msgspec.Raw(frames.encode_entry(stream, entry)) for entry in found.entries),
        floor=str(found.floor),
        head=str(found.head),
        found_oldest=found.found_oldest,
        found_newest=found.found_newest,
        gaps=tuple(gap_frame(stream, gap) for gap in found.gaps),
        looked_at=found.looked_at,
        first=None if found.first is None else str(found.first),
        last=None if found.last is None else str(found.last),
        ref=ref,
    )
