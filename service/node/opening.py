"""Opening sessions: what becomes of `hello`, up to the first stream that a connection follows."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.config import Settings
from service.core.commands import Open, Started
from service.core.entries import Removal
from service.core.names import ZERO, user_stream
from service.core.paging import Gap
from service.errors import Unavailable, Uncertain, WaypostError
from service.node.connection import Connection
from service.store import OpenedStream, Store

if TYPE_CHECKING:
    from service.node.node import Node


class Openings:
    """The sessions that are being opened on a node."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._ping_s = settings.ping_s
        # A storm of reconnects leaves connections to the store for everybody else.
        self._in_flight = asyncio.Semaphore(settings.limits.opens_in_flight)

    async def open(self, connection: Connection, command: Open) -> None:
        """Opens the session of a connection: it is told `welcome`, and follows its user's streams; or why not."""
        if not self._node.fence.is_open:
            connection.session.not_opened(Unavailable())
            connection.flush()
            return
        try:
            opened = await self._ask(connection, command)
            if not connection.is_closed:
                await connection.prepare({one.stream: one.start for one in opened if connection.wants(one.stream)})
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            # Opening twice is harmless: what may have been carried out is asked for again.
            told = Unavailable() if isinstance(problem, Uncertain) else problem.for_client()
            connection.session.not_opened(told)
            connection.flush()
        except Exception as error:  # noqa: BLE001 - a bug: the client is told, and comes back
            self._node.log.error("open_failed", traceback=error, connection=connection.number)
            connection.session.not_opened(WaypostError("internal"))
            connection.flush()
        else:
            if not connection.is_closed:
                self._begin(connection, opened)

    async def _ask(self, connection: Connection, command: Open) -> list[OpenedStream]:
        async with self._in_flight:
            if connection.is_closed:
                return []  # gave up while it waited for its turn
            is_foreign = command.epoch is not None and command.epoch != self._store.epoch
            return await self._store.open_session(
                connection.user, command.device, self._node.name, command.offsets, is_foreign=is_foreign
            )

    def _begin(self, connection: Connection, opened: Sequence[OpenedStream]) -> None:
        node = self._node
        streams = {
            state.stream: Started(state.offset, state.start, state.head, state.floor)
            for state in opened
            if connection.wants(state.stream)
        }
        expires_in = node.sign_ins.expires_in(connection.principal)
        connection.session.opened(node.name, self._store.epoch, self._ping_s, streams, expires_in=expires_in)
        connection.flush()
        for state in opened:
            if state.foreign is not None and state.stream in streams:
                cause = Removal(after=state.foreign, to=state.start, count=0, kind="epoch", at=0)
                connection.deliver(state.stream, (Gap(state.foreign, state.start, None, (cause,)),), {})
        for stream, started in streams.items():
            node.follow(connection, stream, started.start, started.stored, head=started.head)
        for state in opened:
            if state.stream == user_stream(connection.user) and state.stream not in streams:
                # It is told nothing of its inbox; but groups joined or left elsewhere are known from there alone.
                node.follow(connection, state.stream, state.head, state.head, head=state.head)
        self._look_at_hints(connection, opened)

    def _look_at_hints(self, connection: Connection, opened: Sequence[OpenedStream]) -> None:
        """Hints that came after the session was opened and before `welcome` were not listened to."""
        inbox, tracks = user_stream(connection.user), self._node.delivery.tracks
        connection.inbox_head = next((state.head for state in opened if state.stream == inbox), ZERO)
        position = tracks[inbox].position if inbox in tracks else None
        if position is not None and connection.inbox_head < position:
            self._node.memberships.look_again(connection)
