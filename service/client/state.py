"""A client's conversation with the service, without I/O: what it says, what it makes of the answers, what it repeats.

The shell (`client.py`) feeds what happens (`begin` a connection, `receive`, `lost`, operations that the program wants,
events that it has `took`), asks with `flush` for what is to be written, and looks at `ending` and `gave_up` for whether
to go on. Time is an argument, in seconds of a clock that never goes back; nothing here waits.

    down ─ begin → greeting ─ welcome → listing ─ last `streams` → open
      ▲               │  welcome without `more` ───────────────────▲ │
      └───────────────┴────────────── lost ──────────────────────────┘
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from service.client import closing
from service.client.backoff import Backoff
from service.client.events import Closed, Connected, Disconnected, Event, GaveUp
from service.client.outbox import Bounds, Operation, Outbox
from service.client.positions import Fate, Positions
from service.client.wire import Entry, Frame, Unknown, WireError, decode, encode
from service.core import frames
from service.core.names import EntryId, parse_id
from service.errors import WaypostError

ACK_EVERY_S = 0.5  # acknowledgements of half a second go together; the server stores them within a second
EVENTS_MOST = 256  # events that wait for the program; above it the socket is not read, and the server keeps the rest
GREETING_S = 10.0  # for the `welcome`; the store may be slow, and a silent server is as good as none
STABLE_S = 2.0  # a connection that lasted this long was a good one: back-off begins anew
OFFSETS_BYTES = 32_768  # of one `hello` or `offsets` frame, well below what a server takes


class Life(Enum):
    """Where the connection is in its life."""

    DOWN = "there is none"
    GREETING = "hello was said"
    LISTING = "welcome came, and more streams follow"
    OPEN = "open"


class Item(NamedTuple):
    """An event on its way to the program, and the position that it stands for.

    `event` is None for what the program has had before: only its position counts.
    """

    event: Event | None
    stream: str = ""
    id: EntryId | None = None
    generation: int = 0
    restarts: bool = False


class State:
    """One client. `is_listening`: the program wants the events; else they count as taken when they come."""

    def __init__(
        self,
        *,
        device: str,
        jitter: Callable[[], float],
        is_listening: bool = True,
        acknowledges: bool = True,
        offsets: Mapping[str, str] | None = None,
        epoch: str | None = None,
    ) -> None:
        self.life = Life.DOWN
        self.user = ""
        self.is_listening = is_listening
        self.is_live = False
        self.trouble = "not connected yet"  # why there is no connection, "" while there is one
        self.ending = ""  # set: this connection is to be closed, and why
        self.gave_up: GaveUp | None = None
        self.outbox = Outbox(jitter)
        self._device = device
        self._acknowledges = acknowledges
        self._given = {stream: parse_id(offset) for stream, offset in (offsets or {}).items()}
        self._given_epoch = epoch
        self._positions = Positions(self._given, epoch)
        self._backoff = Backoff(jitter)
        self._events: deque[Item] = deque()
        self._yielded: Item | None = None
        self._was_told_down = False
        self._welcome: frames.Welcome | None = None
        self._starts: dict[str, EntryId] = {}
        self._bounds = Bounds()
        self._error: frames.Error | None = None  # the last one that answered nothing in particular
        self._opened_at: float | None = None
        self._ping_s = GREETING_S / 2
        self._ping_at = 0.0
        self._ack_at: float | None = None
        self._numbers = 0
        self._confirming: set[frames.Ref] | None = None  # acknowledgements to be confirmed before leaving
        self._lines: list[bytes] = []

    # -- one connection after the other ----------------------------------------------------------------------------------

    def begin(self) -> list[bytes]:
        """A connection stands. Returns the frames that begin the conversation."""
        self.life = Life.GREETING
        self.ending, self._error, self._opened_at = "", None, None
        self._starts = {}
        self._lines = []
        # Bringing offsets acknowledges them, so who does not acknowledge brings what the program gave, and no more.
        epoch, offsets = self._positions.brought() if self._acknowledges else (self._given_epoch, self._given)
        parts: list[dict[str, str]] = [{}]
        size = 0
        for stream, offset in offsets.items():
            size += len(stream.encode()) + len(str(offset)) + 6
            if size > OFFSETS_BYTES:
                parts.append({})
                size = 0
            parts[-1][stream] = str(offset)
        hello = frames.Hello(self._device, parts[0], epoch=epoch if offsets else None, more=len(parts) > 1)
        return [
            encode(hello),
            *(encode(frames.Offsets(part, more=part is not parts[-1])) for part in parts[1:]),
        ]

    def lost(self, now: float, code: int | None, reason: str = "") -> float:
        """The connection is gone, or could not be made. Returns the pause before the next try, unless `gave_up`.

        `code` is the WebSocket close code, None where none came; `reason` what is known besides.
        """
        error, trouble = self._error, self.ending
        if not trouble:
            trouble = f"{error.code}: {error.message}" if error is not None else closing.explain(code, reason)
        if closing.is_final(code) and not self.ending:
            self.gave_up = GaveUp(trouble, code)
        if self._opened_at is not None and now - self._opened_at >= STABLE_S:
            self._backoff.reset()
        self.life = Life.DOWN
        self.is_live = False
        self.trouble = trouble
        self.outbox.lost()
        if self.gave_up is not None:
            self.outbox.end(self.gave_up)
        if not self._was_told_down:
            self._was_told_down = True
            self._put(Item(Disconnected(trouble, code)))
        return self._backoff.pause(error.retry_after if error is not None else None)

    @property
    def patience(self) -> float:
        """How long to wait for anything to come, in seconds, before the connection counts as lost."""
        return 2 * self._ping_s

    # -- what comes ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Takes one WebSocket message. What follows from it is in `flush`, `next_event`, `outbox.settled`, `ending`."""
        try:
            for frame in decode(data):
                if self.ending:
                    return
                self._take(frame, now)
        except (WireError, WaypostError) as problem:
            self.ending = f"the server sent what is not the wire: {problem}"

    def _take(self, frame: Frame, now: float) -> None:
        if isinstance(frame, frames.Error):
            self._take_error(frame, now)
        elif isinstance(frame, frames.Pong):
            pass
        elif self.life is not Life.OPEN:
            self._take_welcome(frame, now)
        elif isinstance(frame, frames.Gap):
            self._take_gap(frame)
        elif isinstance(frame, frames.Acked):
            self._confirmed(frame.ref)
        elif isinstance(frame, frames.Live):
            self.is_live = self.is_live or frame.stream is None
            self._put(Item(frame))
        elif isinstance(frame, frames.Welcome | frames.Streams):
            raise WireError("welcome in mid-conversation")
        else:
            self._take_entry(frame)

    def _take_welcome(self, frame: Frame, now: float) -> None:
        expected = frames.Welcome if self.life is Life.GREETING else frames.Streams
        if not isinstance(frame, frames.Welcome | frames.Streams) or not isinstance(frame, expected):
            raise WireError("anything but a welcome")
        self._starts.update({stream: parse_id(state.offset) for stream, state in frame.streams.items()})
        if isinstance(frame, frames.Welcome):
            self._welcome = frame
        self.life = Life.LISTING if frame.more else Life.OPEN
        welcome = self._welcome
        if frame.more or welcome is None:
            return
        self.user, self.trouble, self._opened_at = welcome.user, "", now
        self._ping_s = welcome.ping
        self._ping_at = now + welcome.ping
        usual = Bounds()
        self._bounds = Bounds(
            welcome.limits.get("unanswered_sends", usual.operations),
            welcome.limits.get("frame_bytes", usual.frame_bytes),
        )
        self._positions.opened(welcome.epoch, self._starts.items())
        self._was_told_down = False
        self._put(Item(Connected(welcome.user, welcome.device, welcome.node, welcome.epoch)))
        self._schedule_ack(now)  # what was taken while there was no connection

    def _take_error(self, error: frames.Error, now: float) -> None:
        if error.ref is not None:
            self._confirmed(error.ref)
            self.outbox.refused(error, now)
        elif self.life is Life.OPEN:
            self._error = error if error.code != "ack_beyond" else self._error  # said of a stream that we just left
        else:
            self._error = error
            if not error.retry:
                self.gave_up = GaveUp(f"{error.code}: {error.message}")
                self.ending = self.gave_up.reason

    def _take_entry(self, frame: Entry | frames.Sent) -> None:
        entry = parse_id(frame.id)
        is_answer = isinstance(frame, frames.Sent) or getattr(frame, "ref", None) is not None
        is_own = isinstance(frame, frames.Joined | frames.Left) and frame.user == self.user
        is_own = is_own and frame.stream == f"group:{frame.group}"
        begins = is_own and isinstance(frame, frames.Joined)
        fate = self._positions.entry(frame.stream, entry, begins=begins, is_answer=is_answer)
        if fate is Fate.HOLE:
            if not self._bridge(frame.stream, EntryId(entry.ms, max(entry.n - 1, 0)), frame.id):
                return
            fate = self._positions.entry(frame.stream, entry)
        self._hand_out(fate, Item(frame, frame.stream, entry, self._positions.generation))
        if is_own and isinstance(frame, frames.Left) and fate is not Fate.HAD:
            self._positions.ended(frame.stream)
        if isinstance(frame, frames.Message) and frame.from_ == self.user and self.outbox:
            self.outbox.saw(frame)
        if is_answer and not isinstance(frame, frames.Message | frames.Redacted | Unknown):
            self.outbox.answered(frame)

    def _take_gap(self, gap: frames.Gap, *, counts: bool = True) -> None:
        """A gap, announced or (with not `counts`) found by ourselves."""
        after, to = parse_id(gap.after), parse_id(gap.to)
        is_epoch = gap.missed is None or gap.cause.kind == "epoch"
        fate, start = self._positions.gap(gap.stream, after, to, is_epoch=is_epoch)
        if fate is Fate.HOLE:
            if not self._bridge(gap.stream, after, gap.to):
                return
            fate, start = self._positions.gap(gap.stream, after, to, is_epoch=is_epoch)
        if start != after and not is_epoch:
            gap = msgspec.structs.replace(gap, after=str(start), missed=to.n - start.n)
        place = to if counts else None
        self._hand_out(fate, Item(gap, gap.stream, place, self._positions.generation, is_epoch))

    def _bridge(self, stream: str, upto: EntryId, following: str) -> bool:
        """Something is missing before what came. Returns whether to go on: the second time it stays missing."""
        begin = self._positions.hole(stream, upto)
        if begin is None:
            self.ending = f"entries of {stream} are missing before {following}"
            return False
        is_other = upto.n <= begin.n  # numbers that go back are another history
        missed = None if is_other else upto.n - begin.n
        cause = frames.Cause("epoch" if is_other else "lost")
        gap = frames.Gap(stream, str(begin), str(upto), missed, cause, next=following)
        self._take_gap(gap, counts=False)
        return True

    # -- what the program gets -------------------------------------------------------------------------------------------

    def _hand_out(self, fate: Fate, item: Item) -> None:
        if fate is Fate.NEW:
            self._put(item)
        elif fate is Fate.AGAIN:
            self._put(item._replace(event=None))

    def _put(self, item: Item) -> None:
        if self._confirming is not None:
            return  # on leaving: what the program has not taken comes again next time
        if not self.is_listening:
            self._took(item)
        elif item.event is None and self._events and self._events[-1][:2] == item[:2]:
            self._events[-1] = item  # a replay of what was handed out before takes one place, not thousands
        else:
            self._events.append(item)

    def next_event(self) -> Event | None:
        """The next event for the program, None when there is none now. Call `took` when the program is done with it."""
        while self._events:
            item = self._events.popleft()
            if item.event is not None:
                self._yielded = item
                return item.event
            self._took(item)
        return None

    def took(self, now: float) -> None:
        """The program is done with the event that `next_event` gave last. May be called twice."""
        if self._yielded is not None:
            self._took(self._yielded)
            self._yielded = None
        self._schedule_ack(now)

    def _took(self, item: Item) -> None:
        if item.id is not None:
            self._positions.took(item.stream, item.id, item.generation, restarts=item.restarts)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read: the program is behind, and waits for no answer."""
        return len(self._events) >= EVENTS_MOST and not self.outbox and self._confirming is None

    @property
    def offsets(self) -> tuple[str | None, dict[str, str]]:
        """Epoch and offsets of what was taken: give them to the next client of this device."""
        epoch, offsets = self._positions.brought()
        return epoch, {stream: str(offset) for stream, offset in offsets.items()}

    # -- what goes out ---------------------------------------------------------------------------------------------------

    def number(self) -> int:
        """A `ref` that was not used before."""
        self._numbers += 1
        return self._numbers

    def submit(self, frame: frames.Send | frames.Join | frames.Leave) -> Operation:
        """Puts an operation, with a `ref` from `number`, behind the others."""
        assert isinstance(frame.ref, int)
        operation = Operation(frame.ref, frame)
        self.outbox.add(operation)
        return operation

    def flush(self, now: float) -> list[bytes]:
        """The WebSocket messages to write now."""
        if self.life is not Life.OPEN or self.ending:
            return []
        written: list[bytes] = []
        batch = self.outbox.batch(now, self._bounds, is_live=self.is_live)
        if batch:
            written.append(batch)
        if not self.is_listening:
            self._schedule_ack(now)
        if self._ack_at is not None and now >= self._ack_at:
            self._ack_at = None
            self._acknowledge(self._positions.to_acknowledge())
        if now >= self._ping_at:
            self._ping_at = now + self._ping_s
            self._lines.append(encode(frames.Ping()))
        return written + self._pack()

    def due(self, now: float) -> float:
        """When to call `flush` again though nothing happens until then."""
        moments = [self._ping_at, self._ack_at, self.outbox.due(now)]
        return min(moment for moment in moments if moment is not None)

    def leave(self) -> None:
        """The program goes: acknowledges everything it took, now. Write what `flush` gives until `has_left`."""
        if self._confirming is not None:
            return
        self._confirming = set()
        self._events.clear()
        self._yielded = None
        if self.life is Life.OPEN and self._acknowledges:
            for stream, offset in self._positions.to_confirm().items():
                ref = self.number()
                self._confirming.add(ref)
                self._lines.append(encode(frames.Ack({stream: str(offset)}, ref)))
        self.outbox.end(Closed("the client was closed before this was answered"))

    @property
    def has_left(self) -> bool:
        """Whether everything is confirmed, or cannot be any more."""
        return not self._confirming or self.life is not Life.OPEN

    def _confirmed(self, ref: frames.Ref) -> None:
        if self._confirming is not None:
            self._confirming.discard(ref)

    def _schedule_ack(self, now: float) -> None:
        if self._ack_at is None and self._acknowledges and self._positions.has_news():
            self._ack_at = now + ACK_EVERY_S

    def _acknowledge(self, offsets: Mapping[str, EntryId]) -> None:
        # One frame for each stream: when one is refused (we have just left the group), the others are taken.
        self._lines += [encode(frames.Ack({stream: str(offset)})) for stream, offset in offsets.items()]

    def _pack(self) -> list[bytes]:
        """The lines to say, in as few messages as they fit into."""
        packed: list[bytes] = []
        size = self._bounds.frame_bytes
        for line in self._lines:
            size += len(line) + 1
            if size > self._bounds.frame_bytes:
                packed.append(line)
                size = len(line)
            else:
                packed[-1] += b"\n" + line
        self._lines = []
        return packed
