"""One connection's conversation, without I/O: frames and events in, frames and commands out.

The life of a connection is the table `LIFE`. A shell (see `service/node/connection.py`) feeds what arrives
(`receive`), tells what became of commands (`opened`, `answered`, `joined` …), and after each asks with `flush` for
what is to be written and done. In which order what it sends goes out is `service/core/pending.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Literal

import msgspec

from service.core import commands, frames, history
from service.core.bodies import check_body
from service.core.commands import (
    ChangeMembership,
    Close,
    Command,
    Commit,
    Limits,
    Open,
    Publish,
    Renew,
    Started,
    Stored,
)
from service.core.entries import Durability
from service.core.frames import ClientFrame, Malformed, Ref, ServerFrame
from service.core.names import ZERO, EntryId, check_name, group_stream, had, parse_id, parse_stream, user_stream
from service.core.pending import Answer, Pending, Unanswered, size_of
from service.core.welcome import Greeting, welcome
from service.errors import CLOSE_TRY_AGAIN, ERRORS, WaypostError

GREETINGS = (frames.Hello, frames.Offsets)

# With these the whole call failed: what the connection sent after it must not overtake it.
CALL_FAILURES = frozenset({"unavailable", "uncertain", "storage_full", "internal"})


class Life(Enum):
    """Where a connection is in its life."""

    NEW = "waiting for hello"
    COLLECTING = "hello said that more offsets follow"
    OPENING = "the store is being asked"
    OPEN = "open"
    CLOSED = "closed"

    __hash__ = object.__hash__  # Enum's own is in Python, and called at every look into a table


# Which frames are taken when; the value is where the connection is afterwards. Anything else is answered with an error.
LIFE: dict[tuple[Life, type[msgspec.Struct]], Life] = {
    (Life.NEW, frames.Hello): Life.OPENING,
    (Life.COLLECTING, frames.Offsets): Life.OPENING,
    (Life.NEW, frames.Ping): Life.NEW,
    (Life.COLLECTING, frames.Ping): Life.COLLECTING,
    (Life.OPENING, frames.Ping): Life.OPENING,
    **{
        (life, kind): life
        for life in (Life.OPENING, Life.OPEN)  # what comes before `welcome` waits for it
        for kind in (frames.Send, frames.Join, frames.Leave, frames.Ack, frames.AskHistory, frames.Auth)
    },
    (Life.OPEN, frames.Ping): Life.OPEN,
}


class Session:
    """One connection of `user`.

    `permits` tells whether its sign-in allows to send to a stream, or to join a group; `only_device` is the one device
    that it may be, None: any. `passed` tells up to where a stream has passed this connection (None: it is not
    followed); `is_live` whether new entries of a stream are pushed to it. `tells_absence`: whether the client may learn
    that a group does not exist.
    """

    def __init__(
        self,
        *,
        user: str,
        permits: Callable[[Literal["send", "join"], str], bool],
        limits: Limits,
        passed: Callable[[str], EntryId | None],
        is_live: Callable[[str], bool],
        tells_absence: bool = False,
        only_device: str | None = None,
    ) -> None:
        self.user = user
        self._inbox = user_stream(user)
        self.device = ""
        self.life = Life.NEW
        self.streams: dict[str, EntryId] = {}  # followed streams → the offset stored for the device
        self.ended: dict[str, EntryId] = {}  # streams no longer followed → up to where they passed: acks still come
        self._permits = permits
        self._only_device = only_device
        self._limits = limits
        self._passed = passed
        self._is_live = is_live
        self._tells_absence = tells_absence
        self._offsets: dict[str, EntryId] = {}
        self._epoch: str | None = None
        self._early: list[ClientFrame] = []  # frames that came before `welcome`
        self._asked = Unanswered()
        self._others = 0  # acks, questions after history and tokens without an answer
        self._catching_up: set[str] = set()  # streams of `welcome` that are not caught up
        self._was_live = False
        self._fallen: set[str] = set()  # streams that fell behind after `live`
        self._frames: list[ServerFrame] = []
        self._commands: list[Command] = []

    @property
    def asked(self) -> int:
        """How many messages, joins and leaves the client has asked for."""
        return self._asked.count

    # -- in: frames ----------------------------------------------------------------------------------------------------

    def receive(self, received: Iterable[ClientFrame | Malformed]) -> None:
        """Takes the frames of one WebSocket message."""
        for frame in received:
            if self.life is Life.CLOSED:
                return
            if isinstance(frame, Malformed):
                self._refuse(WaypostError(frame.code, frame.detail), frame.ref)
            else:
                self._take(frame)

    def _take(self, frame: ClientFrame) -> None:
        if (self.life, type(frame)) not in LIFE:
            is_again = self.life is not Life.NEW and isinstance(frame, GREETINGS)
            self._refuse(WaypostError("hello_twice" if is_again else "hello_expected"), getattr(frame, "ref", None))
            return
        try:
            if isinstance(frame, frames.Ping):
                self._frames.append(frames.Pong(frame.ref))
            elif isinstance(frame, GREETINGS):
                self._collect(frame)
            elif self.life is Life.OPENING:
                self._early.append(frame)
                self._asked.bytes += size_of(frame)
            else:
                self._act(frame)
        except WaypostError as problem:
            self._refuse(problem, getattr(frame, "ref", None))

    def _collect(self, frame: frames.Hello | frames.Offsets) -> None:
        offsets = {stream: parse_id(text) for stream, text in frame.offsets.items()}
        for stream in offsets:
            parse_stream(stream)
        if isinstance(frame, frames.Hello):
            self.device = self._device_of(frame)
            self._epoch = frame.epoch
            self._offsets = {}
        if len(self._offsets) + len(offsets) > 2 * self._limits.streams_per_user + 2:
            raise WaypostError("bad_request", "more offsets than a user can have streams")
        self._offsets.update(offsets)
        if frame.more:
            self.life = Life.COLLECTING
            return
        self.life = Life.OPENING
        self._commands.append(Open(self.device, self._offsets, self._epoch))
        self._offsets = {}

    def _device_of(self, frame: frames.Hello) -> str:
        if self._only_device is None:
            return check_name(frames.DEVICE_DEFAULT if frame.device is None else frame.device)
        if frame.device not in (None, self._only_device):
            raise WaypostError("forbidden", "the token is for another device")
        return self._only_device

    def _act(self, frame: ClientFrame) -> None:
        if isinstance(frame, frames.Send):
            self._send(frame)
        elif isinstance(frame, frames.Join | frames.Leave):
            check_name(frame.group)
            stream = group_stream(frame.group)
            if not self._permits("join", stream):
                raise WaypostError("not_allowed", "joining and leaving groups is not allowed with this sign-in")
            command = ChangeMembership(self._asked.number(), frame.group, isinstance(frame, frames.Join))
            self._admit(Pending(frame.ref, command, len(frame.group), stream))
        elif isinstance(frame, frames.Ack):
            self._acknowledge(frame)
        elif isinstance(frame, frames.AskHistory):
            self._commands.append(commands.LookBack(history.asked(frame, self.user), frame.ref))
            self._others += 1
        elif isinstance(frame, frames.Auth):
            self._commands.append(Renew(frame.token, frame.ref))
            self._others += 1

    def _send(self, frame: frames.Send) -> None:
        kind, _ = parse_stream(frame.to)
        body = check_body(bytes(frame.body), self._limits)
        if not self._permits("send", frame.to):
            needed = "sending to all needs the claim `broadcast`" if kind == "all" else "this sign-in may not send"
            raise WaypostError("not_allowed", needed)
        command = Publish(self._asked.number(), frame.to, body, frame.key)
        # One finds a direct message in the own inbox; the numbers of another person's are shown to nobody.
        seen_in = self._inbox if kind == "user" else frame.to
        self._admit(Pending(frame.ref, command, len(body), seen_in))

    def _acknowledge(self, frame: frames.Ack) -> None:
        offsets = {stream: parse_id(text) for stream, text in frame.offsets.items()}
        for stream, offset in offsets.items():
            parse_stream(stream)
            limits = self._passed(stream), self.streams.get(stream), self.ended.get(stream)
            reachable = [limit for limit in limits if limit is not None]
            if not any(had(offset, limit) for limit in reachable):
                raise WaypostError("ack_beyond", f"{stream} {offset} has not been delivered on this connection")
        forward = {stream: offset for stream, offset in offsets.items() if offset > self.streams.get(stream, ZERO)}
        self.streams.update({stream: offset for stream, offset in forward.items() if stream in self.streams})
        if frame.ref is not None:
            self._others += 1
        if forward or frame.ref is not None:
            self._commands.append(Commit(forward, frame.ref, frame.ref is not None))

    def _admit(self, pending: Pending) -> None:
        self._asked.admit(pending)
        self._commands += self._asked.advance()

    @property
    def is_congested(self) -> bool:
        """Whether so much is unanswered that the socket should not be read."""
        unanswered = len(self._asked.pending) + len(self._early) + self._others
        return unanswered >= self._limits.unanswered_sends or self._asked.bytes >= self._limits.unanswered_bytes

    # -- in: what became of commands ----------------------------------------------------------------------------------

    def opened(
        self, node: str, epoch: str, ping: float, streams: Mapping[str, Started], *, expires_in: float | None = None
    ) -> None:
        """The store opened the session: `welcome`, and whatever the client sent since `hello`.

        `ping` and `expires_in` (the sign-in; None: never) are in seconds.
        """
        self.life = Life.OPEN
        self.streams = {stream: started.stored for stream, started in streams.items()}
        self._catching_up = set(streams)
        greeting = Greeting(self.user, self.device, node, epoch, ping, expires_in)
        self._frames += welcome(greeting, streams, self._limits)
        early, self._early = self._early, []
        self._asked.bytes -= sum(size_of(frame) for frame in early)
        self.receive(early)

    def not_opened(self, problem: WaypostError) -> None:
        """The session could not be opened: the client is told, and comes back later when that may help."""
        close = ERRORS[problem.code].close
        self._frames.append(frames.error_frame(problem))
        self._close(close or (CLOSE_TRY_AGAIN if problem.retry else 4105), problem.code)

    def mid_of(self, number: int, made: str) -> str:
        """The message id of a send: its key where one was given, else `made`. Remembered for `sent`."""
        pending = self._asked.pending[number]
        assert isinstance(pending.command, Publish)
        pending.mid = pending.command.key or made
        return pending.mid

    def answered(self, number: int, stored: Stored) -> None:
        """The call stored a message. On a live stream the reader says `sent`, in its place among the pushes."""
        pending = self._asked.settle(number)
        if pending is not None:  # else the reader was faster
            wait = stored.is_coming and self._is_to_come(stored.stream, stored.id)
            answer = self._sent(pending, stored.stream, stored.id, stored.durability, is_duplicate=stored.is_duplicate)
            self._answer(pending, answer, wait=wait)
        self._commands += self._asked.advance()

    def failed(self, number: int, problem: WaypostError) -> None:
        """The call refused or failed. When the store was out of reach, what waited behind it fails too."""
        pending = self._asked.settle(number)
        if pending is None:
            return
        self._asked.forget(number)
        if problem.code == "no_group" and not self._tells_absence:
            problem = WaypostError("not_member")
        if problem.code == "uncertain":  # joining and leaving are harmless twice; a send is when it has a key
            is_harmless = isinstance(pending.command, ChangeMembership) or pending.command.key is not None
            problem = WaypostError("uncertain", retry=is_harmless)
        if ERRORS[problem.code].close is not None:  # `rate_limited`
            self._conclude(problem, pending.ref)
            return
        self._frames.append(frames.error_frame(problem, pending.ref))
        if problem.code in CALL_FAILURES:
            unavailable = WaypostError("unavailable", "what was sent before it failed")
            self._frames += [frames.error_frame(unavailable, later.ref) for later in self._asked.give_up_waiting()]
        self._commands += self._asked.advance()

    def joined(self, number: int, group: str, entry: EntryId) -> None:
        """The user is a member of `group` since `entry`. Numbers count anew from the answer: it waits until all that is
        still to come of an earlier membership has passed.
        """
        pending = self._asked.settle(number)
        if pending is not None:
            passed = self._passed(pending.stream)
            answer = frames.Joined(pending.stream, str(entry), self.user, group, pending.ref)
            self._answer(pending, answer, wait=passed is not None and passed < entry)
        self._commands += self._asked.advance()

    def left(self, number: int, entry: EntryId, *, is_coming: bool) -> None:
        """The user is no longer a member, up to `entry`; `is_coming`: the own `left` entry comes through the
        mailbox.
        """
        pending = self._asked.settle(number)
        if pending is not None:
            wait = is_coming and self._is_to_come(pending.stream, entry)
            # A client must not hear that it left, and then of the joining before that.
            wait = wait or self.due(pending.stream) is not None
            self._answer(pending, self._left(pending, entry), wait=wait)
        self._commands += self._asked.advance()

    def committed(self, ref: Ref) -> None:
        """The offsets of an `ack` are stored."""
        self._others -= 1
        self._frames.append(frames.Acked(ref))

    def not_committed(self, ref: Ref, problem: WaypostError) -> None:
        """The offsets of an `ack` could not be stored yet (the node goes on trying). Storing them twice is harmless."""
        self._others -= 1
        if problem.code == "uncertain":
            problem = WaypostError("uncertain", retry=True)
        self._frames.append(frames.error_frame(problem, ref))

    # -- in: what happens on the streams ------------------------------------------------------------------------------

    def hold(self, number: int) -> bool:
        """The reader is at the entry of our send `number`: whether its answer is still to come, and must be waited for.

        Used where the answer says more than the entry does (`replicated`). The shell then keeps everything back that is
        written to the connection, and calls `own_entry` once `is_held` says no: `sent` keeps its place.
        """
        pending = self._asked.pending.get(number)
        if pending is None or pending.answer is not None or not isinstance(pending.command, Publish):
            return False
        pending.is_held = True
        return True

    def is_held(self, number: int) -> bool:
        """Whether the answer that `hold` waits for is still to come."""
        pending = self._asked.pending.get(number)
        return pending is not None and pending.is_held and pending.answer is None

    def looked_back(self, answer: frames.History | frames.Error) -> None:
        """The answer to a question after history; it keeps no order with anything."""
        self._others -= 1
        self._frames.append(answer)

    def renewed(self, ref: Ref, expires_in: float | None) -> None:
        """A token was taken: it says the same user, and holds for so many seconds (None: for ever)."""
        self._others -= 1
        self._frames.append(frames.Authorised(self.user, expires_in, ref))

    def not_answered(self, problem: WaypostError, ref: Ref) -> None:
        """A token was not taken, or a question after history not looked into."""
        self._others -= 1
        if ERRORS[problem.code].close is None:
            self._frames.append(frames.error_frame(problem, ref))
        else:
            self._conclude(problem, ref)

    def own_entry(self, number: int, stream: str, entry: EntryId, durability: Durability) -> bool:
        """The reader dispatches, on a live stream, the entry that our send or leave `number` made.

        Returns whether it was turned into the answer; if not (it was answered before), it is pushed like any entry.
        """
        pending = self._asked.pending.get(number)
        if pending is None or stream != pending.stream:
            return False
        answer = pending.answer
        if isinstance(pending.command, Publish):
            answer = answer or self._sent(pending, stream, entry, durability)
        elif not pending.command.is_join:
            answer = answer or self._left(pending, entry)
        else:
            return False
        self._asked.settle(number)
        self._answer(pending, answer, wait=False)
        self._commands += self._asked.advance()
        return True

    def follow(self, stream: str, offset: EntryId) -> None:
        """The connection begins to follow a stream after `welcome`."""
        self.ended.pop(stream, None)
        self.streams[stream] = max(offset, self.streams.get(stream, offset))
        if self._was_live:
            self._fallen.discard(stream)

    def unfollow(self, stream: str) -> EntryId | None:
        """The connection no longer follows a stream. Call it while `passed` still knows it.

        Returns where the next membership begins when the answer to that joining has waited for the end of this one, and
        is given with it: follow the stream again from there.
        """
        passed, begins = self._passed(stream), self.due(stream)
        if passed is not None:
            self.ended[stream] = passed
            if len(self.ended) > self._limits.streams_per_user:  # who joins and leaves all day costs no more than that
                del self.ended[next(iter(self.ended))]
        self._release(stream, passed if begins is None else begins)
        self.streams.pop(stream, None)
        self._fallen.discard(stream)
        self.caught_up(stream)
        return begins

    def restarted(self, stream: str, offset: EntryId) -> None:
        """The offset belonged to another history (a gap of cause `epoch` was announced): count from `offset` now."""
        if stream in self.streams:
            self.streams[stream] = offset

    def fell_behind(self, stream: str) -> None:
        """Entries of the stream are no longer pushed: sends that waited for the reader are answered now."""
        if stream in self.streams:  # else it is only overheard: the client is told nothing of it
            (self._fallen if self._was_live else self._catching_up).add(stream)
        self._release(stream, self._passed(stream))

    def due(self, stream: str) -> EntryId | None:
        """The joining whose answer waits for what is still to come of the stream before it; None: there is none."""
        return next(
            (p.joins_at for p in self._asked.pending.values() if p.stream == stream and p.joins_at is not None), None
        )

    def passed_on(self, stream: str) -> None:
        """More of a stream has passed this connection: perhaps all that the answer to a joining waits for."""
        due, passed = self.due(stream), self._passed(stream)
        if due is not None and (passed is None or passed >= due):
            self._release(stream, passed)

    def caught_up(self, stream: str) -> None:
        """Everything of the stream up to now has passed this connection."""
        if stream in self._fallen:
            self._fallen.discard(stream)
            self._frames.append(frames.Live(stream))
        if not self._was_live:
            self._catching_up.discard(stream)
            if not self._catching_up and self.life is Life.OPEN:
                self._was_live = True
                self._frames.append(frames.Live())

    def end(self, code: str) -> None:
        """Ends the connection with an error of the table that has a close code. What is stored is answered before."""
        self._conclude(WaypostError(code), None)

    def _conclude(self, problem: WaypostError, ref: Ref) -> None:
        for pending in list(self._asked.pending.values()):
            # Who heard of a joining would come back counting from there, and miss what has not come of the time before.
            if pending.answer is not None and pending.joins_at is None:
                self._answer(pending, pending.answer, wait=False)
        self._refuse(problem, ref)

    # -- out ----------------------------------------------------------------------------------------------------------

    def flush(self) -> tuple[list[ServerFrame], list[Command]]:
        """What is to be written, and then done, since the last call."""
        written, asked = self._frames, self._commands
        self._frames, self._commands = [], []
        return written, asked

    def _release(self, stream: str, upto: EntryId | None) -> None:
        """Answers what waits on a stream, in the order it was asked; but no joining above `upto`, whose place is still
        to come, and no change of membership after that.
        """
        is_above = False
        for pending in [p for p in self._asked.pending.values() if p.stream == stream and p.answer is not None]:
            joins_at = pending.joins_at
            is_above |= joins_at is not None and upto is not None and upto < joins_at
            if pending.answer is not None and not (is_above and isinstance(pending.command, ChangeMembership)):
                self._answer(pending, pending.answer, wait=False)

    def _answer(self, pending: Pending, answer: Answer, *, wait: bool) -> None:
        """Answers now, or (`wait`) when its place has come: the reader may be there already (`hold`)."""
        if wait or (pending.is_held and pending.answer is None):
            pending.answer = answer
        else:
            self._asked.forget(pending.command.number)
            self._frames.append(answer)

    def _is_to_come(self, stream: str, entry: EntryId) -> bool:
        """Whether the reader will get to this entry on a live stream. It may have come by, while a page brought it."""
        passed = self._passed(stream)
        return self._is_live(stream) and (passed is None or not had(entry, passed))

    def _sent(
        self, pending: Pending, stream: str, entry: EntryId, durability: Durability, *, is_duplicate: bool = False
    ) -> frames.Sent:
        return frames.Sent(stream, str(entry), pending.mid, is_duplicate, durability, ref=pending.ref)

    def _left(self, pending: Pending, entry: EntryId) -> frames.Left:
        assert isinstance(pending.command, ChangeMembership)
        return frames.Left(pending.stream, str(entry), self.user, pending.command.group, pending.ref)

    def _refuse(self, problem: WaypostError, ref: Ref) -> None:
        self._frames.append(frames.error_frame(problem, ref))
        close = ERRORS[problem.code].close
        if close is not None:
            self._close(close, problem.code)

    def _close(self, code: int, reason: str) -> None:
        self.life = Life.CLOSED
        self._commands.append(Close(code, reason))
