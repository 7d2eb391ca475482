"""The node: its connections, what their sessions ask for, and what the mailbox brings for them.

The way of a message through here: `carry_out` (a session's `Publish`) → `sends` → the store … mailbox → `reader` →
`dispatch` → `_push` → `Connection.out`, which the end of the turn writes.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal

from service.auth import Principal, may
from service.config import Settings
from service.core import commands
from service.core.commands import Command
from service.core.delivery import Cursor, Delivery, Step, Track
from service.core.entries import Arrival
from service.core.names import EntryId, follows, parse_stream, user_stream
from service.core.session import Life, Session
from service.errors import Unavailable, Uncertain, WaypostError
from service.log import Log, bound
from service.metrics import Numbers
from service.node import departures
from service.node.attach import Attachments
from service.node.calls import Calls
from service.node.commits import Commits
from service.node.connection import Codec, Connection, DeafConnection, Item, Socket, wants_all
from service.node.ending import Ending
from service.node.fence import Fence
from service.node.gauges import Gauges
from service.node.groups import Groups
from service.node.history import Histories
from service.node.lease import Presence
from service.node.marked import Mark, MarkedConnection
from service.node.memberships import Memberships
from service.node.opening import Openings
from service.node.pages import Pages
from service.node.rates import Rates, too_fast
from service.node.reader import Reader
from service.node.sends import Sends
from service.node.sign_ins import SignIns
from service.node.tails import Tails
from service.node.turn import PIECE_BYTES, Turn
from service.store import Store


class Node:
    """One server process: `run` it, `connect` sockets to it, and ask `not_ready` how it is."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.name = settings.node
        self.store = store
        self.settings = settings
        self.log = Log("node")
        self.numbers = Numbers()
        self.delivery: Delivery[Connection] = Delivery()
        self.connections: dict[int, Connection] = {}
        self.nodes_alive = 1
        self.ending = Ending(self, settings)
        self.fence = Fence(self, store)
        self.reader = Reader(self, store, settings)
        # A node that starts again under its name must not begin with tokens lower than those of its late calls.
        self.attachments = Attachments(self, store, self.delivery, settings, start_token=time.time_ns() // 1000)
        self.sends = Sends(self, store, settings)
        self.pages = Pages(self, store, settings.limits)
        self.tails = Tails(settings.limits)
        self.turn = Turn(self.log, self._poured)
        self.commits = Commits(self, store, settings)
        self.memberships = Memberships(self, store, settings.limits)
        self.histories = Histories(self, store, settings.limits)
        self.calls = Calls(self, settings.limits)
        self.groups = Groups(self, store, self.calls)
        self.openings = Openings(self, store, settings)
        self.sign_ins = SignIns(self, store, settings)
        self.rates = Rates(settings.limits, self.numbers)
        self.presence = Presence(self, store, settings)
        self.gauges = Gauges(self, store, settings)
        self._users: dict[str, set[Connection]] = {}
        self._numbers = 0
        self._stalled: list[Connection] = []
        self._is_dispatching = False
        self._written: dict[int, int] = {}  # ms of entries that were written in this turn → to how many connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._session_limits = commands.Limits(
            body_bytes=settings.limits.body_bytes,
            body_depth=settings.limits.body_depth,
            frame_bytes=settings.limits.frame_bytes,
            streams_per_user=settings.limits.streams_per_user,
            unanswered_sends=settings.limits.unanswered_sends,
            unanswered_bytes=settings.limits.unanswered_bytes,
            welcome_streams=settings.limits.welcome_streams,
            connection_sends_per_s=settings.limits.connection_sends_per_s,
            connection_sends_burst=settings.limits.connection_sends_burst,
        )

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything that goes on in the background, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for task in (
                    self.fence,
                    self.reader,
                    self.attachments,
                    self.sends,
                    self.commits,
                    self.presence,
                    self.gauges,
                ):
                    group.create_task(task.run(), name=type(task).__name__)
        finally:
            for spawned in list(self._tasks):
                spawned.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], whose: Connection | None = None) -> asyncio.Task[None]:
        """A task that the node keeps hold of; what it raises is logged, and all that it logs says whose it is."""
        if whose is None:
            task = asyncio.create_task(work)
        else:
            with bound(**whose.who()):
                task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("task_failed", traceback=error)

    async def drain(self) -> None:
        """Before the end: no new connections, everything sent is answered, clients are told, offsets are stored, and
        the store is told that this node is no more.
        """
        await self.ending.say_goodbye()
        await self.ending.leave()

    def not_ready(self) -> list[str]:
        """Why this node should get no new connections; empty when it is ready."""
        reasons = []
        if not self.fence.is_open:
            reasons.append(f"store: {self.fence.reason}")
        elif not self.reader.is_sound:
            reasons.append("reader: no mailbox")
        elif (silent := time.monotonic() - self.reader.last_seen) > self.settings.not_ready_s:
            reasons.append(f"reader: no beat for {silent:.1f} s")
        if self.ending.is_announced:
            reasons.append("draining")
        return reasons

    async def may_read(self) -> None:
        """Returns once the store is whole."""
        await self.fence.wait_until_open()

    def out_of_reach(self, problem: WaypostError) -> None:
        """A call failed. When that may mean another store or none, nobody goes on before it has been looked at."""
        has_answered = isinstance(problem, Uncertain) and problem.has_answered  # with an error, but it is there
        if problem.code in ("unavailable", "uncertain") and not has_answered:
            self.fence.trip(problem.detail)

    def history_changed(self) -> None:
        """The store has another epoch: what this node knows of streams is void. Clients come back with their
        offsets.
        """
        self.numbers.epoch_changes += 1
        self.log.warning("epoch_changed", epoch=self.store.epoch, connections=len(self.connections))
        for connection in list(self.connections.values()):
            connection.session.not_opened(Unavailable("the store has a new epoch"))
            connection.flush()
        self.delivery.tracks.clear()
        self.sends.forget_answered()
        self.commits.forget()
        self.reader.forget_notices()
        self.reader.doubt("another history", "history")

    def known_ids(self) -> dict[str, EntryId]:
        """Per stream the highest id that this node knows to be given out: dispatched, or answered lately."""
        known = self.delivery.positions()
        for stream, entry in self.sends.answered().items():
            known[stream] = max(entry, known.get(stream, entry))
        return known

    # -- connections ---------------------------------------------------------------------------------------------------

    def connect(
        self,
        socket: Socket,
        codec: Codec,
        principal: Principal,
        *,
        wants: Callable[[str], bool] = wants_all,
        hears_itself: bool = True,
        mark: Mark | None = None,
    ) -> Connection:
        """A client has connected and is `principal`. Its first frame is still to come.

        `wants` says which of the user's streams it is told of. Without `hears_itself` it is the old protocol: no entry
        of its own user is pushed, and it may learn that a group does not exist. With `mark`, which
        spells bookmarks, it is a `MarkedConnection`. Raises `too_many_connections`, `draining`, `rate_limited`, and
        `unauthorised` for a server key that was revoked just now, or may not read.
        """
        if self.ending.has_begun:
            raise WaypostError("draining")
        if len(self.connections) >= self.settings.limits.connections:
            raise WaypostError("too_many_connections", "this node has as many connections as it may")
        if not may(principal, "read", user_stream(principal.user)):
            raise WaypostError("unauthorised", "a server key needs the scope `read` to connect as a user")
        self.sign_ins.check(principal)
        if not principal.key:
            self.rates.count("requests", principal.user)
        if len(self._users.get(principal.user, ())) >= self.settings.limits.connections_per_user:
            raise WaypostError("too_many_connections", "this user has as many connections to this node as they may")
        self._numbers += 1

        def permits(action: Literal["send", "join"], stream: str) -> bool:
            return may(connection.principal, action, stream)

        def passed(stream: str) -> EntryId | None:
            return connection.passed(stream)

        def is_live(stream: str) -> bool:
            return connection.is_live(stream)

        session = Session(
            user=principal.user,
            permits=permits,
            limits=self._session_limits,
            passed=passed,
            is_live=is_live,
            tells_absence=not hears_itself,
            only_device=principal.device,
        )
        if mark is not None:
            kind: Callable[..., Connection] = partial(MarkedConnection, mark=mark)
        else:
            kind = Connection if hears_itself else DeafConnection
        connection = kind(
            self,
            self._numbers,
            session,
            principal,
            socket=socket,
            codec=codec,
            wants=wants,
            sends=self.rates.for_sends(),
        )
        self.connections[connection.number] = connection
        self.numbers.connections[connection.TRANSPORT] += 1
        self._users.setdefault(principal.user, set()).add(connection)
        self.sign_ins.watch(connection)
        departures.log_arrival(connection)
        return connection

    def disconnected(self, connection: Connection, code: int, reason: str) -> None:
        """The socket is gone; `reason`: why we ended it, "" where we did not."""
        departures.log_departure(connection, code, reason)
        if self.connections.pop(connection.number, None) is not None:
            self.numbers.connections[connection.TRANSPORT] -= 1
        self.histories.forget(connection)
        self.sign_ins.forget(connection)
        others = self._users.get(connection.user)
        if others is not None:
            others.discard(connection)
            if not others:
                del self._users[connection.user]
        for stream in list(connection.cursors):
            self._drop(connection, stream)
        self.commits.hurry()

    # -- what sessions ask for -----------------------------------------------------------------------------------------

    def carry_out(self, connection: Connection, command: Command) -> None:
        """Does what a session asks for. Nothing here waits: what takes time answers the session later."""
        if isinstance(command, commands.Publish):
            self._send(connection, command)
        elif isinstance(command, commands.Commit):
            self.commits.put(connection, command)
        elif isinstance(command, commands.Open):
            self.spawn(self.openings.open(connection, command), connection)
        elif isinstance(command, commands.ChangeMembership):
            self._change_membership(connection, command)
        elif isinstance(command, commands.LookBack):
            self._look_back(connection, command)
        elif isinstance(command, commands.Renew):
            self.sign_ins.renew(connection, command)
        else:
            connection.hang_up(command.code, command.reason)

    def _send(self, connection: Connection, command: commands.Publish) -> None:
        if connection.session.life is Life.CLOSED:
            return  # something before it was refused: it must not overtake that
        wait_s = 0.0 if connection.sends is None else connection.sends.take(time.monotonic())
        if wait_s:
            self.numbers.too_fast("connection_sends")
            self.numbers.refused_send("rate_limited")
            connection.session.failed(command.number, too_fast("messages from this connection", wait_s))
        else:
            self.sends.put(connection, command)

    def _change_membership(self, connection: Connection, command: commands.ChangeMembership) -> None:
        try:
            self.rates.count("joins", connection.user)
        except WaypostError as problem:
            connection.session.failed(command.number, problem)
        else:
            self.spawn(self.memberships.change(connection, command), connection)

    def _look_back(self, connection: Connection, command: commands.LookBack) -> None:
        try:
            self.rates.count("histories", connection.user)
        except WaypostError as problem:
            connection.session.not_answered(problem, command.ref)
        else:
            self.histories.put(connection, command)

    # -- following -----------------------------------------------------------------------------------------------------

    def follow(
        self, connection: Connection, stream: str, passed: EntryId, stored: EntryId, *, head: EntryId | None = None
    ) -> None:
        """The connection, which has everything up to `passed`, follows a stream from now on.

        `stored` is the offset that the server has for the device; `head` the stream's, when it was read just now.
        """
        if connection.is_closed:  # perhaps by what its client said along with `hello`
            return
        track = self.delivery.track(stream)
        cursor = track.follow(connection, passed)
        connection.follow(cursor, stored)
        self.attachments.want(stream)
        self._begin_at(cursor, head)

    def _begin_at(self, cursor: Cursor[Connection], head: EntryId | None) -> None:
        """A cursor that has everything up to the head needs no page to be live; any other reads on."""
        connection, stream = cursor.link, cursor.stream
        track = self.delivery.tracks[stream]
        has_all = cursor.passed == head and not cursor.must_read
        if has_all and not connection.is_paused and track.page(cursor, cursor.passed, cursor.passed):
            connection.session.caught_up(stream)
            connection.flush()
        else:
            connection.read_on(stream)

    def unfollow(self, connection: Connection, stream: str) -> None:
        """The connection no longer follows a stream: the membership has ended."""
        if stream in connection.cursors:
            begins = connection.session.unfollow(stream)
            self._drop(connection, stream)
            connection.flush()
            if begins is not None:
                self.memberships.begin(connection, stream, begins)

    def _drop(self, connection: Connection, stream: str) -> None:
        connection.cursors.pop(stream, None)
        track = self.delivery.tracks.get(stream)
        if track is not None:
            track.unfollow(connection)
            if not track:
                self.attachments.release(stream)

    def attached(self, stream: str, head: EntryId) -> None:
        """The mailbox is on the stream's register since its head was `head`."""
        track = self.delivery.tracks.get(stream)
        if track is None:
            return
        before = track.position
        fallen = track.attached(head)
        if before is not None and head != before:
            self.missed(stream, fallen)
        for cursor in list(track.behind.values()):
            if stream == user_stream(cursor.link.user) and cursor.link.inbox_head < head:
                self.memberships.look_again(cursor.link)  # it was opened before that, and hints come only from now on
            self._begin_at(cursor, head)

    def missed(self, stream: str, fallen: list[Cursor[Connection]]) -> None:
        """Entries of the stream have passed the node by; these cursors have fallen behind for it."""
        self.read_on(fallen)
        kind, name = parse_stream(stream)
        if kind == "user":
            for connection in self.connections_of(name):
                self.memberships.look_again(connection)

    def read_on(self, fallen: list[Cursor[Connection]]) -> None:
        """These cursors have just fallen behind: their connections read pages."""
        for cursor in fallen:
            cursor.link.session.fell_behind(cursor.stream)
            cursor.link.flush()
            cursor.link.read_on(cursor.stream)

    def stalled(self, connection: Connection) -> None:
        """A socket's buffer is full. In the middle of a dispatch the tracks must not change: afterwards, then."""
        self._stalled.append(connection)
        if not self._is_dispatching:
            self._put_stalled_behind()

    def _put_stalled_behind(self) -> None:
        while self._stalled:
            connection = self._stalled.pop()
            for stream in list(connection.cursors):
                self._fall_behind(connection, stream)

    def connections_of(self, user: str) -> list[Connection]:
        """All connections of a user to this node."""
        return list(self._users.get(user, ()))

    def _fall_behind(self, connection: Connection, stream: str) -> None:
        track = self.delivery.tracks.get(stream)
        if track is not None:
            self.read_on(track.fall_behind(connection))

    # -- what the mailbox brings ---------------------------------------------------------------------------------------

    def dispatch(self, arrival: Arrival) -> None:
        """An entry came out of the mailbox: to the connections that are live on its stream."""
        stream, entry = arrival.stream, arrival.entry
        track = self.delivery.tracks.get(stream)
        if track is None:
            self.attachments.stray(stream)
            return
        step = track.arrived(entry.id, is_whole=not arrival.by_reference)
        if step is Step.PUSH:
            item = Item(arrival)
            self._push(item, track)
            if track.behind and entry.type != "redacted":
                self.tails.add(item)
            elif self.tails:
                self.tails.drop(stream)
            if track.ahead:
                track.settle()
            if self._stalled:
                self._put_stalled_behind()
        elif step is Step.HOLE:
            self.tails.drop(stream)
            is_next = track.position is not None and follows(entry.id, track.position)  # only its body is elsewhere
            fallen = track.skip_to(entry.id)
            if is_next:
                self.read_on(fallen)
            else:
                self.missed(stream, fallen)
        if entry.type in ("joined", "left"):
            self.memberships.changed(stream, entry, is_news=step is not Step.HAD)

    def _push(self, item: Item, track: Track[Connection]) -> None:
        """To everybody who is live. The loop is bare, for most of the time of a busy node passes here: what it does for
        a connection that takes every entry is `Turn.add`, written out.
        """
        origin = None if item.arrival.origin is None else self.connections.get(item.arrival.origin[0])
        written, encode, data = self.turn.connections, None, b""
        # Those with the same to write so far have the same before them and the same then: it is put together once.
        before: bytes | None = None
        joined = b""
        broken = []
        numbers, live = self.numbers, list(track.live)
        pushed, asked = numbers.pushed, 0
        self._is_dispatching = True
        for connection in live:
            try:
                spelling = connection.spelling
                if connection is origin:
                    asked += 1
                    connection.push_own(item)
                elif spelling is None:
                    asked += 1
                    connection.push(item)
                else:
                    if spelling is not encode:
                        encode, data = spelling, item.ready(spelling)
                        before = None
                    out = connection.out
                    if out is None:
                        written.append(connection)
                        connection.out = data
                    elif len(out) >= PIECE_BYTES:
                        connection.out = data
                        connection.send(out)
                    else:
                        if out is not before:
                            before, joined = out, out + data
                        connection.out = joined
            except Exception as error:  # noqa: BLE001 - a bug in one connection is not to cost the others their entry
                self.log.error("push_failed", traceback=error, stream=track.stream, **connection.who())
                broken.append(connection)
        self._is_dispatching = False
        numbers.pushed += len(live) - asked  # those that were asked have counted themselves
        ms = item.arrival.entry.id.ms
        self._written[ms] = self._written.get(ms, 0) + numbers.pushed - pushed
        for connection in broken:
            connection.break_off()

    def _poured(self) -> None:
        """What a turn has brought is written: how long that took since it was stored, by the store's clock."""
        written, self._written = self._written, {}
        now_ms = self.store.reckoned_ms() if written else None
        if now_ms is not None:
            for ms, times in written.items():
                self.numbers.written_s.observe(max(0.0, now_ms - ms) / 1000, times)
