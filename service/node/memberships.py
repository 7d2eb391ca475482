"""Memberships of groups: joining and leaving, and following what is joined or left elsewhere.

A group's own stream tells who left; the user's inbox has a hint of each joining and leaving, and the group itself is
asked what is so now. The answers of the store, the pages and the mailbox come over different sockets: what is old news
is told by comparing ids, and a page that may be older than a change is read once more.
"""

import asyncio
from typing import TYPE_CHECKING

from service.auth import may
from service.config import Limits
from service.core import commands
from service.core.delivery import Place
from service.core.entries import Entry
from service.core.names import ZERO, EntryId, group_of, group_stream, user_stream
from service.core.paging import start_of_what_is_lacking
from service.core.session import Life
from service.errors import Uncertain, WaypostError
from service.node.connection import Connection
from service.store import Membership, Store

if TYPE_CHECKING:
    from service.node.node import Node

RETRY_S = 0.2  # before a question that the store did not answer is asked again


class Memberships:
    """What a node does about the memberships of its connections' users."""

    def __init__(self, node: "Node", store: Store, limits: Limits) -> None:
        self._node = node
        self._store = store
        # A storm of changes or hints leaves connections to the store for everybody else.
        self._changing = asyncio.Semaphore(limits.changes_in_flight)
        self._questions: dict[tuple[int, str], bool] = {}  # groups that are being asked → whether to ask once more

    async def change(self, connection: Connection, command: commands.ChangeMembership) -> None:
        """Joins or leaves for a connection, and tells its session."""
        session, mailbox = connection.session, self._node.reader.mailbox
        stream = group_stream(command.group)
        try:
            async with self._changing:
                membership = await self._change(connection, command, mailbox)
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            if isinstance(problem, Uncertain):
                # What the user does next must not be undone by this call: it is answered when it can come no more.
                await asyncio.sleep(problem.open_for_s)
            session.failed(command.number, problem.for_client())
        except Exception as error:  # noqa: BLE001 - a bug: whether it was done nobody knows
            self._node.log.error("membership_failed", traceback=error, connection=connection.number)
            session.failed(command.number, WaypostError("uncertain"))
        else:
            self._node.sends.note(stream, membership.id)
            if command.is_join:
                if not membership.is_new:  # a client that joins all its groups at every start
                    self._node.rates.give_back("joins", connection.user)
                session.joined(command.number, command.group, membership.id)
                connection.flush()
                self.begin(connection, stream, membership.id)
            else:
                is_coming = membership.is_announced and bool(mailbox) and mailbox == self._node.reader.mailbox
                session.left(command.number, membership.id, is_coming=is_coming)
                if not is_coming:
                    self._read_to_the_end(connection, stream)
        connection.flush()

    async def _change(self, connection: Connection, command: commands.ChangeMembership, mailbox: str) -> Membership:
        user, origin, principal = connection.user, (connection.number, command.number), connection.principal
        if not command.is_join:
            return await self._store.leave(user, command.group, mailbox=mailbox, origin=origin)
        may_enter = may(principal, "enter", group_stream(command.group))
        return await self._store.join(
            user, command.group, mailbox=mailbox, origin=origin, by_key=bool(principal.key), may_enter=may_enter
        )

    def changed(self, stream: str, entry: Entry, *, is_news: bool) -> None:
        """Somebody joined or left. In a group's own stream a `left` is the end; in an inbox it is a hint to ask."""
        for connection in self._node.connections_of(entry.sender):
            if stream == user_stream(entry.sender):
                self.hint(connection, entry)
            elif entry.type == "left" and connection.is_live(stream):
                if is_news:
                    self._node.unfollow(connection, stream)
                else:  # from a mailbox that was attached late: the user may have come back since
                    self._read_to_the_end(connection, stream)
            connection.session.passed_on(entry.to)
            connection.flush()

    def hint(self, connection: Connection, entry: Entry) -> None:
        """An inbox says that its user joined or left a group, perhaps long ago: the group itself tells what is so now.

        After a `left` nothing more is pushed until it has: what comes next may be no longer the user's, and in a
        group too large to announce it there is no other sign. Not for a connection without its `welcome`: what is
        stored before that is in it, and the rest comes in pages of the inbox.
        """
        if connection.session.life is not Life.OPEN:
            return
        if entry.type == "left":
            self._read_to_the_end(connection, entry.to)
        elif entry.to in connection.cursors:
            self._read_once_more(connection, entry.to)
        elif connection.wants(entry.to):
            self._ask_group(connection, entry.to, entry.id)

    def look_again(self, connection: Connection) -> None:
        """Entries of its user's inbox have passed this connection by, hints of a leaving among them perhaps.

        What is pushed of groups may be no longer the user's: nothing more is, until a page has said whose it is.
        """
        for stream in list(connection.cursors):
            if group_of(stream) is not None:
                self._read_to_the_end(connection, stream)

    def begin(self, connection: Connection, stream: str, start: EntryId) -> None:
        """The store said that the user is a member since `start`: follow, unless this is old news.

        The answer and the mailbox come over different sockets: the end of that very membership may have come first.
        """
        is_over = start < connection.session.ended.get(stream, ZERO)
        if is_over or connection.is_closed or not connection.wants(stream):
            return
        if stream in connection.cursors:
            self._read_once_more(connection, stream)
        else:
            self._node.follow(connection, stream, start, start)

    def _ask_group(self, connection: Connection, stream: str, hint: EntryId) -> None:
        """Follow a group, if it says that the user is a member, or was since the hint. One question at a time: a hint
        meanwhile asks again.
        """
        question = (connection.number, stream)
        if question in self._questions:
            self._questions[question] = True
        else:
            self._questions[question] = True
            self._node.spawn(self._follow_the_group(connection, stream, question, hint), connection)

    async def _follow_the_group(
        self, connection: Connection, stream: str, question: tuple[int, str], hint: EntryId
    ) -> None:
        # What was stored before the session was opened is in `welcome`: of an older hint what is so now is enough.
        since = hint.ms if hint > connection.inbox_head else None
        try:
            while self._questions[question] and not connection.is_closed:
                self._questions[question] = False
                try:
                    async with self._changing:
                        page = await self._store.page(stream, ZERO, [connection.user], max_entries=1, max_bytes=1)
                except WaypostError as problem:
                    self._node.out_of_reach(problem)
                    await asyncio.sleep(RETRY_S)
                    await self._node.may_read()
                    self._questions[question] = True
                    continue
                stretches = (page.stretches or {}).get(connection.user, ())
                start = start_of_what_is_lacking(stretches, connection.session.ended.get(stream), since)
                if start is not None:
                    self.begin(connection, stream, start)
        finally:
            del self._questions[question]

    def _read_to_the_end(self, connection: Connection, stream: str) -> None:
        """The membership has ended, or may have: pages bring what was sent before, and end with it, or go on.

        The cursor is a new one, so that a page from before the end, which is still on its way, cannot make it live.
        """
        cursor = connection.cursors.get(stream)
        track = self._node.delivery.tracks.get(stream)
        if cursor is None or track is None:
            return
        passed = track.passed(cursor)
        track.unfollow(connection)
        connection.cursors[stream] = track.follow(connection, passed, must_read=True)
        if cursor.place is not Place.BEHIND:
            connection.session.fell_behind(stream)
            connection.flush()
        connection.read_on(stream)

    def _read_once_more(self, connection: Connection, stream: str) -> None:
        """The user is a member, again perhaps: a page on its way that says otherwise is older than that."""
        if connection.cursors[stream].place is Place.BEHIND:
            self._read_to_the_end(connection, stream)
